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
class Mean:
    """Mean over the cases where a value is finite.

    Args:
        interval: The mean and its 95 % bootstrap interval; NaN without cases, and without ends for a single case.
        cases: Number of cases with a finite value.
        left_out: Number of cases without one.
    """

    interval: Interval
    cases: int
    left_out: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Paired difference of two ways on the same cases.

    Args:
        one: A way and its nominal size.
        other: The way and size that is subtracted.
        interval: Mean of the paired differences and its 95 % bootstrap interval.
        cases: Number of cases with a finite value both ways.
    """

    one: Place
    other: Place
    interval: Interval
    cases: int

    @property
    def title(self) -> str:
        """Title for a table: ``two stages at 32 - rough only at 64``."""
        return f"{title_of(self.one)} - {title_of(self.other)}"


def title_of(place: Place) -> str:
    """Title for a reader: ``two stages at 32``."""
    return f"{WAY_TITLES[place[0]]} at {place[1]}"


def mean_of(comparison: Comparison, name: str, place: Place) -> Mean:
    """Mean of a value of :meth:`~stseg3d.compare.comparison.Score.value` over cases."""
    values = comparison.values(name, *place)
    return Mean(_interval(values.tobytes()), len(values), len(comparison.at(*place)) - len(values))


def difference_of(comparison: Comparison, name: str, one: Place, other: Place) -> Difference | None:
    """``one`` minus ``other``; None if they share no case with finite values."""
    first, second = comparison.pairs(name, one, other)
    if not first.size:
        return None
    return Difference(one, other, _interval((first - second).tobytes()), len(first))


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
