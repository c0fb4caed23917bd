"""Means over cases with bootstrap confidence intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

from stseg3d.evaluate.scoring import FOREGROUND, Row
from stseg3d.metrics import METRICS

RESAMPLES = 10_000
CONFIDENCE_LEVEL = 0.95
INTERVAL_METHOD = "expanded percentile"
BATCH_VALUES = 2**22  # values drawn at once: 32 MiB


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and the confidence interval around it."""

    mean: float  # mean of the defined values; NaN if there are none
    low: float  # lower end; NaN with fewer than two values
    high: float  # upper end; NaN with fewer than two values
    n: int  # number of defined values
    n_undefined: int = 0  # number of NaNs, which are left out


def bootstrap_interval(values: Sequence[float] | NDArray[np.float64], *, seed: int = 0, level: float = CONFIDENCE_LEVEL) -> Interval:
    """Mean over cases with its expanded percentile bootstrap interval, from :data:`RESAMPLES` resamples.

    It covers other cases of the same kind, not other trainings. Plain percentiles of few cases are too narrow; expanded ones are widened
    as Student's t requires (Hesterberg 2015, The American Statistician 69:371) and, unlike a t interval, stay within the metric's range.
    The interval never exceeds the lowest and highest value, so with fewer than five cases it is still too narrow, and if all cases agree
    it has no width.

    Args:
        values: One per case; NaN is left out and counted.
        seed: Seed of the resamples: the same values give the same interval.
        level: Confidence level, such as 0.95.

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
    batches = np.array_split(np.arange(RESAMPLES), -(-n * RESAMPLES // BATCH_VALUES))
    means = np.concatenate([kept[rng.integers(0, n, (len(batch), n))].mean(axis=1) for batch in batches])
    tail = ndtr(np.sqrt(n / (n - 1)) * stdtrit(n - 1, (1 - level) / 2))
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(mean, float(low), float(high), n, undefined)


@dataclass(frozen=True, slots=True)
class Summary:
    """One metric over cases; NaN where there are too few."""

    mean: float  # mean of the defined values
    median: float  # median of the defined values
    sd: float  # standard deviation over cases (n - 1)
    ci_low: float  # lower end of the mean's confidence interval
    ci_high: float  # upper end
    n: int  # number of defined values
    n_undefined: int  # number of NaNs, which are left out


@dataclass(frozen=True, slots=True)
class ClassSummary:
    """Every metric of one class over cases."""

    name: str  # `foreground`, the class as a number, or the name of a region
    cases: int  # number of cases with a row of this class
    n_empty_prediction: int  # number of cases in which only the prediction is empty, so that distances are the worst possible
    n_empty_label: int  # number of cases in which only the label is empty, with the worst distances, too
    metrics: dict[str, Summary]  # summaries by metric name


def summarise(rows: Iterable[Row]) -> list[ClassSummary]:
    """Summary of each class over the cases with a row of it: the foreground, then classes by number, then regions."""
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        by_name.setdefault(row.name, []).append(row)
    order = sorted(by_name, key=lambda name: -1.0 if name == FOREGROUND else int(name) if name.isdecimal() else inf)
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
