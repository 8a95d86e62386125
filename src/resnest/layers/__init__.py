"""Parts that tasks share and that stand on a backbone: feature pyramid, deformable convolution."""
