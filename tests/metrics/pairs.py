"""Pairs of masks, each awkward in its own way, and a slow twin of what a surface is."""

from __future__ import annotations

from itertools import product

import numpy as np
from scipy import ndimage

Pair = tuple[np.ndarray, np.ndarray]


def blobs(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Smooth blobs that fill a quarter of the image and touch its border."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5)
    return noise > np.quantile(noise, 0.75)


def box(shape: tuple[int, ...], *spans: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*span) for span in spans)] = True
    return mask


SHAPE = (11, 9, 8)
PAIRS: dict[str, Pair] = {
    "blobs": (blobs(SHAPE, 0), blobs(SHAPE, 1)),
    "plane": (blobs((17, 14), 2), blobs((17, 14), 3)),
    "line": (box((12,), (2, 7)), box((12,), (4, 12))),
    "the same": (blobs(SHAPE, 0), blobs(SHAPE, 0)),
    "shifted": (box(SHAPE, (2, 7), (2, 7), (2, 6)), box(SHAPE, (3, 8), (2, 7), (3, 7))),
    "one inside the other": (box(SHAPE, (4, 6), (4, 6), (3, 5)), box(SHAPE, (1, 10), (1, 8), (1, 7))),
    "far apart": (box(SHAPE, (0, 2), (0, 2), (0, 2)), box(SHAPE, (8, 11), (6, 9), (6, 8))),
    "one voxel each": (box(SHAPE, (1, 2), (1, 2), (1, 2)), box(SHAPE, (8, 9), (5, 6), (1, 2))),
    "one voxel thin": (box(SHAPE, (1, 9), (1, 8), (3, 4)), box(SHAPE, (1, 9), (2, 9), (5, 6))),
    "the whole image": (box(SHAPE, (0, 11), (0, 9), (0, 8)), box(SHAPE, (0, 11), (0, 9), (2, 8))),
}
SPACINGS = [(1.0, 1.0, 1.0), (0.7, 0.9, 3.0)]
CASES = [(name, spacing[-mask.ndim :]) for (name, (mask, _)), spacing in product(PAIRS.items(), SPACINGS)]
EMPTY = np.zeros(SHAPE, bool)


def slow_surface(mask: np.ndarray) -> np.ndarray:
    """Indices of voxels with a face towards a voxel outside, one by one."""
    found = []
    for index in np.argwhere(mask):
        around = [index + sign * step for step in np.eye(mask.ndim, dtype=int) for sign in (-1, 1)]
        if any((n < 0).any() or (n >= mask.shape).any() or not mask[tuple(n)] for n in around):
            found.append(index)
    return np.array(found)
