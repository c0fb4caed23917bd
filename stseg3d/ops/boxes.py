"""The box policy: from a rough mask to the boxes that the fine network sees.

One function, :func:`propose_boxes`, makes the boxes of inference (from the rough network's output) and of training (from ground truth on
the rough grid), so that the fine network is trained on the kind of boxes it will get.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stseg3d.geometry import Box, Grid, edges, overlapping, tiles
from stseg3d.ops.bridging import bridged
from stseg3d.ops.chain import chain_order
from stseg3d.ops.components import Component, find_components
from stseg3d.ops.policy import BoxPolicy
from stseg3d.ops.resample import resample, resample_region


@dataclass(frozen=True)
class ProposedBox:
    """A box for the fine network, and where it came from."""

    box: Box  # voxels of the image, inside it
    components: frozenset[int] = frozenset()  # ids of the rough components it was made from; empty for boxes that were given
    clipped: bool = False  # whether it reached beyond the image and was cut at its edge
    tile: bool = False  # whether it is one tile of a split box


@dataclass(frozen=True)
class DroppedComponent:
    """A rough component that got no box."""

    box: Box  # its box on the image's grid
    volume_mm3: float  # its volume on the rough grid
    why: str  # the rule that excluded it, with its value


@dataclass
class Proposal:
    """Boxes that a proposer found."""

    boxes: list[ProposedBox]  # boxes on the image's grid
    ids: NDArray[np.int32] | None = None  # component ids on the rough grid (0 outside), or None where boxes were given
    # Numbers of components and boxes: `found, bridged, dropped_small, dropped_short, dropped_rank, split, merged, clipped`.
    counts: Counter[str] = field(default_factory=Counter)
    dropped: list[DroppedComponent] = field(default_factory=list)  # components without a box, and why
    # Foreground probability on the rough grid, of shape `ids.shape`, or None where boxes were given.
    probability: NDArray[Any] | None = None

    def probability_in(self, box: Box, shape: Sequence[int], size: Sequence[int]) -> NDArray[np.float32]:
        """Foreground probability of the rough stage in a box, as one channel of a fine network's input.

        Args:
            box: Box of the image, inside it.
            shape: The image's shape.
            size: Input size of the fine network.

        Returns:
            Array of shape ``(1, *size)``; zeros if the probability is not known.
        """
        if self.probability is None:
            return np.zeros((1, *size), dtype=np.float32)
        inside = resample_region(self.probability[None], Box.of(shape), box)
        return resample(inside, size).clip(0, 1)


def propose_boxes(probability: NDArray[Any], rough: Grid, image: Grid, fine_size: Sequence[int], policy: BoxPolicy) -> Proposal:
    """Boxes on the image for the components that the rough stage found.

    Args:
        probability: Foreground probability (or a mask) on the rough grid, of shape ``rough.shape``; or one per foreground
            class, ``(N, *rough.shape)``, which are summed unless ``policy.per_class``.
        rough: Rough grid, of the same extent as ``image``.
        image: The image's grid.
        fine_size: Input size of the fine network, one entry per axis.
        policy: Numbers of the box policy.

    Returns:
        Proposal; without boxes if nothing is above the threshold.
    """
    classes = probability if probability.ndim > rough.ndim else probability[None]
    if len(classes) > 1 and not policy.per_class:
        classes = classes.sum(axis=0, keepdims=True)
    counts: Counter[str] = Counter(dict.fromkeys(("found", "bridged", "split", "merged"), 0))
    ids = np.zeros(rough.shape, dtype=np.int32)
    boxes: list[ProposedBox] = []
    dropped: list[DroppedComponent] = []
    for one in classes:
        mask, bridges = bridged(one >= policy.threshold, rough.spacing_mm, policy.bridge_mm, policy.connectivity)
        counts["bridged"] += bridges
        own, components = find_components(mask, policy.connectivity, one)
        own[own > 0] += counts["found"]  # ids continue from class to class
        kept, left = _select([replace(c, id=c.id + counts["found"]) for c in components], rough, image, policy)
        counts["found"] += len(components)
        dropped += left
        for component in kept:
            boxes += _boxes_of(component, own, rough, image, fine_size, policy, counts)
        np.copyto(ids, own, where=np.isin(own, [c.id for c in kept]))
    for count, rule in (("dropped_small", "min_volume_mm3"), ("dropped_short", "min_length_mm"), ("dropped_rank", "max_components")):
        counts[count] = sum(rule in d.why for d in dropped)
    if policy.merge:
        boxes = merge_boxes(boxes, policy.longest_box(image, fine_size), counts)
    if policy.chain and boxes:
        boxes = [boxes[n] for n in chain_order(np.array([(b.box.start, b.box.stop) for b in boxes]).mean(axis=1) * image.spacing_mm)]
    counts["clipped"] = sum(b.clipped for b in boxes)
    together = probability if probability.ndim == rough.ndim else probability[0] if len(probability) == 1 else probability.sum(axis=0)
    return Proposal(boxes, ids, counts, dropped, together)


def _select(components: list[Component], rough: Grid, image: Grid, policy: BoxPolicy) -> tuple[list[Component], list[DroppedComponent]]:
    kept: list[Component] = []
    dropped: list[DroppedComponent] = []
    for component in components:  # the heaviest first
        volume_mm3 = component.voxels * rough.voxel_mm3
        length_mm = max(n * mm for n, mm in zip(component.box.shape, rough.spacing_mm, strict=True))
        if volume_mm3 < policy.min_volume_mm3:
            why = f"smaller than min_volume_mm3={policy.min_volume_mm3:g}"
        elif length_mm < policy.min_length_mm:
            why = f"shorter than min_length_mm={policy.min_length_mm:g}"
        elif policy.max_components is not None and len(kept) >= policy.max_components:
            why = f"not among the max_components={policy.max_components} heaviest"
        else:
            kept.append(component)
            continue
        dropped.append(DroppedComponent(rough.map(component.box, image), round(volume_mm3, 3), why))
    return kept, dropped


def margin_voxels(box: Box, rough: Grid, image: Grid, policy: BoxPolicy) -> tuple[int, ...]:
    """Context on each side of a tight ``box``, in image voxels: the largest margin of the policy, 0 on axes of one voxel."""
    axes = zip(box.shape, rough.shape, image.shape, image.spacing_mm, strict=True)
    return tuple(
        0 if n == 1 else ceil(max(policy.margin_mm / mm, policy.margin_fraction * extent, policy.margin_rough_voxels * n / r) - 1e-6)
        for extent, r, n, mm in axes
    )


def fit_box(box: Box, image: Grid, fine_size: Sequence[int], policy: BoxPolicy) -> Box:
    """Box grown to the aspect and minimum extent that the policy asks for; not clipped."""
    extent_mm = np.array(box.shape) * image.spacing_mm
    fine = np.array(fine_size)
    wanted_mm = extent_mm.copy()
    if policy.min_downscale:
        wanted_mm = np.maximum(wanted_mm, fine * policy.min_downscale * np.array(image.spacing_mm))
    if policy.min_spacing_mm:
        wanted_mm = np.maximum(wanted_mm, fine * policy.min_spacing_mm)
    if policy.keep_aspect:
        long_axes = np.array(image.shape) > 1
        wanted_mm = np.maximum(wanted_mm, fine * (wanted_mm / fine)[long_axes].max(initial=0))
    shape = np.round(wanted_mm / image.spacing_mm).astype(int)
    return box.grow_to(tuple(1 if n == 1 else int(w) for w, n in zip(shape, image.shape, strict=True)))


def _boxes_of(
    component: Component,
    ids: NDArray[np.int32],
    rough: Grid,
    image: Grid,
    fine_size: Sequence[int],
    policy: BoxPolicy,
    counts: Counter[str],
) -> list[ProposedBox]:
    whole = rough.map(component.box, image)
    longest = policy.longest_box(image, fine_size)
    tight, margin = [whole], margin_voxels(whole, rough, image, policy)
    # A margin beyond the image's edge does not count, and axes that are short enough are not cut.
    too_long = [n > limit for n, limit in zip(whole.grow(margin).clip(image.shape).shape, longest, strict=True)]
    if any(too_long):
        margin = margin_voxels(Box.of(min(n, m) for n, m in zip(whole.shape, longest, strict=True)), rough, image, policy)
        # Tiles must leave room for their margin, but not vanish under it.
        axes = zip(whole.shape, too_long, longest, margin, strict=True)
        room = tuple(max(limit - 2 * m, limit // 2, 1) if cut else n for n, cut, limit, m in axes)
        tight = _tighten(tiles(whole, room, policy.tile_overlap), component.id, ids, rough, image)
        counts["split"] += len(tight) > 1
    grown = [fit_box(b.grow(margin), image, fine_size, policy) for b in tight]
    return [
        ProposedBox(b.clip(image.shape), frozenset([component.id]), b.clip(image.shape) != b, len(tight) > 1)
        for b in grown
        if not b.clip(image.shape).is_empty()
    ]


def _tighten(boxes: list[Box], component: int, ids: NDArray[np.int32], rough: Grid, image: Grid) -> list[Box]:
    """Tiles shrunk to the component's voxels in them; tiles without voxels are dropped."""
    out = []
    for tile in boxes:
        cells = image.map(tile, rough).clip(rough.shape)
        inside = np.argwhere(ids[cells.slices] == component)
        if len(inside):
            found = Box(tuple(inside.min(0)), tuple(inside.max(0) + 1)).shift(cells.start)
            out.append(rough.map(found, image).intersect(tile))
    return list(dict.fromkeys(b for b in out if not b.is_empty()))


def merge_boxes(boxes: list[ProposedBox], longest: Sequence[int], counts: Counter[str]) -> list[ProposedBox]:
    """Boxes after merging those that overlap, if the union has no more voxels than both and stays below the split limit.

    Args:
        boxes: Boxes; each is merged with the first earlier one that meets the conditions.
        longest: Longest union, in voxels on each axis; a box that contains the other may be longer.
        counts: Its ``merged`` is increased.

    Returns:
        Boxes in the order in which they were last changed.
    """
    done: dict[int, ProposedBox] = {}
    places = np.zeros((2, len(longest), len(boxes)), dtype=np.int64)  # of the boxes in `done`, by key; an empty box overlaps none
    todo = boxes[::-1]
    placed = 0
    while todo:
        current = todo.pop()
        key = _partner(current.box, places[..., :placed], longest)
        if key is None:
            places[..., placed] = current.box.start, current.box.stop
            done[placed] = current
            placed += 1
            continue
        counts["merged"] += 1
        partner = done.pop(key)
        places[..., key] = 0
        together = partner.components | current.components
        todo.append(ProposedBox(partner.box.union(current.box), together, partner.clipped or current.clipped, partner.tile or current.tile))
    return list(done.values())


def _partner(box: Box, others: NDArray[np.int64], longest: Sequence[int]) -> int | None:
    """Index of the first other box that overlaps the box and is worth merging with it."""
    near = overlapping(box, others)
    start, stop = others[..., near]
    low, high = edges([box])
    own, other, union = high - low, stop - start, np.maximum(stop, high) - np.minimum(start, low)
    fits = [union == own, union == other, union <= np.array(longest)[:, None]]
    pays = np.any([one.all(axis=0) for one in fits], axis=0) & (union.prod(axis=0) <= own.prod() + other.prod(axis=0))
    return int(near[pays.argmax()]) if pays.any() else None
