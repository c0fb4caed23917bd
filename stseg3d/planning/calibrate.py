"""Conformal risk control: the least careful setting whose expected loss on a new case is bounded.

Angelopoulos, Bates, Fisch, Lei, Schuster, "Conformal Risk Control", ICLR 2024 (arXiv:2208.02814). The settings are one chain, ordered
from the least to the most careful **before** the cases are looked at. With losses in ``[0, 1]`` of ``n`` cases, the first setting whose
mean loss ``R`` obeys ``n / (n + 1) * R + 1 / (n + 1) <= alpha`` has an expected loss of at most ``alpha`` on one more case, if all
``n + 1`` are exchangeable and no setting has a larger loss than a less careful one. Where losses are not in
that order, each is replaced by the largest of its own and all more careful settings, as in the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import ArrayLike, NDArray

ROUNDING = 1e-9  # 1 - 0.99 is not 0.01


@dataclass(frozen=True)
class Choice:
    """Chosen setting."""

    index: int  # its place in the chain
    guaranteed: bool  # whether the wanted coverage is guaranteed; otherwise only the mean over the cases at hand reaches it
    coverage: float  # expected coverage that is guaranteed, in `[0, 1]`


def monotonised(losses: ArrayLike) -> NDArray[np.float64]:
    """Losses ``(cases, settings)`` that never grow along the chain: each the largest of its own and of all more careful settings.

    Example:
        >>> monotonised([[0.5, 0.1, 0.2, 0.0]]).tolist()
        [[0.5, 0.2, 0.2, 0.0]]
    """
    losses = np.asarray(losses, dtype=np.float64)
    return np.maximum.accumulate(losses[:, ::-1], axis=1)[:, ::-1]


def risk_bounds(losses: ArrayLike) -> NDArray[np.float64]:
    """Smallest ``alpha`` at which each setting passes: ``n / (n + 1) * mean + 1 / (n + 1)`` of the monotonised losses.

    Raises:
        ValueError: If there is no case, or a loss is outside ``[0, 1]``.
    """
    losses = np.asarray(losses, dtype=np.float64)
    if losses.ndim != 2 or not losses.size or not ((losses >= 0) & (losses <= 1)).all():
        msg = f"losses must be (cases, settings) in [0, 1] with a case at least, got shape {losses.shape}"
        raise ValueError(msg)
    cases = len(losses)
    bounds: NDArray[np.float64] = (cases * monotonised(losses).mean(axis=0) + 1) / (cases + 1)
    return bounds


def cases_needed(coverage: float, risk: float = 0.0) -> int | None:
    """Minimum number of cases that can guarantee an expected ``coverage``; None if no number can.

    Args:
        coverage: Wanted coverage, in ``(0, 1)``.
        risk: Mean loss of the cases; 0, the default, if all are fully covered.

    Raises:
        ValueError: If ``coverage`` is out of range; 1 is never guaranteed.

    Example:
        >>> cases_needed(0.99), cases_needed(0.99, risk=0.005)
        (99, 198)
    """
    if not 0 < coverage < 1:
        msg = f"coverage must be above 0 and below 1, got {coverage:g}"
        raise ValueError(msg)
    room = 1 - coverage - risk
    return ceil(coverage / room - ROUNDING) if room > ROUNDING else None


def choose(losses: ArrayLike, costs: ArrayLike, coverage: float) -> Choice | None:
    """The cheapest setting that guarantees the coverage, or else the cheapest whose cases reach it on average.

    Any setting after the first that passes may be chosen, so the cost may depend on the data: its monotonised loss is no larger. The
    second rule asks for a mean loss of ``1 - coverage``, which is the first rule, and its guarantee, at
    ``alpha = (n * (1 - coverage) + 1) / (n + 1)``. If that fails, too, the bound holds for using the whole volume, which misses nothing.

    Args:
        losses: ``(cases, settings)`` in ``[0, 1]``, the least careful setting first.
        costs: One per setting; at equal costs the least careful setting is chosen.
        coverage: Wanted mean of ``1 - loss``, in ``(0, 1)``.

    Returns:
        Choice, or None if no setting reaches the coverage on average.

    Raises:
        ValueError: If ``losses`` or ``coverage`` is out of range.
    """
    cases_needed(coverage)  # checks its range
    bounds, costs = risk_bounds(losses), np.asarray(costs, dtype=np.float64)
    cases, alpha = len(np.asarray(losses)), 1 - coverage
    for guaranteed, level in ((True, alpha), (False, (cases * alpha + 1) / (cases + 1))):
        passing = np.flatnonzero(bounds <= level + ROUNDING)
        if len(passing):
            return Choice(int(passing[np.argmin(costs[passing])]), guaranteed, 1 - level)
    return None
