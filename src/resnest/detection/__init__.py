"""Detectors: (cascade) R-CNN with a feature pyramid on any backbone, with or without masks. Begin with detector.py."""
