"""Panoptic FPN: a detector with masks and a semantic branch on one pyramid. Begin with model.py."""
