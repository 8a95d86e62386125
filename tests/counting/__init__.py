"""A fifth task: a picture -> how many dots it shows. As small as a task can be; tests/test_fifth_task.py uses it."""
