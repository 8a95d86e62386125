"""Using weights: `model` opens and shares them, `predicting` and `evaluation` run them, `torch_engine` with torch."""
