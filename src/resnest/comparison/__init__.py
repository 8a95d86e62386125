"""Comparison of models on the same pictures: figures with intervals, significance, speed, and what differs."""
