"""Keypoints: the named points of each object in a box, by heatmaps (SimpleBaseline, arXiv 1804.06208)."""
