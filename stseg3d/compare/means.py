"""Means and paired differences with their confidence intervals, for tables, figures and advice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from stseg3d.compare.comparison import WAY_TITLES, Comparison
from stseg3d.evaluate import Interval, bootstrap_interval

Place = tuple[str, int]  # a way and a nominal size


@dataclass(frozen=True, slots=True)
class Difference:
    """Paired difference of two ways on the same cases."""

    one: Place  # a way and its nominal size
    other: Place  # the way and size that is subtracted
    interval: Interval  # mean of the paired differences and its 95 % bootstrap interval, over the cases with a value both ways


def title_of(place: Place) -> str:
    """Title for a reader: ``two stages at 32``."""
    return f"{WAY_TITLES[place[0]]} at {place[1]}"


def mean_of(comparison: Comparison, name: str, place: Place) -> Interval:
    """Mean of a value of :meth:`~stseg3d.compare.comparison.Score.value` over cases, with its 95 % bootstrap interval."""
    return _interval(np.array([score.value(name) for score in comparison.at(*place).values()]).tobytes())


def difference_of(comparison: Comparison, name: str, one: Place, other: Place) -> Difference | None:
    """``one`` minus ``other``; None if they share no case with a value both ways."""
    first, second = comparison.at(*one), comparison.at(*other)
    interval = _interval(np.array([first[case].value(name) - second[case].value(name) for case in first if case in second]).tobytes())
    return Difference(one, other, interval) if interval.n else None


def differences(comparison: Comparison, name: str) -> Iterator[Difference]:
    """Two stages against rough only at the same and at twice the size, the same with true boxes, and the sliding window."""
    for against, factor in (("rough_only", 1), ("rough_only", 2), ("true_boxes", 1), ("sliding_window", 1)):
        for size in comparison.sizes:
            found = difference_of(comparison, name, ("two_stage", size), (against, factor * size))
            if found is not None:
                yield found


@lru_cache(maxsize=4096)
def _interval(values: bytes) -> Interval:
    """Interval of the float64 values in these bytes, cached as tables, figures and advice need the same ones."""
    return bootstrap_interval(np.frombuffer(values, dtype=np.float64))
