"""Scores as text: a table for the terminal, CSV and JSON for everything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isnan
from typing import Any

from stseg3d.evaluate.scoring import Row
from stseg3d.evaluate.statistics import CONFIDENCE_LEVEL, INTERVAL_METHOD, RESAMPLES, ClassSummary, Summary
from stseg3d.machine.tables import Table, records_text
from stseg3d.metrics import METRICS

# The metrics that fit a terminal; files have all.
COLUMNS = ["dice", "iou", "precision", "recall", "hd95_mm", "assd_mm", "nsd"]
OBJECT_COLUMNS = ["objects_found", "objects_missed", "objects_false", "object_f1_50"]
SHOWN_STATISTICS = ["mean", "ci_low", "ci_high"]
STATISTICS = list(Summary.__dataclass_fields__)


def table(rows: Sequence[Row], summaries: Sequence[ClassSummary]) -> str:
    """Text table of the most important metrics, a line per row and statistic, with notes below."""
    columns = [name for name in COLUMNS + OBJECT_COLUMNS if any(name in row.values for row in rows)]
    cells = [[row.case, row.name, *(_cell(row.values.get(name), name) for name in columns)] for row in rows]
    for statistic in SHOWN_STATISTICS:
        for summary in summaries:
            if statistic == "mean" or summary.cases > 1:
                found = [getattr(summary.metrics[name], statistic) if name in summary.metrics else None for name in columns]
                cells.append([statistic, summary.name, *map(_cell, found, columns)])
    return "\n".join([Table(["case", "class", *columns], cells).text(), *_notes(summaries)])


def _cell(value: float | None, name: str) -> str:
    if value is None or isnan(value):
        return "-"
    if isinstance(value, int):
        return str(value)
    return f"{value:.2f}" if METRICS[name].unit else f"{value:.4f}"


def _notes(summaries: Sequence[ClassSummary]) -> list[str]:
    """Notes on how intervals are made and which values are conventions."""
    notes = []
    if any(summary.cases > 1 for summary in summaries):
        interval = f"{CONFIDENCE_LEVEL:.0%} interval of the mean over cases, {RESAMPLES} bootstrap resamples ({INTERVAL_METHOD})"
        notes.append(f"ci_low to ci_high: {interval}")
    for summary in summaries:
        for count, what in [(summary.n_empty_prediction, "prediction"), (summary.n_empty_label, "label")]:
            if count:
                notes.append(
                    f"{summary.name}: in {count} of {summary.cases} cases only the {what} is empty; distances are the image's diagonal"
                )
        undefined = {name: found.n_undefined for name, found in summary.metrics.items() if found.n_undefined}
        if undefined:
            lists = ", ".join(f"{name} in {count}" for name, count in undefined.items())
            notes.append(f"{summary.name}: undefined and left out of the mean: {lists} of {summary.cases} cases")
    return notes


def dump(
    rows: Sequence[Row],
    summaries: Sequence[ClassSummary],
    suffix: str,
    *,
    failed: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> str:
    """Every row and statistic as ``.csv`` or ``.json``.

    Args:
        rows: Rows of all cases.
        summaries: Summary of each class.
        suffix: ``.csv`` or ``.json``. JSON has ``settings``, ``cases``, ``failed`` and ``summary``, with null for undefined values. CSV
            has the cases, then a line per statistic, named in the case column, then the failed cases with their ``error``.
        failed: Cases that could not be scored, and why.
        settings: What the scores depend on, for JSON.

    Raises:
        ValueError: If the suffix is another.
    """
    bootstrap = {"resamples": RESAMPLES, "level": CONFIDENCE_LEVEL, "method": INTERVAL_METHOD}
    content = {
        "settings": {**(settings or {}), "bootstrap": bootstrap},
        "cases": [row.as_dict() for row in rows],
        "failed": failed or {},
        "summary": [{"class": s.name, **{k: v for k, v in asdict(s).items() if k != "name"}} for s in summaries],
    }
    return records_text(suffix, _records(rows, summaries, failed or {}), content)


def _records(rows: Sequence[Row], summaries: Sequence[ClassSummary], failed: Mapping[str, str]) -> list[dict[str, Any]]:
    records = [row.as_dict() for row in rows]
    for statistic in STATISTICS:
        for summary in summaries:
            values = {name: getattr(found, statistic) for name, found in summary.metrics.items()}
            records.append({"case": statistic, "class": summary.name, **values})
    records += [{"case": case, "error": error} for case, error in failed.items()]
    return records
