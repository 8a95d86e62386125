"""Using weights: open any model reference, predict with it, evaluate it."""

from resnest.inference.evaluation import Evaluation, evaluate, evaluate_network
from resnest.inference.opening import Model, Predictor, open_model

__all__ = ["Evaluation", "Model", "Predictor", "evaluate", "evaluate_network", "open_model"]
