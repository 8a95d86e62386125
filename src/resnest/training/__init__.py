"""Training: one explicit loop on Lightning Fabric for every task, and the run directory it writes."""

from resnest.training.train import Result, resume, train

__all__ = ["Result", "resume", "train"]
