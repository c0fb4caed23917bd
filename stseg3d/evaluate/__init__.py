"""Predictions against labels: pair files by name, score them, compute confidence intervals, tabulate."""

from stseg3d.evaluate.pairing import Pair, pair_cases
from stseg3d.evaluate.scoring import Row, evaluate_case, read_classes
from stseg3d.evaluate.statistics import Interval, bootstrap_interval, summarise
from stseg3d.evaluate.tables import dump, table

__all__ = ["Interval", "Pair", "Row", "bootstrap_interval", "dump", "evaluate_case", "pair_cases", "read_classes", "summarise", "table"]
