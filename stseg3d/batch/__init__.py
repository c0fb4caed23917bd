"""Batches: many cases, with an outcome for each, even if it fails.

:func:`run_batch` decides what is to be done and records the outcomes. A :class:`Runner` decides where it is done.
"""

from stseg3d.batch.cluster import RayCluster
from stseg3d.batch.processes import Processes
from stseg3d.batch.run import BatchResult, BatchStoppedError, InProcess, Runner, run_batch
from stseg3d.batch.work import CaseWorker
from stseg3d.results.journal import CaseOutcome, OutcomeLog, write_summary

__all__ = [
    "BatchResult",
    "BatchStoppedError",
    "CaseOutcome",
    "CaseWorker",
    "InProcess",
    "OutcomeLog",
    "Processes",
    "RayCluster",
    "Runner",
    "run_batch",
    "write_summary",
]
