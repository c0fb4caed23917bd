"""`SegmentThenSegmentInferer`: the whole pipeline behind MONAI's ``Inferer`` contract.

Benčević et al. 2023, Sensors 23:633: a rough network segments a small copy of the image, each connected component becomes a box, the
full-resolution voxels in each box go to a fine network, and the crops are fused on the image's own grid.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from math import prod
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.inferers.inferer import Inferer
from monai.utils.type_conversion import convert_to_dst_type
from numpy.typing import NDArray
from torch import Tensor

from stseg3d.compute import Stage, on_runtime
from stseg3d.geometry import Box
from stseg3d.geometry.grid import AXIS_CODES
from stseg3d.inference.fine import FineStage
from stseg3d.inference.propose import NetworkProposer, Proposer, WholeProposer
from stseg3d.inference.segmentation import Segmentation, Stopwatch
from stseg3d.networks import RoughFineNet
from stseg3d.ops import BoxPolicy, Canvas, FinePolicy, Proposal, ProposedBox
from stseg3d.ops.cleaning import FOREGROUND, clean
from stseg3d.ops.fuse import blank
from stseg3d.ops.instances import order_instances, seeds_on, split_at_necks, split_instances
from stseg3d.ops.resample import resample_region, slabs
from stseg3d.plan import Execution, ImageView, Output
from stseg3d.volumes import ArrayVolume, CanonicalVolume, FileVolume, StackedVolume, Volume, as_volume, network_view

logger = logging.getLogger(__name__)

NOISE_BOXES = 1000  # more than most images have nuclei or pieces of vessels: the rough mask may be noise
MIN_DOWNSCALE = 2.0  # below this downscaling the paper's own tables are neutral or worse (Benčević et al. 2023, tables 1-3)


class SegmentThenSegmentInferer(Inferer):
    """Rough network, boxes, fine network, fusion.

    Args:
        rough: Input of the rough network; None for one stage, whose fine network sees all of a volume, in tiles if it is large.
        fine: Input of the fine network.
        policy: How components become boxes.
        fine_policy: Batches, fusion, growth at borders.
        image: How the networks see a volume; the stages' own transforms see the small copy or the crop alone.
        output: Kind of output.
        execution: How the networks are run.
        out_channels: Classes including background.
        classes: Their names; needed only for rules of ``output`` that name them.
        proposer: Other source of boxes than the rough network.

    Raises:
        ValueError: If ``rough`` and ``fine`` differ in their number of axes, ``fine`` has a ``spacing_mm``, instances are to be numbered
            along a world direction but ``image`` has no ``axcodes``, or ``output`` names classes that ``classes`` does not.

    Example:
        Five lines of Python::

            network = RoughFineNet(rough, fine)
            inferer = SegmentThenSegmentInferer(rough=Stage((64, 64, 64)), fine=Stage((96, 96, 96)))
            labels = inferer(image, network)  # MetaTensor (B, C, *S) -> uint8 MetaTensor (B, 1, *S)
    """

    def __init__(
        self,
        rough: Stage | None,
        fine: Stage,
        policy: BoxPolicy | None = None,
        fine_policy: FinePolicy | None = None,
        *,
        image: ImageView | None = None,
        output: Output | None = None,
        execution: Execution | None = None,
        out_channels: int = 2,
        classes: Sequence[str] = (),
        proposer: Proposer | None = None,
    ) -> None:
        super().__init__()
        self.rough, self.fine = rough, fine
        self.policy, self.fine_policy = policy or BoxPolicy(), fine_policy or FinePolicy()
        self.image, self.output, self.execution = image or ImageView(), output or Output(), execution or Execution()
        self.out_channels, self.classes, self.proposer = out_channels, tuple(classes), proposer
        if (rough and len(rough.size) != len(fine.size)) or fine.spacing_mm is not None:
            size = rough and rough.size
            msg = f"rough and fine must have as many axes and fine no spacing_mm, got {size} and {fine.size}, {fine.spacing_mm} mm"
            raise ValueError(msg)
        if self.output.number_from is not None and self.image.axcodes is None:
            msg = f"number_from needs axcodes, got {self.output.number_from!r} with axcodes=None"
            raise ValueError(msg)
        if unknown := [name for name in self.output.cleaned if name not in (FOREGROUND, *self.classes[1:])]:
            msg = f"largest_only and min_volume_mm3 must name {FOREGROUND} or classes of {self.classes[1:]}, got {unknown}"
            raise ValueError(msg)

    def __call__(self, inputs: Tensor, network: RoughFineNet, *args: Any, **kwargs: Any) -> Tensor:
        """Segment a batch of images.

        Args:
            inputs: ``(B, C, *S)`` with two or three space axes; a MetaTensor's affine is used, a plain tensor counts as 1 mm RAS.
            network: Composite with ``.rough`` and ``.fine``.
            args: Not used; part of MONAI's contract.
            kwargs: Not used.

        Returns:
            Labels or instances ``(B, 1, *S)``, unsigned, or probabilities ``(B, K - 1, *S)``; a MetaTensor if ``inputs`` is one.
        """
        del args, kwargs
        found = [self.segment(as_volume(image), network) for image in inputs]
        arrays = [s.labels[None] if s.probabilities is None else s.probabilities.astype(np.float32) for s in found]
        tensors = [torch.from_numpy(a).reshape(-1, *inputs.shape[2:]) for a in _alike(arrays)]
        out = torch.stack(tensors) if len(tensors) > 1 else tensors[0][None]  # a stack is a copy
        if not isinstance(inputs, MetaTensor):
            return out.to(inputs.device)
        # With a plain tensor MONAI's Invertd would only warn and leave the result as it is.
        return convert_to_dst_type(out, inputs, dtype=out.dtype)[0]  # type: ignore[no-any-return]

    def segment(self, volume: Volume, network: RoughFineNet, proposer: Proposer | None = None) -> Segmentation:
        """Segment one volume, reading it as needed.

        Args:
            volume: Volume of ``image.channels`` channels.
            network: Composite with ``.rough`` and ``.fine``.
            proposer: Source of boxes, on the canonical view (see :meth:`view`); by default the inferer's own, or the rough network.

        Returns:
            Labels in the volume's own axis order, with boxes, counts and warnings.

        Raises:
            ValueError: If the channels do not fit, or voxels are NaN or infinite.
        """
        view = self.checked_view(volume)
        clock = Stopwatch()
        fine = on_runtime(self.execution.runtime, network.fine, "fine", self.execution.precision)
        proposer = proposer or self.proposer
        with clock("rough"):
            proposal = (proposer or self._own_proposer(network)).propose(view)
        warnings = self._warnings(view, proposal, given=proposer is not None)
        if not proposal.boxes and self.output.when_empty == "tile":
            proposal = replace(proposal, boxes=self._whole.propose(view).boxes)
        # Labels have the voxels' memory layout, the order in which files are written.
        axes = [view.order.index(axis) for axis in _axes_in_memory(volume)]
        keep = self.output.kind == "probabilities"
        canvas = Canvas(view.grid.shape, self.out_channels, self.fine_policy.fusion, keep_probabilities=keep, axes=axes)
        stage = FineStage(fine, self.fine, self.fine_policy, self.execution.precision, self.execution.progress)
        with clock("fine"):
            boxes = stage.paint(view, proposal, canvas)
        warnings += stage.warnings
        labels = canvas.labels
        removed = self._clean(view, labels, boxes)
        if self.output.kind == "instances":
            with clock("instances"):
                labels = self._instances(view, labels, proposal, boxes, axes)
        if boxes and not any(labels[b.box.slices].any() for b in boxes):  # there are none elsewhere
            gone = removed.get("removed_components")
            what = f"the plan's output removed all {gone} components as too small" if gone else "the fine stage found nothing in the boxes"
            warnings.append(what)
        if self.output.cleaned and keep:
            warnings.append("largest_only and min_volume_mm3 are for labels: the probabilities are left as they are")
        for sentence in warnings:
            logger.warning("%s: %s", volume.name, sentence)
        return Segmentation(
            labels=view.restore(labels),
            probabilities=None if canvas.probabilities is None else np.stack([view.restore(p) for p in canvas.probabilities]),
            boxes=[ProposedBox(view.source_box(b.box), b.components, b.clipped, b.tile) for b in boxes],
            dropped=[replace(d, box=view.source_box(d.box)) for d in proposal.dropped],
            counts={**proposal.counts, **stage.counts, **removed},
            seconds=clock.seconds,
            peak_bytes=clock.peak_bytes,
            warnings=warnings,
            rough=_rough_map(proposal, view),
        )

    def rough_only(self, volume: Volume, network: RoughFineNet) -> NDArray[np.uint8]:
        """Foreground mask of the rough network alone, upsampled to the volume's grid: the baseline that two stages must beat.

        The threshold is 0.5; the policy's own is often lower, to miss no object.

        Returns:
            Mask of the volume's shape, in its own axis order, painted in slabs: no full-resolution float array exists.

        Raises:
            ValueError: If there is no rough stage, the channels do not fit, or voxels are NaN or infinite.
        """
        view = self.checked_view(volume)
        classes = self.rough_stage(network).classes(view)
        foreground = classes.sum(axis=0)
        mask = blank(view.grid.shape, np.dtype(np.uint8))
        for slab in slabs(mask.shape):
            np.copyto(mask[slab.slices], 1, where=resample_region(foreground[None], view.grid.box, slab)[0] >= 0.5)
        return view.restore(mask)

    def view(self, volume: Volume) -> CanonicalVolume:
        """The volume as stages and policies see it."""
        return network_view(volume, self.image.axcodes, colour=self.image.colour, standardize=self.image.standardize)

    @property
    def _whole(self) -> WholeProposer:
        return WholeProposer(self.policy, self.fine.size)

    def _own_proposer(self, network: RoughFineNet) -> Proposer:
        return self.rough_stage(network) if self.rough else self._whole

    def rough_stage(self, network: RoughFineNet) -> NetworkProposer:
        """The rough network with its input and policy, in the runtime and precision of inference.

        Raises:
            ValueError: If there is none.
        """
        if self.rough is None:
            msg = "the rough network alone must have a rough stage in the plan, got a bundle of one stage"
            raise ValueError(msg)
        runtime = self.execution.runtime if self.rough.spacing_mm is None else "torch"
        rough = on_runtime(runtime, network.rough, "rough", self.execution.precision)
        return NetworkProposer(rough, self.rough, self.policy, self.fine.size, self.execution.precision)

    def checked_view(self, volume: Volume) -> CanonicalVolume:
        """The volume as stages and policies see it.

        Raises:
            ValueError: If the channels or the axes do not fit the networks.
        """
        if volume.channels != self.image.channels and not self.image.colour:
            msg = f"{volume.name}: must have {self.image.channels} channel(s) for these networks, got {volume.channels}"
            raise ValueError(msg)
        if volume.grid.ndim != len(self.fine.size):
            msg = f"{volume.name}: must have the {len(self.fine.size)} space axes of the networks' inputs, got {volume.grid.ndim}"
            raise ValueError(msg)
        return self.view(volume)

    def _clean(self, view: CanonicalVolume, labels: NDArray[Any], boxes: Sequence[ProposedBox]) -> dict[str, int]:
        """Clear components that the output does not want, in place; how many, nothing without such rules."""
        if not self.output.cleaned or self.output.kind == "probabilities":
            return {}
        inside = labels[_around(boxes).slices] if boxes else labels[:0]
        voxel_mm3 = 1.0 if self.image.colour else view.grid.voxel_mm3  # a picture's mm are often those of print
        largest, least = self.output.largest_only, self.output.min_volume_mm3
        return clean(inside, self.classes, largest_only=largest, least_mm3=least, voxel_mm3=voxel_mm3)

    def _instances(
        self, view: CanonicalVolume, labels: NDArray[Any], proposal: Proposal, boxes: Sequence[ProposedBox], axes: Sequence[int]
    ) -> NDArray[Any]:
        if not boxes:
            return labels
        where = _around(boxes)
        ids, count = self._split(view, labels[where.slices] > 0, proposal, where)
        axcodes, first = self.image.axcodes, self.output.number_from
        if first and axcodes:
            both_ends = next(pair for pair in AXIS_CODES if first in pair)
            axis = next(i for i, code in enumerate(axcodes) if code in both_ends)
            ids = order_instances(ids, count, axis, descending=axcodes[axis] == first)
        out = blank(labels.shape, np.min_scalar_type(count), axes)
        out[where.slices] = ids
        return out

    def _split(self, view: CanonicalVolume, mask: NDArray[np.bool_], proposal: Proposal, where: Box) -> tuple[NDArray[np.int32], int]:
        spacing_mm = view.grid.spacing_mm
        if self.output.neck_depth_mm is not None:
            # A picture's mm are often those of print: 300 dpi in a JPEG must not change what is one object.
            return split_at_necks(mask, self.output.neck_depth_mm, (1.0,) * mask.ndim if self.image.colour else spacing_mm)
        seeds = None if proposal.ids is None else seeds_on(where, proposal.ids, view.grid.shape)
        least = max(int(self.policy.min_volume_mm3 / view.grid.voxel_mm3), 1)
        return split_instances(mask, seeds, connectivity=self.policy.connectivity, min_voxels=least, spacing_mm=spacing_mm)

    def _warnings(self, view: CanonicalVolume, proposal: Proposal, *, given: bool) -> list[str]:
        said = []
        given = given or self.rough is None
        if not proposal.boxes:
            nothing = "nothing to look at in the mask or boxes given" if given else "nothing found by the rough stage"
            said.append(nothing + (": the whole volume is tiled" if self.output.when_empty == "tile" else ""))
        if self.rough and not given:
            factor = max((n / r for n, r in zip(view.grid.shape, self.rough.shape_of(view.grid), strict=True) if n > 1), default=1.0)
            if factor < MIN_DOWNSCALE:
                said.append(f"downscaling below {MIN_DOWNSCALE:g}x ({factor:.2f}x): two stages may not help")
        if len(proposal.boxes) > NOISE_BOXES:
            said.append(f"{len(proposal.boxes)} boxes to look into, as noise in the rough mask gives: this may take long")
        if self.rough and any(b.box.voxels > prod(view.grid.shape) / 2 for b in proposal.boxes):
            said.append("an object fills more than half of the volume: two stages may not help")
        return said


def _around(boxes: Sequence[ProposedBox]) -> Box:
    """The smallest box around all, of which there is one at least; labels are nowhere else."""
    return reduce(Box.union, (b.box for b in boxes))


def _rough_map(proposal: Proposal, view: CanonicalVolume) -> ArrayVolume | None:
    if proposal.probability is None:
        return None
    probability = proposal.probability.astype(np.float32)
    return ArrayVolume(probability[None], view.grid.resized(probability.shape), f"rough map of {view.name}")


def _alike(arrays: list[NDArray[Any]]) -> list[NDArray[Any]]:
    """The arrays of a batch in one type, as instances of one image may need a wider one than those of another."""
    dtype = np.result_type(*arrays)
    # torch has no arithmetic on uint16 and uint32.
    dtype = np.dtype({"uint16": np.int32, "uint32": np.int64}.get(dtype.name, dtype))
    # Torch cannot wrap arrays with negative strides; all others keep their memory layout.
    return [a.astype(dtype, order="K", copy=min(a.strides) < 0) for a in arrays]


def _axes_in_memory(volume: Volume) -> list[int]:
    """Space axes of a volume, from the fastest to the slowest in memory or in the file."""
    axes = range(volume.grid.ndim)
    if isinstance(volume, ArrayVolume):
        return sorted(axes, key=lambda axis: (abs(volume.array.strides[axis + 1]), -axis))
    return [*axes] if isinstance(volume, FileVolume | StackedVolume) else [*reversed(axes)]
