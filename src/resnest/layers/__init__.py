"""Parts that tasks share and that need torchvision's operators: the feature pyramid, deformable convolution."""
