"""Tiny images whose objects are brighter (100) than all else (0), with a little noise: ``image > 50`` is right everywhere."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Phantom = tuple[NDArray[np.float32], Mask]


def image_of(mask: Mask, seed: int = 0) -> Phantom:
    """The image of a mask, and the mask."""
    noise = np.random.default_rng(seed).normal(0, 5, mask.shape)
    return (100 * mask + noise.clip(-20, 20)).astype(np.float32), mask


def near(points: NDArray[np.float64], radius: float, shape: tuple[int, ...]) -> Mask:
    """Voxels whose centres lie within ``radius`` voxels of one of the points, looked for around each point only."""
    mask = np.zeros(shape, dtype=bool)
    for point in points:
        low = np.maximum(np.ceil(point - radius), 0).astype(int)
        high = np.minimum(np.floor(point + radius) + 1, shape).astype(int)
        ball = sum((g - p) ** 2 for g, p in zip(np.ogrid[tuple(map(slice, low, high))], point, strict=True))
        mask[tuple(map(slice, low, high))] |= ball <= radius**2
    return mask


def thin_curved_tube(shape: tuple[int, int, int], radius: float = 2.0) -> Phantom:
    """One tube, a few voxels thin, that winds once around the middle from the first slice to the last."""
    steps = np.linspace(0, 1, 4 * sum(shape))
    reach = (np.asarray(shape) - 1) / 2
    turn = 2 * np.pi * steps
    line = np.stack([reach[0] * (1 + 0.7 * np.cos(turn)), reach[1] * (1 + 0.7 * np.sin(turn)), 2 * reach[2] * steps], axis=1)
    return image_of(near(line, radius, shape))


def many_objects(shape: tuple[int, int, int], n: int, seed: int = 0) -> Phantom:
    """``n`` blocks of 2 to 3 voxels an axis, no two of which touch, not even at a corner."""
    rng = np.random.default_rng(seed)
    cells = list(product(*(range(0, size - 3, 5) for size in shape)))
    if len(cells) < n:
        msg = f"shape must hold {n} cells of 5 voxels an axis, got {shape}, which holds {len(cells)}"
        raise ValueError(msg)
    mask = np.zeros(shape, dtype=bool)
    for cell in rng.permutation(cells)[:n]:
        start, size = cell + rng.integers(0, 2, size=3), rng.integers(2, 4, size=3)
        mask[tuple(map(slice, start, start + size))] = True
    return image_of(mask, seed)


def touching_objects(shape: tuple[int, int, int]) -> Phantom:
    """Two balls side by side along the first axis that share a few voxels' face: one component."""
    radius = min(shape[0] / 4, shape[1] / 2, shape[2] / 2) - 0.5
    middle = (np.asarray(shape, dtype=float) - 1) / 2
    aside = np.array([radius, 0, 0])
    return image_of(near(np.stack([middle - aside, middle + aside]), radius, shape))


def object_at_border(shape: tuple[int, int, int]) -> Phantom:
    """A ball about the first voxel: seven eighths of it lie outside of the image."""
    return image_of(near(np.zeros((1, 3)), min(shape) / 3, shape))


def frame_filling_object(shape: tuple[int, int, int]) -> Phantom:
    """One object that touches every face of the image and leaves only the corners free."""
    axes = np.meshgrid(*(np.linspace(-1, 1, size) if size > 1 else np.zeros(1) for size in shape), indexing="ij")
    return image_of(sum(a**4 for a in axes) <= 1.5)
