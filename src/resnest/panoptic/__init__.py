"""Panoptic FPN: a detector with masks and a branch that labels every pixel, on one pyramid. Begin with panoptic.py."""
