"""The command line: one file per verb, each on the function that Python users call."""
