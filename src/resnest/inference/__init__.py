"""Inference: `model` opens and shares models, `predicting` and `evaluation` run them, `torch_engine` in torch."""
