"""The fine stage: boxes are read, seen by the fine network in batches, run once more where an object leaves its box, and fused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn
from tqdm import tqdm

from stseg3d.geometry import Box
from stseg3d.inference.stages import Stage, evaluating, probabilities
from stseg3d.ops.boxes import Proposal, ProposedBox
from stseg3d.ops.components import structure
from stseg3d.ops.fuse import FUSIONS, Canvas, FineCrop, clusters
from stseg3d.ops.instances import seeds_on
from stseg3d.ops.resample import count_not_finite, resample
from stseg3d.volumes import Volume


@dataclass(frozen=True)
class FinePolicy:
    """What the fine stage does beside running the network.

    Args:
        batch_size: Crops that go through the network together.
        fusion: Where crops overlap: ``"mean"``, ``"max"`` or ``"or"``.
        border_growth: Where the fine mask touches an inner face of its box, the box grows there by this fraction of its extent and
            is run once more; 0 turns that off.
        only_proposed: Keep only those parts of a crop's mask that touch the component the box was made for: a neighbour that looks
            in over the edge is another box's matter.

    Raises:
        ValueError: If ``batch_size`` or ``border_growth`` is out of range, or ``fusion`` is unknown.
    """

    batch_size: int = 4
    fusion: str = "mean"
    border_growth: float = 0.25
    only_proposed: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1 or not 0 <= self.border_growth <= 1:
            msg = f"batch_size must be at least 1 and border_growth in [0, 1], got {self.batch_size} and {self.border_growth}"
            raise ValueError(msg)
        if self.fusion not in FUSIONS:
            msg = f"fusion must be one of {FUSIONS}, got {self.fusion!r}"
            raise ValueError(msg)


@dataclass
class FineStage:
    """Runs the fine network on every box of a proposal.

    Args:
        network: Fine network, ``(B, C, *S) -> (B, K, *S)`` logits; one channel more with ``stage.rough_channel``.
        stage: Its input.
        policy: See :class:`FinePolicy`.
        precision: ``"auto"``, ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        progress: Whether a terminal shows how many boxes are done.
    """

    network: nn.Module
    stage: Stage
    policy: FinePolicy
    precision: str = "float32"
    progress: bool = False
    counts: Counter[str] = field(default_factory=Counter)

    def paint(self, volume: Volume, proposal: Proposal, canvas: Canvas) -> list[ProposedBox]:
        """Labels of all boxes on the canvas.

        Args:
            volume: Canonical view of the image.
            proposal: Boxes on its grid.
            canvas: Of the image's shape.

        Returns:
            The boxes as they were finally used: some have grown. What happened is counted in ``counts``.

        Raises:
            ValueError: If voxels in a box are NaN or infinite, or the network returns another number of classes than the canvas has.
        """
        # Boxes that may come to overlap by growing belong to one cluster from the start.
        reach = [self._grown(b.box, volume.grid.shape, set(_faces(b.box))) for b in proposal.boxes]
        used: list[ProposedBox] = []
        # None: only where there is a terminal to draw on.
        bar = tqdm(total=len(reach), desc="boxes", leave=False, disable=None if self.progress else True)
        for group in _batched(clusters(reach), self.policy.batch_size):
            members = [i for cluster in group for i in cluster]
            boxes = [proposal.boxes[i] for i in members]
            crops = self._run(volume, proposal, boxes)
            found = len(crops[0].probabilities)
            if found != canvas.classes:
                msg = f"fine network must return out_channels={canvas.classes} classes, got {found}"
                raise ValueError(msg)
            boxes, crops = self._rerun(volume, proposal, boxes, crops)
            place = {i: n for n, i in enumerate(members)}
            for cluster in group:
                canvas.paint([crops[place[i]] for i in cluster])
            used += boxes
            bar.update(len(boxes))
        bar.close()
        return used

    def _run(self, volume: Volume, proposal: Proposal, boxes: Sequence[ProposedBox]) -> list[FineCrop]:
        crops: list[FineCrop] = []
        with evaluating(self.network, self.precision) as device:
            for start in range(0, len(boxes), self.policy.batch_size):
                part = boxes[start : start + self.policy.batch_size]
                batch = torch.stack([self._input(volume, proposal, b.box) for b in part]).to(device)
                found = probabilities(self.network, batch, self.stage.mirror_axes).numpy()
                crops += [FineCrop(b.box, self._keep(f, b, proposal, volume)) for b, f in zip(part, found, strict=True)]
        self.counts["crops"] += len(boxes)
        return crops

    def _input(self, volume: Volume, proposal: Proposal, box: Box) -> Tensor:
        image = self.stage.prepare(self._read(volume, box))
        if not self.stage.rough_channel:
            return image
        return torch.cat([image, torch.from_numpy(proposal.probability_in(box, volume.grid.shape, self.stage.size))])

    def _read(self, volume: Volume, box: Box) -> NDArray[np.float32]:
        # Contiguous first: the same numbers in the same order, however the file stores its axes.
        crop = np.ascontiguousarray(volume.read(box))
        bad = count_not_finite(crop)
        if bad:
            msg = f"{volume.name}: voxels must be finite, got {bad} NaN or infinite in {box}"
            raise ValueError(msg)
        return resample(crop, self.stage.size)

    def _keep(self, found: NDArray[np.float32], box: ProposedBox, proposal: Proposal, volume: Volume) -> NDArray[np.float16]:
        """Probabilities of a crop, other objects set to background, as float16: half the memory while a cluster waits."""
        if self.policy.only_proposed and proposal.ids is not None and box.components:
            mask = found[0] < found[1:].max(axis=0)
            ids, count = ndimage.label(mask, structure(mask.ndim, 26))
            seeds = np.isin(seeds_on(box.box, proposal.ids, volume.grid.shape, mask.shape), list(box.components))
            own = np.unique(ids[seeds & mask])
            others = mask & ~np.isin(ids, own)
            self.counts["parts_left_to_other_boxes"] += count - len(own)
            found = found.copy()
            found[1:, others] = 0
            found[0, others] = 1
        return found.astype(np.float16)

    def _rerun(
        self, volume: Volume, proposal: Proposal, boxes: list[ProposedBox], crops: list[FineCrop]
    ) -> tuple[list[ProposedBox], list[FineCrop]]:
        if not self.policy.border_growth:
            return boxes, crops
        again = {}
        for n, crop in enumerate(crops):
            faces = touched_faces(crop, volume.grid.shape, [b.box for b in boxes])
            if faces:
                again[n] = replace(boxes[n], box=self._grown(crop.box, volume.grid.shape, faces))
        self.counts["grown"] += len(again)
        if again:
            for n, crop in zip(again, self._run(volume, proposal, list(again.values())), strict=True):
                boxes[n], crops[n] = again[n], crop
        return boxes, crops

    def _grown(self, box: Box, shape: Sequence[int], faces: set[tuple[int, int]]) -> Box:
        more = [ceil(self.policy.border_growth * n) if whole > 1 else 0 for n, whole in zip(box.shape, shape, strict=True)]
        low = [m if (axis, 0) in faces else 0 for axis, m in enumerate(more)]
        high = [m if (axis, 1) in faces else 0 for axis, m in enumerate(more)]
        return box.grow(low, high).clip(shape)


def _faces(box: Box) -> list[tuple[int, int]]:
    """Faces of a box: axis, and 0 for the lower or 1 for the upper one."""
    return [(axis, side) for axis in range(box.ndim) for side in (0, 1)]


def _batched(groups: list[list[int]], size: int) -> Iterator[list[list[int]]]:
    """Whole clusters, together at least ``size`` boxes, so that lone objects share a batch and few crops wait in memory."""
    waiting: list[list[int]] = []
    for group in groups:
        waiting.append(group)
        if sum(map(len, waiting)) >= size:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def touched_faces(crop: FineCrop, shape: Sequence[int], boxes: Sequence[Box]) -> set[tuple[int, int]]:
    """Inner faces of a crop's box at which its mask is cut off.

    Args:
        crop: What the network said.
        shape: The image's shape: its own faces do not count.
        boxes: All boxes near by: where the cut lies inside another box, that one sees what goes on behind it.

    Returns:
        Pairs of axis and side, 0 for the lower and 1 for the upper face.
    """
    mask = crop.probabilities[0] < crop.probabilities[1:].max(axis=0)
    near = [b for b in boxes if b != crop.box and b.overlaps(crop.box)]
    touched = set()
    for axis, side in _faces(crop.box):
        at = (crop.box.start, crop.box.stop)[side][axis]
        if at == (0, shape[axis])[side] or mask.shape[axis] == 1:
            continue
        plane = np.argwhere(np.take(mask, -1 if side else 0, axis=axis))
        if not len(plane):
            continue
        patch = _patch(crop, plane, axis, side)
        if not any(b.contains(patch) for b in near):
            touched.add((axis, side))
    return touched


def _patch(crop: FineCrop, plane: NDArray[np.int64], axis: int, side: int) -> Box:
    """Box of image voxels, two thick across the face, around the place where a mask touches it."""
    low, high = np.insert(plane.min(axis=0), axis, 0), np.insert(plane.max(axis=0) + 1, axis, 0)
    scale = np.array(crop.box.shape) / crop.probabilities.shape[1:]
    start = np.array(crop.box.start) + np.floor(low * scale)
    stop = np.array(crop.box.start) + np.ceil(high * scale)
    face = (crop.box.start, crop.box.stop)[side][axis]
    start[axis], stop[axis] = face - 1, face + 1
    return Box(tuple(start.astype(int)), tuple(stop.astype(int)))
