"""Comparison of four ways to segment the same cases, at several input sizes."""

from stseg3d.compare.advice import Advice, advise
from stseg3d.compare.comparison import WAYS, Comparison, Score
from stseg3d.compare.experiment import compare
from stseg3d.compare.text_tables import summary_text
from stseg3d.compare.write import write_outputs
from stseg3d.training.sliding_window import SlidingWindow, WholeCased

__all__ = ["WAYS", "Advice", "Comparison", "Score", "SlidingWindow", "WholeCased", "advise", "compare", "summary_text", "write_outputs"]
