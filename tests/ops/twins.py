"""Everything there is on small shapes, and what is slow and obvious."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product

import numpy as np

from stseg3d.geometry import Box
from stseg3d.ops.boxes import ProposedBox
from stseg3d.ops.resample import resample

SHAPES = [(5,), (4, 5), (4, 5, 1), (3, 4, 5)]


def all_boxes(shape: tuple[int, ...]) -> list[Box]:
    """Every box with at least one voxel."""
    spans = [list(combinations(range(n + 1), 2)) for n in shape]
    return [Box(tuple(a for a, _ in axes), tuple(b for _, b in axes)) for axes in product(*spans)]


def slow_probabilities(shape, crops, classes, fusion):
    """Fused class probabilities, by full-resolution arrays and the docstring's words."""
    fused, weight = np.zeros((classes, *shape)), np.zeros(shape)
    if fusion != "mean":
        fused[0] = 1
    for one in crops:
        here = (slice(None), *one.box.slices)
        part = resample(one.probabilities, one.box.shape).astype(float)
        if fusion == "mean":
            axes = [np.exp(-0.5 * (((np.arange(n) + 0.5) / n - 0.5) / 0.25) ** 2) for n in one.box.shape]
            own = np.prod(np.meshgrid(*axes, indexing="ij"), axis=0)
            fused[here] += own * part
            weight[one.box.slices] += own
            continue
        if fusion == "or":
            part = np.eye(classes)[part.argmax(axis=0)].transpose(part.ndim - 1, *range(part.ndim - 1))
        fused[here] = np.concatenate([np.minimum(fused[here][:1], part[:1]), np.maximum(fused[here][1:], part[1:])])
    return fused / np.where(weight > 0, weight, 1) if fusion == "mean" else fused


def slow_merge(boxes: list[ProposedBox], longest: Sequence[int]) -> tuple[list[ProposedBox], int]:
    """Overlapping boxes merged where it pays, each asking all before it; and how often."""
    done: list[ProposedBox] = []
    todo = boxes[::-1]
    merged = 0
    while todo:
        current = todo.pop()
        partner = next((b for b in done if _pays(current.box, b.box, longest)), None)
        if partner is None:
            done.append(current)
            continue
        done.remove(partner)
        merged += 1
        flags = (partner.clipped or current.clipped, partner.tile or current.tile)
        todo.append(ProposedBox(partner.box.union(current.box), partner.components | current.components, *flags))
    return done, merged


def _pays(one: Box, other: Box, longest: Sequence[int]) -> bool:
    union = one.union(other)
    fits = union in (one, other) or all(n <= limit for n, limit in zip(union.shape, longest, strict=True))
    return one.overlaps(other) and fits and union.voxels <= one.voxels + other.voxels
