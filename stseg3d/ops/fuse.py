"""Fusion: the crops' probabilities become labels on the image's grid, block by block.

No full-resolution float array ever exists. Crops keep the fine network's size until their cluster is complete. Then the cluster is
painted in small blocks, each from the crops that overlap it, straight to integers.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stseg3d.geometry import Box, edges, overlapping
from stseg3d.machine.threads import map_in_threads
from stseg3d.ops.resample import Float, as_float32, resample_region

# Voxels of a painted block on each axis: 128^3 floats are 8 MB per class.
BLOCK_EXTENT = 128
FUSIONS = ("mean", "max", "or")
# Smaller arrays may use large pages.
LARGE_BYTES = 1 << 22
BINARY = 2  # background and one foreground class


@dataclass(frozen=True)
class FineCrop:
    """Output of the fine network for one box."""

    box: Box  # box on the image
    probabilities: NDArray[Any]  # class probabilities at the network's size, of shape `(K, *S)`, class 0 the background


def clusters(boxes: Sequence[Box]) -> list[list[int]]:
    """Groups of indices of boxes that overlap directly or through others, in order of first appearance."""
    places = edges(boxes)  # of boxes without a group; the others are made empty, and overlap none
    grouped: set[int] = set()
    groups: list[list[int]] = []
    for first in range(len(boxes)):
        if first in grouped:
            continue
        members, todo = {first}, [first]
        while todo:  # box by box: all pairs of 20,000 boxes that overlap take 10 GB
            met = overlapping(boxes[todo.pop()], places[..., first:]) + first
            places[..., met] = 0
            todo += [i for i in met.tolist() if i != first]
            members.update(met.tolist())
        grouped |= members
        groups.append(sorted(members))
    return groups


def box_weight(box: Box, region: Box, sigma: float = 0.25) -> Float:
    """Gaussian weight of the voxels of ``region``: 1 at the centre of ``box``; ``sigma`` is a fraction of its extent."""
    weight = np.ones((1,) * box.ndim, dtype=np.float32)
    for axis, (n, span) in enumerate(zip(box.shape, region.relative_to(box).slices, strict=True)):
        centred = (np.arange(n)[span] + 0.5) / n - 0.5
        profile = np.exp(-0.5 * (centred / sigma) ** 2).astype(np.float32)
        weight = weight * profile.reshape([-1 if a == axis else 1 for a in range(box.ndim)])
    return weight


def blank(shape: Sequence[int], dtype: np.dtype[Any], axes: Sequence[int] | None = None) -> NDArray[Any]:
    """Array of zeros that takes memory only where it is written, in pages of 4 KiB; numpy would use pages of 2 MiB.

    Args:
        shape: Shape of the array.
        dtype: Type of the array.
        axes: Axes from the fastest to the slowest in memory; by default the last axis is the fastest.
    """
    slowest_first = [*range(len(shape))] if axes is None else [*axes][::-1]
    stored = [int(shape[axis]) for axis in slowest_first]
    n_bytes = prod(stored) * dtype.itemsize
    if n_bytes >= LARGE_BYTES and hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # private: reading shared pages would allocate them
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        array: NDArray[Any] = np.frombuffer(memory, dtype).reshape(stored)
    else:
        array = np.zeros(stored, dtype)
    return array.transpose(np.argsort(slowest_first))


class Canvas:
    """Labels of an image, painted from fine crops.

    Args:
        shape: The image's space shape.
        classes: Number of classes ``K`` including background; labels are ``0 .. K - 1``.
        fusion: Where crops overlap: ``"mean"`` (weighted, a crop's centre counts most), ``"max"`` (the largest foreground
            probability of each class) or ``"or"`` (a voxel is foreground if any crop says so).
        keep_probabilities: Also keep the foreground probabilities, as float16 of shape ``(K - 1, *shape)``. This array is large.
        axes: Order of the axes of the labels in memory, see :func:`blank`.

    Raises:
        ValueError: If ``fusion`` is unknown.
    """

    def __init__(
        self,
        shape: Sequence[int],
        classes: int = 2,
        fusion: str = "mean",
        *,
        keep_probabilities: bool = False,
        axes: Sequence[int] | None = None,
    ) -> None:
        if fusion not in FUSIONS:
            msg = f"fusion must be one of {FUSIONS}, got {fusion!r}"
            raise ValueError(msg)
        self.fusion = fusion
        self.classes = classes
        self.labels = blank(shape, np.min_scalar_type(classes - 1), axes)
        self.probabilities = np.zeros((classes - 1, *shape), dtype=np.float16) if keep_probabilities else None

    def paint(self, crops: Sequence[FineCrop]) -> None:
        """Write the labels of one cluster of crops, which must not overlap the crops of another call."""
        blocks = [(block, [c for c in crops if c.box.overlaps(block)]) for block in _blocks([c.box for c in crops])]
        painted = [(block, reaching) for block, reaching in blocks if reaching]
        for _ in map_in_threads(self._paint_block, painted) if len(painted) > 1 else map(self._paint_block, painted):
            pass

    def _paint_block(self, part: tuple[Box, list[FineCrop]]) -> None:
        block, crops = part
        if self.classes == BINARY and self.fusion == "mean" and self.probabilities is None:
            labels: NDArray[Any] = _lead(block, crops) > 0
            fused = None
        else:
            fused = self._fuse(block, crops)
            labels = _labels_of(fused)
        # Blocks are disjoint and a cluster is painted once, but its outer box may hold voxels of another cluster, which must stay.
        np.copyto(self.labels[block.slices], labels, where=labels > 0, casting="same_kind")
        if self.probabilities is not None and fused is not None:
            kept = self.probabilities[(slice(None), *block.slices)]
            np.maximum(kept, fused[1:], out=kept, casting="same_kind")

    def _fuse(self, block: Box, crops: list[FineCrop]) -> Float:
        """Class probabilities of the voxels of a block, of shape ``(K, *block.shape)``; background where no crop reaches."""
        fused = np.zeros((self.classes, *block.shape), dtype=np.float32)
        fused[0] = self.fusion != "mean"
        total = np.zeros((1, *block.shape), dtype=np.float32)
        for crop in crops:
            region = crop.box.intersect(block)
            inside = (slice(None), *region.relative_to(block).slices)
            part = resample_region(crop.probabilities, crop.box, region)
            if self.fusion == "mean":
                weight = box_weight(crop.box, region)
                fused[inside] += weight * part
                total[inside] += weight
            else:
                part = _one_hot(part) if self.fusion == "or" else part
                # The minimum of the background and the maximum of each other class; a single crop stays as it is.
                fused[inside] = np.concatenate([np.minimum(fused[inside][:1], part[:1]), np.maximum(fused[inside][1:], part[1:])])
        if self.fusion == "mean":
            fused /= np.where(total > 0, total, 1)
        return fused


def _lead(block: Box, crops: Sequence[FineCrop]) -> Float:
    """Weighted sum of the foreground minus that of the background, on the voxels of a block; 0 where no crop reaches.

    With two classes its sign gives the label, for half the resampling and no division.
    """
    lead = np.zeros((1, *block.shape), dtype=np.float32)
    for crop in crops:
        region = crop.box.intersect(block)
        probabilities = as_float32(crop.probabilities)
        part = resample_region(probabilities[1:] - probabilities[:1], crop.box, region)
        lead[(slice(None), *region.relative_to(block).slices)] += part if len(crops) == 1 else box_weight(crop.box, region) * part
    return lead[0]  # type: ignore[no-any-return]


def _one_hot(probabilities: Float) -> Float:
    classes = np.arange(len(probabilities)).reshape(-1, *(1,) * (probabilities.ndim - 1))
    chosen: Float = (_labels_of(probabilities) == classes).astype(np.float32)
    return chosen


def _blocks(boxes: Sequence[Box]) -> Iterator[Box]:
    """Disjoint blocks that cover a cluster."""
    whole = reduce(Box.union, boxes)
    chains = [range(a, b, BLOCK_EXTENT) for a, b in zip(whole.start, whole.stop, strict=True)]
    for start in product(*chains):
        yield Box(start, tuple(a + BLOCK_EXTENT for a in start)).intersect(whole)


def _labels_of(fused: Float) -> NDArray[Any]:
    # Two classes need no argmax, which takes 8 bytes per voxel.
    labels: NDArray[Any] = fused[1] > fused[0] if len(fused) == BINARY else np.argmax(fused, axis=0)
    return labels.astype(np.min_scalar_type(len(fused) - 1), copy=False)
