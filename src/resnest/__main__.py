"""`python -m resnest` is `resnest`."""

from resnest.cli.app import main

main()
