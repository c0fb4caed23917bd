"""The numbers of a comparison for other programs: rows of CSV files, in the long form."""

from __future__ import annotations

import math
from collections.abc import Mapping

from stseg3d.compare.comparison import Comparison
from stseg3d.compare.means import differences, mean_of
from stseg3d.evaluate import Interval

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
            rows.append({"size": size, "way": way, "value": name, **_ends(mean), "cases": mean.n, "left_out": mean.n_undefined})
    return rows


def difference_rows(comparison: Comparison) -> list[Row]:
    """One row a metric and pair of ways: mean of the paired differences, and its 95 % interval."""
    rows: list[Row] = []
    for name in metric_names(comparison):
        for d in differences(comparison, name):
            places: Row = {"way": d.one[0], "size": d.one[1], "minus_way": d.other[0], "minus_size": d.other[1]}
            rows.append({"value": name, **places, **_ends(d.interval), "cases": d.interval.n})
    return rows


def _ends(interval: Interval) -> Row:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}
