"""Predictions against labels: pair files by name, score them, compute confidence intervals, tabulate."""

from stseg3d.evaluate.pairing import Pair, pair_cases
from stseg3d.evaluate.scoring import FOREGROUND, Row, classes_in, evaluate_case
from stseg3d.evaluate.statistics import Interval, bootstrap_interval, summarise
from stseg3d.evaluate.tables import dump, table

__all__ = [
    "FOREGROUND",
    "Interval",
    "Pair",
    "Row",
    "bootstrap_interval",
    "classes_in",
    "dump",
    "evaluate_case",
    "pair_cases",
    "summarise",
    "table",
]
