"""Segmenters: DeepLabV3, DeepLabV3+, FCN and PSPNet on any backbone. Begin with segmenter.py."""
