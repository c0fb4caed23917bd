"""Smooth random fields: what makes tissue uneven, vessels wander and bodies differ."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline

Field = NDArray[np.float32]


@lru_cache(maxsize=256)
def spline_operator(size: int, knots: int) -> Field:
    """Matrix ``(size, knots)`` of cubic B-splines over an axis: knot values in, a smooth curve out; its rows sum to 1."""
    at = (np.arange(size) + 0.5) / size * (knots - 3) + 1
    matrix: Field = BSpline.design_matrix(at, np.arange(-2.0, knots + 2), 3).toarray().astype(np.float32)
    return matrix


def smooth_field(rng: np.random.Generator, shape: Sequence[int], spacing_mm: Sequence[float], scale_mm: float | Sequence[float]) -> Field:
    """Gaussian noise that changes over about ``scale_mm``, with a mean of 0 and a standard deviation of about 1.

    Args:
        rng: Source of the noise.
        shape: Voxels on each axis.
        spacing_mm: Size of a voxel.
        scale_mm: Distance between the knots of its cubic B-spline, for all axes or one entry an axis.

    Returns:
        Field of shape ``shape``.
    """
    scales = np.broadcast_to(scale_mm, len(shape))
    knots = [max(int(np.ceil(n * mm / s)), 1) + 3 for n, mm, s in zip(shape, spacing_mm, scales, strict=True)]
    field = rng.standard_normal(knots, dtype=np.float32)
    for axis, (n, k) in enumerate(zip(shape, knots, strict=True)):
        field = np.moveaxis(np.moveaxis(field, axis, -1) @ spline_operator(int(n), k).T, -1, axis)
    # A cubic B-spline of white noise has 0.479 of its variance on each axis.
    return np.ascontiguousarray(field) * np.float32(0.479 ** (-len(knots) / 2))
