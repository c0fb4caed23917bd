"""Proposers: sources of boxes with one interface, ``propose(volume) -> Proposal``.

Boxes come from a rough network, a given mask or a file, and the fine stage does not know from which.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn

from stseg3d.compute import Stage, device_of, evaluating, precision_on, probabilities
from stseg3d.compute.batches import fitting
from stseg3d.compute.inputs import prepare_input, read_voxels
from stseg3d.geometry import Box, tiles
from stseg3d.ops.boxes import Proposal, ProposedBox, propose_boxes
from stseg3d.ops.policy import BoxPolicy
from stseg3d.volumes import Volume, read_classes

logger = logging.getLogger(__name__)

# Relative; resampling in float32 makes a constant uneven by about a millionth.
CONSTANT_TOLERANCE = 1e-5


class Proposer(Protocol):
    """Source of boxes in a volume."""

    def propose(self, volume: Volume) -> Proposal:
        """Boxes on ``volume.grid``; a proposal without boxes if nothing is found."""
        ...


@dataclass(frozen=True)
class NetworkProposer:
    """Boxes from a rough network on a small resampled copy of the volume.

    Args:
        network: Rough network, ``(B, C, *S) -> (B, K, *S)`` logits, class 0 the background.
        stage: Its input.
        policy: How components become boxes.
        fine_size: Input size of the fine network.
        precision: ``"auto"``, ``"float32"``, ``"bfloat16"`` or ``"float16"``.
    """

    network: nn.Module
    stage: Stage
    policy: BoxPolicy
    fine_size: Sequence[int]
    precision: str = "float32"

    def propose(self, volume: Volume) -> Proposal:
        """Boxes of the components that the rough network finds.

        Raises:
            MemoryError: If the rough input does not fit into the device's memory.
            ValueError: If voxels are NaN or infinite.
        """
        classes = self.classes(volume)
        return propose_boxes(classes, volume.grid.resized(classes.shape[1:]), volume.grid, self.fine_size, self.policy)

    def classes(self, volume: Volume) -> NDArray[np.float32]:
        """Probability of each foreground class on the rough grid, ``(K - 1, *S)``; zero if the volume is constant.

        Raises:
            MemoryError: If the rough input does not fit into the device's memory.
            ValueError: If voxels are NaN or infinite.
        """
        shape = self.stage.shape_of(volume.grid)
        voxels = read_voxels(volume, shape)
        image = voxels.numpy()
        if all(np.ptp(channel) <= CONSTANT_TOLERANCE * np.abs(channel).max() for channel in image):
            # Instance normalisation of a constant leaves the biases alone, in which a network may find objects.
            logger.warning("%s: every voxel is %g, nothing can be found", volume.name, image.flat[0])
            return np.zeros((1, *shape), dtype=np.float32)
        batch = prepare_input(voxels, self.stage, shape)[None]
        device = device_of(self.network)
        with fitting("rough", shape, precision_on(device, self.precision), device), evaluating(self.network, self.precision):
            found: NDArray[np.float32] = probabilities(self.network, batch.to(device), self.stage.mirror_axes)[0, 1:].cpu().numpy()
        return found


@dataclass(frozen=True)
class MaskProposer:
    """Boxes from an existing mask, made by another tool or drawn by hand.

    Args:
        mask: Label map over the same extent as the image, at any resolution. Every value above 0 is foreground, and with
            ``policy.per_class`` a class of its own.
        policy: How components become boxes.
        fine_size: Input size of the fine network.
    """

    mask: Volume
    policy: BoxPolicy
    fine_size: Sequence[int]

    def propose(self, volume: Volume) -> Proposal:
        """Boxes of the mask's components.

        Raises:
            ValueError: If the mask does not cover the extent of the volume, or :func:`stseg3d.volumes.read_classes` refuses it.
        """
        same = self.mask.grid.resized(volume.grid.shape)
        if not same.is_close(volume.grid, tolerance_voxels=0.5):
            msg = f"{self.mask.name}: the mask must cover the extent of {volume.name}, got another grid"
            raise ValueError(msg)
        values = read_classes(self.mask)
        classes = np.stack([values == k for k in np.unique(values) if k > 0]) if self.policy.per_class and values.any() else values > 0
        return propose_boxes(classes, self.mask.grid, volume.grid, self.fine_size, self.policy)


@dataclass(frozen=True)
class BoxProposer:
    """Given boxes, each once, clipped to the volume, and split where the policy limits their length.

    Args:
        boxes: Boxes in voxels of the volume.
        policy: Only its limits are used; given boxes get no margin.
        fine_size: Input size of the fine network.
    """

    boxes: Sequence[Box]
    policy: BoxPolicy
    fine_size: Sequence[int]

    def propose(self, volume: Volume) -> Proposal:
        """The boxes inside the volume; ``merged`` counts those that were given before."""
        proposal = Proposal([])
        proposal.counts["found"] = len(self.boxes)
        proposal.counts["merged"] = len(self.boxes) - len(set(self.boxes))
        longest = self.policy.longest_box(volume.grid, self.fine_size)
        for box in dict.fromkeys(self.boxes):
            inside = box.clip(volume.grid.shape)
            parts = tiles(inside, longest, self.policy.tile_overlap)
            proposal.counts["split"] += len(parts) > 1
            proposal.counts["clipped"] += inside != box
            proposal.counts["outside"] += inside.is_empty()
            proposal.boxes += [ProposedBox(p, clipped=inside != box, tile=len(parts) > 1) for p in parts if not p.is_empty()]
        return proposal


@dataclass(frozen=True)
class WholeProposer:
    """The whole volume, in tiles where the policy limits their length: for one stage, and where a rough stage finds nothing.

    Args:
        policy: Only its limits are used.
        fine_size: Input size of the fine network.
    """

    policy: BoxPolicy
    fine_size: Sequence[int]

    def propose(self, volume: Volume) -> Proposal:
        """Tiles that cover the volume."""
        return BoxProposer([volume.grid.box], self.policy, self.fine_size).propose(volume)
