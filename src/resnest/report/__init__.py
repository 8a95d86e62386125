"""The HTML report of a training run, in one self-contained file. `page` writes it; each task defines its sections."""
