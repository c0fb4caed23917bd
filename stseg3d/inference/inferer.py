"""`SegmentThenSegmentInferer`: the whole pipeline behind MONAI's ``Inferer`` contract.

Benčević et al. 2023, Sensors 23:633: a rough network segments a small copy of the image, each connected component becomes a box, the
full-resolution voxels in each box go to a fine network, and the crops are fused on the image's own grid.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.inferers.inferer import Inferer
from monai.utils.type_conversion import convert_to_dst_type
from numpy.typing import NDArray
from torch import Tensor

from stseg3d.compute import Stage
from stseg3d.compute.runtimes import RUNTIMES, TORCH, on_runtime
from stseg3d.geometry import Box
from stseg3d.inference.fine import FineStage
from stseg3d.inference.propose import NetworkProposer, Proposer, whole_volume
from stseg3d.machine.memory import peak_memory_bytes
from stseg3d.networks import RoughFineNet
from stseg3d.ops.boxes import DroppedComponent, Proposal, ProposedBox
from stseg3d.ops.fuse import Canvas, blank
from stseg3d.ops.instances import order_instances, seeds_on, split_at_necks, split_instances
from stseg3d.ops.policy import BoxPolicy, FinePolicy
from stseg3d.ops.resample import resample_region, slabs
from stseg3d.volumes import ArrayVolume, CanonicalVolume, FileVolume, Volume, as_volume, network_view

logger = logging.getLogger(__name__)

OUTPUTS = ("labels", "instances", "probabilities")
EMPTY = ("empty", "tile")
MANY_BOXES = 1000  # more than there are vessels' pieces or nuclei in most images: the rough mask may be noise
WORTH_IT = 2.0  # below this downscaling the paper's own tables are neutral or worse (Benčević et al. 2023, tables 1-3)


@dataclass
class Segmentation:
    """What came of one volume, in the axis order of its file.

    Attributes:
        labels: Labels, or instance ids, of the volume's shape; the smallest unsigned type.
        probabilities: Foreground probabilities ``(K - 1, *S)``, float16, where asked for.
        boxes: Boxes as they were used, on the volume's own grid.
        dropped: Components without a box, and why; boxes on the volume's own grid.
        counts: Components and boxes: found, dropped, split, merged, clipped, grown, crops run.
        seconds: Wall time of each stage.
        peak_bytes: Largest memory of the process until the end of each stage.
        warnings: Sentences a user should read.
        rough: Foreground probability on the rough grid, along the axes that networks see; None where boxes were given.
    """

    labels: NDArray[Any]
    probabilities: NDArray[np.float16] | None = None
    boxes: list[ProposedBox] = field(default_factory=list)
    dropped: list[DroppedComponent] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    rough: ArrayVolume | None = None


class SegmentThenSegmentInferer(Inferer):
    """Rough network, boxes, fine network, fusion.

    Args:
        rough: Input of the rough network: :class:`Stage`.
        fine: Input of the fine network: :class:`Stage`.
        policy: How components become boxes.
        fine_policy: Batches, fusion, growth at borders.
        output: ``"labels"``, ``"instances"`` (one id an object) or ``"probabilities"`` (of the foreground classes).
        in_channels: Channels that the networks take.
        out_channels: Classes including background.
        colour: Whether images are pictures, shown to the networks as red, green and blue whatever they are stored as.
        standardize: Whether each channel is brought to mean 0 and standard deviation 1 over the whole image first; the stages' own
            transforms see the small copy or the crop alone.
        when_empty: Where nothing is found: ``"empty"`` gives an empty mask, ``"tile"`` runs the fine network on the whole volume.
        axcodes: Axis order in which the networks see a volume; None keeps the file's own. Stages and policies count axes so.
        number_from: World direction whose end gets instance 1, such as ``"S"`` for the top; by default the file order of ``axcodes``.
        neck_depth_mm: Instances: touching objects are told apart by their necks, see :func:`stseg3d.ops.instances.split_at_necks`;
            by default by the rough components, which for objects smaller than a rough voxel are none. Of pictures (``colour``) in pixels.
        precision: ``"float32"``, ``"bfloat16"``, ``"float16"`` or ``"auto"`` (bfloat16 where the device has it natively, else float32),
            whatever autocast surrounds the call.
        proposer: Other source of boxes than the rough network.
        progress: Whether a terminal shows how many boxes are done.
        runtime: What computes the networks: ``"torch"``, or ``"openvino"`` (``stseg3d[openvino]``), quicker on a CPU once it has started.
            A rough network with ``spacing_mm`` stays with PyTorch: to convert it for each shape takes longer than is saved.

    Raises:
        ValueError: If an option is unknown.

    Example:
        Five lines of Python::

            network = RoughFineNet(rough, fine)
            inferer = SegmentThenSegmentInferer(rough=Stage((64, 64, 64)), fine=Stage((96, 96, 96)))
            labels = inferer(image, network)  # MetaTensor (B, C, *S) -> uint8 MetaTensor (B, 1, *S)
    """

    def __init__(
        self,
        rough: Stage,
        fine: Stage,
        policy: BoxPolicy | None = None,
        fine_policy: FinePolicy | None = None,
        *,
        output: str = "labels",
        in_channels: int = 1,
        out_channels: int = 2,
        colour: bool = False,
        standardize: bool = False,
        when_empty: str = "empty",
        axcodes: str | None = "RAS",
        number_from: str | None = None,
        neck_depth_mm: float | None = None,
        precision: str = "float32",
        proposer: Proposer | None = None,
        progress: bool = False,
        runtime: str = TORCH,
    ) -> None:
        super().__init__()
        if output not in OUTPUTS or when_empty not in EMPTY:
            msg = f"output must be one of {OUTPUTS} and when_empty one of {EMPTY}, got {output!r} and {when_empty!r}"
            raise ValueError(msg)
        if runtime not in RUNTIMES:
            msg = f"runtime must be one of {RUNTIMES}, got {runtime!r}"
            raise ValueError(msg)
        if len(rough.size) != len(fine.size) or fine.spacing_mm is not None:
            msg = f"rough and fine must have as many axes and fine no spacing_mm, got {rough.size} and {fine.size}, {fine.spacing_mm} mm"
            raise ValueError(msg)
        if number_from is not None and (axcodes is None or number_from not in "RLAPSI"):
            msg = f"number_from must be one letter of R L A P S I and needs axcodes, got {number_from!r} with axcodes={axcodes}"
            raise ValueError(msg)
        self.rough, self.fine = rough, fine
        self.policy = policy or BoxPolicy()
        self.fine_policy = fine_policy or FinePolicy()
        self.output, self.when_empty = output, when_empty
        self.in_channels, self.out_channels = in_channels, out_channels
        self.colour, self.standardize = colour, standardize
        self.axcodes, self.number_from = axcodes, number_from
        self.neck_depth_mm = neck_depth_mm
        self.precision = precision
        self.proposer = proposer
        self.progress = progress
        self.runtime = runtime

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
        # A plain tensor would make MONAI's Invertd leave the result as it is, with no more than a warning.
        return convert_to_dst_type(out, inputs, dtype=out.dtype)[0]  # type: ignore[no-any-return]

    def segment(self, volume: Volume, network: RoughFineNet, proposer: Proposer | None = None) -> Segmentation:
        """Segment one volume, reading it as needed.

        Args:
            volume: Volume of ``in_channels`` channels.
            network: Composite with ``.rough`` and ``.fine``.
            proposer: Where to look, on the canonical view (see :meth:`view`); by default the inferer's own, or the rough network.

        Returns:
            Labels in the volume's own axis order, with what is to be known about them.

        Raises:
            ValueError: If the channels do not fit, or voxels are NaN or infinite.
        """
        view = self._checked_view(volume)
        clock = Stopwatch()
        fine = on_runtime(self.runtime, network.fine, "fine", self.precision)
        proposer = proposer or self.proposer
        with clock("rough"):
            proposal = (proposer or self._rough_stage(network)).propose(view)
        warnings = self._warnings(view, proposal, given=proposer is not None)
        if not proposal.boxes and self.when_empty == "tile":
            proposal = replace(proposal, boxes=whole_volume(view, self.policy, self.fine.size).boxes)
        # Labels lie in memory as the voxels do: it is along these that files are written.
        axes = [view.order.index(axis) for axis in _axes_in_memory(volume)]
        keep = self.output == "probabilities"
        canvas = Canvas(view.grid.shape, self.out_channels, self.fine_policy.fusion, keep_probabilities=keep, axes=axes)
        stage = FineStage(fine, self.fine, self.fine_policy, self.precision, self.progress)
        with clock("fine"):
            boxes = stage.paint(view, proposal, canvas)
        warnings += stage.warnings
        labels = canvas.labels
        if self.output == "instances":
            with clock("instances"):
                labels = self._instances(view, labels, proposal, boxes, axes)
        if boxes and not any(labels[b.box.slices].any() for b in boxes):  # there are none elsewhere
            warnings.append("the fine stage found nothing in the boxes")
        for sentence in warnings:
            logger.warning("%s: %s", volume.name, sentence)
        return Segmentation(
            labels=view.restore(labels),
            probabilities=None if canvas.probabilities is None else np.stack([view.restore(p) for p in canvas.probabilities]),
            boxes=[ProposedBox(view.source_box(b.box), b.components, b.clipped, b.tile) for b in boxes],
            dropped=[replace(d, box=view.source_box(d.box)) for d in proposal.dropped],
            counts={**proposal.counts, **stage.counts},
            seconds=clock.seconds,
            peak_bytes=clock.peak_bytes,
            warnings=warnings,
            rough=_rough_map(proposal, view),
        )

    def rough_only(self, volume: Volume, network: RoughFineNet) -> NDArray[np.uint8]:
        """The rough network alone, its foreground upsampled to the volume's grid: the baseline that two stages must beat.

        Cut at a probability of 0.5, whatever threshold the policy uses to miss no object.

        Returns:
            Mask of the volume's shape, in its own axis order, painted in slabs: no full-resolution float array exists.

        Raises:
            ValueError: As :meth:`segment`.
        """
        view = self._checked_view(volume)
        classes = self._rough_stage(network).classes(view)
        foreground = classes.sum(axis=0)
        mask = blank(view.grid.shape, np.dtype(np.uint8))
        for slab in slabs(mask.shape):
            np.copyto(mask[slab.slices], 1, where=resample_region(foreground[None], view.grid.box, slab)[0] >= 0.5)
        return view.restore(mask)

    def view(self, volume: Volume) -> CanonicalVolume:
        """The volume as stages and policies see it."""
        return network_view(volume, self.axcodes, colour=self.colour, standardize=self.standardize)

    def _rough_stage(self, network: RoughFineNet) -> NetworkProposer:
        runtime = self.runtime if self.rough.spacing_mm is None else TORCH
        rough = on_runtime(runtime, network.rough, "rough", self.precision)
        return NetworkProposer(rough, self.rough, self.policy, self.fine.size, self.precision)

    def _checked_view(self, volume: Volume) -> CanonicalVolume:
        if volume.channels != self.in_channels and not self.colour:
            msg = f"{volume.name}: must have {self.in_channels} channel(s) for these networks, got {volume.channels}"
            raise ValueError(msg)
        if volume.grid.ndim != len(self.fine.size):
            msg = f"{volume.name}: must have the {len(self.fine.size)} space axes of the networks' inputs, got {volume.grid.ndim}"
            raise ValueError(msg)
        return self.view(volume)

    def _instances(
        self, view: CanonicalVolume, labels: NDArray[Any], proposal: Proposal, boxes: Sequence[ProposedBox], axes: Sequence[int]
    ) -> NDArray[Any]:
        if not boxes:
            return labels
        where = boxes[0].box
        for box in boxes[1:]:
            where = where.union(box.box)
        ids, count = self._split(view, labels[where.slices] > 0, proposal, where)
        if self.number_from and self.axcodes:
            axis = next(i for i, code in enumerate(self.axcodes) if code in _same_axis(self.number_from))
            ids = order_instances(ids, count, axis, descending=self.axcodes[axis] == self.number_from)
        out = blank(labels.shape, np.min_scalar_type(count), axes)
        out[where.slices] = ids
        return out

    def _split(self, view: CanonicalVolume, mask: NDArray[np.bool_], proposal: Proposal, where: Box) -> tuple[NDArray[np.int32], int]:
        spacing_mm = view.grid.spacing_mm
        if self.neck_depth_mm is not None:
            # A picture's mm are often those of print: 300 dpi in a JPEG must not change what is one object.
            return split_at_necks(mask, self.neck_depth_mm, (1.0,) * mask.ndim if self.colour else spacing_mm)
        seeds = None if proposal.ids is None else seeds_on(where, proposal.ids, view.grid.shape)
        least = max(int(self.policy.min_volume_mm3 / view.grid.voxel_mm3), 1)
        return split_instances(mask, seeds, connectivity=self.policy.connectivity, min_voxels=least, spacing_mm=spacing_mm)

    def _warnings(self, view: CanonicalVolume, proposal: Proposal, *, given: bool) -> list[str]:
        said = []
        if not proposal.boxes:
            nothing = "nothing to look at in the mask or boxes given" if given else "nothing found by the rough stage"
            said.append(nothing + (": the whole volume is tiled" if self.when_empty == "tile" else ""))
        factors = [n / r for n, r in zip(view.grid.shape, self.rough.shape_of(view.grid), strict=True) if n > 1]
        if not given and max(factors, default=1.0) < WORTH_IT:
            said.append(f"downscaling below {WORTH_IT:g}x ({max(factors, default=1.0):.2f}x): two stages may not help")
        if len(proposal.boxes) > MANY_BOXES:
            said.append(f"{len(proposal.boxes)} boxes to look into, as noise in the rough mask gives: this may take long")
        if any(b.box.voxels > prod(view.grid.shape) / 2 for b in proposal.boxes):
            said.append("an object fills more than half of the volume: two stages may not help")
        return said


def _rough_map(proposal: Proposal, view: CanonicalVolume) -> ArrayVolume | None:
    if proposal.probability is None:
        return None
    probability = proposal.probability.astype(np.float32)
    return ArrayVolume(probability[None], view.grid.resized(probability.shape), f"rough map of {view.name}")


def _same_axis(code: str) -> str:
    return next(pair for pair in ("RL", "AP", "SI") if code in pair)


def _alike(arrays: list[NDArray[Any]]) -> list[NDArray[Any]]:
    """The arrays of a batch in one type: instances of one image may need a wider one than those of another."""
    dtype = np.result_type(*arrays)
    # torch has no arithmetic on uint16 and uint32.
    dtype = np.dtype({"uint16": np.int32, "uint32": np.int64}.get(dtype.name, dtype))
    # Torch wraps no array that runs backwards; else they stay as they lie in memory.
    return [a.astype(dtype, order="K", copy=min(a.strides) < 0) for a in arrays]


def _axes_in_memory(volume: Volume) -> list[int]:
    """Space axes of a volume, from the one along which neighbours lie side by side in memory, or in the file, to the slowest."""
    axes = range(volume.grid.ndim)
    if isinstance(volume, ArrayVolume):
        return sorted(axes, key=lambda axis: (abs(volume.array.strides[axis + 1]), -axis))
    return [*axes] if isinstance(volume, FileVolume) else [*reversed(axes)]


class Stopwatch:
    """Wall seconds of named stages, and the process's largest memory until then; a stage that runs twice adds up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.peak_bytes: dict[str, int] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time the block under ``name``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 4)
            self.peak_bytes[name] = peak_memory_bytes()
