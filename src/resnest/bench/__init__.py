"""Benchmarks against other networks and engines: alternating runs, medians with intervals, CSV, plot, comparison.

table = bench(plan(["resnest50", "timm:resnest50d"], engines=["onnxruntime"], batches=[1]))
"""

from resnest.bench.run import Plan, bench, plan
from resnest.bench.table import Case, Table, base_of, lines, ratio_of, read_table, to_dict, write_table

__all__ = [
    "Case", "Plan", "Table", "base_of", "bench", "lines", "plan", "ratio_of", "read_table", "to_dict", "write_table",
]  # fmt: skip
