"""Means over cases, and how sure they are: bootstrap confidence intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

from stseg3d.evaluate.scoring import FOREGROUND, Row
from stseg3d.metrics import METRICS

RESAMPLES = 10_000
LEVEL = 0.95
METHOD = "expanded percentile"
BATCH = 2**22  # values drawn at once: 32 MiB


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and the confidence interval around it.

    Args:
        mean: Of the values that are defined; NaN if none is.
        low: Lower end; NaN with fewer than two values.
        high: Upper end; NaN with fewer than two values.
        n: How many values are defined.
        n_undefined: How many are NaN, and left out.
    """

    mean: float
    low: float
    high: float
    n: int
    n_undefined: int = 0


def bootstrap_interval(values: Sequence[float] | NDArray[np.float64], *, seed: int = 0, level: float = LEVEL) -> Interval:
    """Mean over cases with its expanded percentile bootstrap interval, from :data:`RESAMPLES` resamples.

    It says where the mean might be for other cases of the same kind, and nothing of other trainings. The plain percentiles of few cases
    are too narrow; the expanded ones take them as far out as Student's t asks (Hesterberg 2015, The American Statistician 69:371) and,
    unlike an interval of t, stay within what the metric can be. It is never wider than from the lowest value to the highest, so with
    fewer than five cases it is still too narrow, and where all cases agree it has no width.

    Args:
        values: One a case; NaN is left out and counted.
        seed: Of the resamples: the same values give the same interval.
        level: How many of such intervals are to hold the true mean.

    Raises:
        ValueError: If a value is infinite.
    """
    every = np.asarray(values, dtype=np.float64)
    if np.isinf(every).any():
        msg = f"values must be finite or NaN, got {every[np.isinf(every)][0]}"
        raise ValueError(msg)
    kept = every[~np.isnan(every)]
    n, undefined = len(kept), len(every) - len(kept)
    mean = float(kept.mean()) if n else float("nan")
    if n < 2:
        return Interval(mean, float("nan"), float("nan"), n, undefined)
    rng = np.random.default_rng(seed)
    batches = np.array_split(np.arange(RESAMPLES), -(-n * RESAMPLES // BATCH))
    means = np.concatenate([kept[rng.integers(0, n, (len(batch), n))].mean(axis=1) for batch in batches])
    tail = ndtr(np.sqrt(n / (n - 1)) * stdtrit(n - 1, (1 - level) / 2))
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(mean, float(low), float(high), n, undefined)


@dataclass(frozen=True, slots=True)
class Summary:
    """One metric over cases; NaN where there are too few.

    Args:
        mean: Of the values that are defined.
        median: As ``mean``.
        sd: Standard deviation over cases (n - 1).
        ci_low: Lower end of the mean's confidence interval.
        ci_high: Upper end.
        n: How many values are defined.
        n_undefined: How many are NaN, and left out.
    """

    mean: float
    median: float
    sd: float
    ci_low: float
    ci_high: float
    n: int
    n_undefined: int


@dataclass(frozen=True, slots=True)
class ClassSummary:
    """Every metric of one class over cases.

    Args:
        name: ``foreground``, or the class as a number.
        cases: How many cases have a row of it.
        n_empty_prediction: In how many only the prediction is empty, so that distances are the worst there is.
        n_empty_label: In how many only the label is empty; distances as above.
        metrics: By name.
    """

    name: str
    cases: int
    n_empty_prediction: int
    n_empty_label: int
    metrics: dict[str, Summary]


def summarise(rows: Iterable[Row]) -> list[ClassSummary]:
    """Each class over the cases that have a row of it, the foreground first."""
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        by_name.setdefault(row.name, []).append(row)
    order = sorted(by_name, key=lambda name: -1 if name == FOREGROUND else int(name))
    return [_summarise_class(name, by_name[name]) for name in order]


def _summarise_class(name: str, rows: Sequence[Row]) -> ClassSummary:
    nothing_found = sum(not row.prediction_voxels and row.label_voxels > 0 for row in rows)
    nothing_there = sum(not row.label_voxels and row.prediction_voxels > 0 for row in rows)
    scored = [metric for metric in METRICS if any(metric in row.values for row in rows)]
    values = {metric: np.array([row.values.get(metric, np.nan) for row in rows], dtype=np.float64) for metric in scored}
    return ClassSummary(name, len(rows), nothing_found, nothing_there, {m: _summary(v) for m, v in values.items()})


def _summary(values: NDArray[np.float64]) -> Summary:
    interval = bootstrap_interval(values)
    kept = values[~np.isnan(values)]
    median = float(np.median(kept)) if len(kept) else float("nan")
    sd = float(kept.std(ddof=1)) if len(kept) > 1 else float("nan")
    return Summary(interval.mean, median, sd, interval.low, interval.high, interval.n, interval.n_undefined)
