"""Random fields: what makes tissue uneven, vessels wander, bodies differ and scans noisy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline
from scipy.ndimage import gaussian_filter

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]


def correlated_noise(
    rng: np.random.Generator, shape: Sequence[int], sigma: float | Sequence[float], *, truncate: float, mode: str = "reflect"
) -> Field:
    """White noise of standard deviation 1, blurred by ``sigma`` voxels, which makes its deviation smaller; see ``gaussian_filter``."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    gaussian_filter(noise, sigma, output=noise, truncate=truncate, mode=mode)
    return noise


@lru_cache(maxsize=256)
def spline_operator(size: int, knots: int) -> Field:
    """Matrix ``(size, knots)`` of cubic B-splines over an axis: knot values in, a smooth curve out; its rows sum to 1."""
    at = (np.arange(size) + 0.5) / size * (knots - 3) + 1
    matrix: Field = BSpline.design_matrix(at, np.arange(-2.0, knots + 2), 3).toarray().astype(np.float32)
    return matrix


def smooth_field(rng: np.random.Generator, shape: Sequence[int], spacing_mm: Sequence[float], scale_mm: float) -> Field:
    """Gaussian noise that changes over about ``scale_mm``, the distance between the knots of its B-spline; mean 0, deviation about 1."""
    knots = [max(int(np.ceil(n * mm / scale_mm)), 1) + 3 for n, mm in zip(shape, spacing_mm, strict=True)]
    field = rng.standard_normal(knots, dtype=np.float32)
    for axis, (n, k) in enumerate(zip(shape, knots, strict=True)):
        field = np.moveaxis(np.moveaxis(field, axis, -1) @ spline_operator(int(n), k).T, -1, axis)
    # A cubic B-spline of white noise has 0.479 of its variance on each axis.
    return np.ascontiguousarray(field) * np.float32(0.479 ** (-len(knots) / 2))
