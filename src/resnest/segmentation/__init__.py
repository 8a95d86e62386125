"""Segmenters: DeepLabV3 and its neighbours on any backbone. Begin with segmenter.py."""
