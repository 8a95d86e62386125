"""Weights on disk: reading them safely, and putting them into a network."""

from resnest.checkpoints.create import create_backbone, create_model
from resnest.checkpoints.loading import LoadReport, load_weights
from resnest.checkpoints.reading import read_weights

__all__ = ["LoadReport", "create_backbone", "create_model", "load_weights", "read_weights"]
