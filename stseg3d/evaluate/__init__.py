"""Predictions against labels: pair files by name, score them, compute confidence intervals, tabulate."""

from stseg3d.evaluate.pairing import Pair, pair_cases
from stseg3d.evaluate.scoring import FOREGROUND, Row, evaluate_case
from stseg3d.evaluate.statistics import ClassSummary, Interval, Summary, bootstrap_interval, summarise
from stseg3d.evaluate.tables import dump, table

__all__ = [
    "FOREGROUND",
    "ClassSummary",
    "Interval",
    "Pair",
    "Row",
    "Summary",
    "bootstrap_interval",
    "dump",
    "evaluate_case",
    "pair_cases",
    "summarise",
    "table",
]
