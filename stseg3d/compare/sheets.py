"""The numbers of a comparison for other programs: CSV, in the long form; and all its tables into a folder."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from stseg3d.compare.results import Comparison
from stseg3d.compare.summary import differences, mean_of
from stseg3d.compare.table import summary_markdown
from stseg3d.machine.files import atomic_write_text

COSTS = ("coverage", "boxes", "gmacs", "seconds", "peak_mib")
Row = Mapping[str, str | int | float]


def metric_names(comparison: Comparison) -> list[str]:
    """Metrics that any score has, in the order they first occur."""
    return list(dict.fromkeys(name for score in comparison.scores for name in score.values))


def score_rows(comparison: Comparison) -> list[Row]:
    """One row a case, way and size, with every metric and the seconds of each stage."""
    stages = list(dict.fromkeys(stage for score in comparison.scores for stage in score.seconds))
    rows: list[Row] = []
    for size, way, scores in comparison.groups():
        for score in scores:
            place: Row = {"size": size, "way": way, "case": score.case, "input": "x".join(map(str, score.size))}
            metrics: Row = {name: score.value(name) for name in metric_names(comparison)}
            costs: Row = {"coverage": score.coverage, "boxes": score.boxes, "macs": score.macs}
            times: Row = {f"{stage}_s": score.seconds.get(stage, math.nan) for stage in stages}
            rows.append({**place, **metrics, **costs, **times, "peak_memory_bytes": score.peak_memory_bytes})
    return rows


def summary_rows(comparison: Comparison) -> list[Row]:
    """One row a value, way and size: mean over cases, and its 95 % interval."""
    rows: list[Row] = []
    for size, way, _ in comparison.groups():
        for name in (*metric_names(comparison), *COSTS):
            mean = mean_of(comparison, name, (way, size))
            ends: Row = {"mean": mean.interval.mean, "low": mean.interval.low, "high": mean.interval.high}
            rows.append({"size": size, "way": way, "value": name, **ends, "cases": mean.cases, "left_out": mean.left_out})
    return rows


def difference_rows(comparison: Comparison) -> list[Row]:
    """One row a metric and pair of ways: mean of the paired differences, and its 95 % interval."""
    rows: list[Row] = []
    for name in metric_names(comparison):
        for d in differences(comparison, name):
            places: Row = {"way": d.one[0], "size": d.one[1], "minus_way": d.other[0], "minus_size": d.other[1]}
            ends: Row = {"mean": d.interval.mean, "low": d.interval.low, "high": d.interval.high}
            rows.append({"value": name, **places, **ends, "cases": d.cases})
    return rows


def write_tables(comparison: Comparison, folder: Path) -> list[Path]:
    """Write ``scores.csv``, ``summary.csv``, ``differences.csv`` and ``summary.md``.

    Args:
        comparison: With at least one score.
        folder: Must exist.

    Returns:
        The files.
    """
    texts = {
        "scores.csv": _csv(score_rows(comparison)),
        "summary.csv": _csv(summary_rows(comparison)),
        "differences.csv": _csv(difference_rows(comparison)),
        "summary.md": summary_markdown(comparison),
    }
    return [_write(folder / name, text) for name, text in texts.items()]


def _csv(rows: Sequence[Row]) -> str:
    """Rows under a head; an empty cell for NaN."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if isinstance(v, float) and math.isnan(v) else v for name, v in row.items()} for row in rows)
    return text.getvalue()


def _write(path: Path, text: str) -> Path:
    return atomic_write_text(path, text)
