"""Accumulators in numpy with `update`, `merge` and `compute`: the same figures for any batch size (promise P7)."""

from resnest.metrics.classification import ClassificationMetrics, wilson_interval
from resnest.metrics.multilabel import MultiLabelMetrics

__all__ = ["ClassificationMetrics", "MultiLabelMetrics", "wilson_interval"]
