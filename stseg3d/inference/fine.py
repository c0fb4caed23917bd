"""The fine stage: boxes are read, run through the fine network in batches, rerun where an object leaves its box, and fused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from math import ceil, prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn
from tqdm import tqdm

from stseg3d.compute import Stage, append_rough, device_of, evaluating, precision_on, probabilities
from stseg3d.compute.batches import Batches, crops_at_once, fitting
from stseg3d.compute.gather import Gather
from stseg3d.geometry import Box, edges
from stseg3d.inference.borders import faces_of, touched_faces
from stseg3d.machine.memory import available_bytes
from stseg3d.ops.boxes import Proposal, ProposedBox
from stseg3d.ops.components import structure
from stseg3d.ops.fuse import Canvas, FineCrop, clusters
from stseg3d.ops.instances import seeds_on
from stseg3d.ops.policy import FinePolicy
from stseg3d.ops.resample import as_float16
from stseg3d.volumes import Volume
from stseg3d.volumes.file import LARGE_BYTES


@dataclass
class FineStage:
    """Runs the fine network on every box of a proposal.

    Args:
        network: Fine network, ``(B, C, *S) -> (B, K, *S)`` logits; one channel more with ``stage.rough_channel``.
        stage: Its input.
        policy: How crops are batched, rerun and fused.
        precision: ``"auto"``, ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        progress: Whether a terminal shows how many boxes are done.
        on_device: Whether crops are resampled on the network's device, see :class:`stseg3d.compute.gather.Gather`.
    """

    network: nn.Module
    stage: Stage
    policy: FinePolicy
    precision: str = "float32"
    progress: bool = False
    on_device: bool | None = None
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.device = device_of(self.network)
        self.gather = Gather(self.stage, self.device, self.on_device)
        self.batches = Batches(crops_at_once(self.policy.batch_size, self.stage.size, self.device))

    @property
    def warnings(self) -> list[str]:
        """Warnings for the user, a sentence each."""
        if not self.batches.halved:
            return []
        return [f"out of memory: crops went through the fine network {self.batches.size} at a time, not {self.batches.wanted}"]

    def paint(self, volume: Volume, proposal: Proposal, canvas: Canvas) -> list[ProposedBox]:
        """Labels of all boxes, on the grid of the canonical view, on a canvas of its shape.

        Returns:
            The boxes that were finally used, some of which have grown. ``counts`` has the numbers.

        Raises:
            MemoryError: If not even one crop fits into the device's memory, or the crops of a cluster do not fit into the machine's.
            ValueError: If voxels in a box are NaN or infinite, or the network returns another number of classes than the canvas has.
        """
        with evaluating(self.network, self.precision):  # once for all crops: it lays out weights, and keeps those of a lower precision
            return self._paint(volume, proposal, canvas)

    def _paint(self, volume: Volume, proposal: Proposal, canvas: Canvas) -> list[ProposedBox]:
        # Boxes that may come to overlap by growing belong to one cluster from the start.
        reach = [self._grown(b.box, volume.grid.shape, set(faces_of(b.box))) for b in proposal.boxes]
        used: list[ProposedBox] = []
        # None: only where there is a terminal to draw on.
        bar = tqdm(total=len(reach), desc="boxes", leave=False, disable=None if self.progress else True)
        groups = list(_batched(clusters(reach), self.policy.batch_size))
        members = [[i for cluster in group for i in cluster] for group in groups]
        self._check_memory(volume, max(map(len, members), default=0), canvas.classes)
        run = self._run(volume, proposal, [[proposal.boxes[i] for i in those] for those in members])
        for group, those in zip(groups, members, strict=True):
            crops = next(run)
            found = len(crops[0].probabilities)
            if found != canvas.classes:
                msg = f"fine network must return out_channels={canvas.classes} classes, got {found}"
                raise ValueError(msg)
            boxes, crops = self._rerun(volume, proposal, [proposal.boxes[i] for i in those], crops)
            place = {i: n for n, i in enumerate(those)}
            for cluster in group:
                canvas.paint([crops[place[i]] for i in cluster])
            used += boxes
            bar.update(len(boxes))
        bar.close()
        return used

    def _check_memory(self, volume: Volume, crops: int, classes: int) -> None:
        """Refuse what would have the system kill the process, and with it a batch: all crops of a cluster wait for its last one."""
        n_bytes = crops * classes * prod(self.stage.size) * np.dtype(np.float16).itemsize
        free = available_bytes() if n_bytes > LARGE_BYTES else None
        if free is not None and n_bytes > free:
            msg = (
                f"{volume.name}: {crops} boxes that overlap must fit into the free memory of {free / 2**30:.1f} GiB together, "
                f"got {n_bytes / 2**30:.1f} GiB; so many are noise most often, which a higher threshold of the policy leaves out"
            )
            raise MemoryError(msg)

    def _run(self, volume: Volume, proposal: Proposal, groups: Sequence[Sequence[ProposedBox]]) -> Iterator[list[FineCrop]]:
        """Crops of one group of boxes after the other; a group is read batch by batch."""
        size = self.policy.batch_size
        batches = [[boxes[n : n + size] for n in range(0, len(boxes), size)] for boxes in groups]
        read = self.gather.in_order(lambda batch: [self.gather.read(volume, b.box) for b in batch], chain.from_iterable(batches))
        for parts in batches:
            crops: list[FineCrop] = []
            for part in parts:
                found = self._see(proposal, volume, list(zip(part, next(read), strict=True)))
                crops += [FineCrop(b.box, self._keep(f, b, proposal, volume)) for b, f in zip(part, found, strict=True)]
            self.counts["crops"] += len(crops)
            yield crops

    def _see(self, proposal: Proposal, volume: Volume, read: Sequence[tuple[ProposedBox, Tensor]]) -> list[NDArray[Any]]:
        """Probabilities in boxes that were read."""

        def work(part: Sequence[tuple[ProposedBox, Tensor]]) -> list[NDArray[Any]]:
            batch = torch.stack([self._input(voxels, b.box, proposal, volume.grid.shape) for b, voxels in part])
            return list(self.gather.fetch(probabilities(self.network, batch, self.stage.mirror_axes)))

        halved = self.batches.halved
        with fitting("fine", self.stage.size, precision_on(self.device, self.precision), self.device):
            found = self.batches.run(work, read)
        if self.batches.halved > halved:
            self.counts["batch_halved"] = self.batches.halved
        return found

    def _input(self, voxels: Tensor, box: Box, proposal: Proposal, shape: Sequence[int]) -> Tensor:
        image = self.gather.prepare(voxels)
        if not self.stage.rough_channel:
            return image
        return append_rough(image, torch.from_numpy(proposal.probability_in(box, shape, self.stage.size)))

    def _keep(self, found: NDArray[Any], box: ProposedBox, proposal: Proposal, volume: Volume) -> NDArray[np.float16]:
        """Probabilities of a crop, other objects set to background, as float16: half the memory while a cluster waits."""
        if self.policy.only_proposed and proposal.ids is not None and box.components:
            mask = found[0] < found[1:].max(axis=0)
            ids, count = ndimage.label(mask, structure(mask.ndim, 26))
            seeds = np.isin(seeds_on(box.box, proposal.ids, volume.grid.shape, mask.shape), list(box.components))
            own = np.zeros(count + 1, dtype=bool)
            own[ids[seeds & mask]] = True
            others = count - np.count_nonzero(own)
            self.counts["parts_left_to_other_boxes"] += others
            if others:
                left = mask & ~own[ids]
                found = found.copy()
                found[1:, left] = 0
                found[0, left] = 1
        return as_float16(found)

    def _rerun(
        self, volume: Volume, proposal: Proposal, boxes: list[ProposedBox], crops: list[FineCrop]
    ) -> tuple[list[ProposedBox], list[FineCrop]]:
        if not self.policy.border_growth:
            return boxes, crops
        again, places = {}, edges([b.box for b in boxes])
        for n, crop in enumerate(crops):
            faces = touched_faces(crop, volume.grid.shape, places)
            if faces:
                again[n] = replace(boxes[n], box=self._grown(crop.box, volume.grid.shape, faces))
        self.counts["grown"] += len(again)
        if again:
            for n, crop in zip(again, next(self._run(volume, proposal, [list(again.values())])), strict=True):
                boxes[n], crops[n] = again[n], crop
        return boxes, crops

    def _grown(self, box: Box, shape: Sequence[int], faces: set[tuple[int, int]]) -> Box:
        more = [ceil(self.policy.border_growth * n) if whole > 1 else 0 for n, whole in zip(box.shape, shape, strict=True)]
        low = [m if (axis, 0) in faces else 0 for axis, m in enumerate(more)]
        high = [m if (axis, 1) in faces else 0 for axis, m in enumerate(more)]
        return box.grow(low, high).clip(shape)


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
