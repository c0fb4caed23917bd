"""Values of a plan that inference and training share: how a scan is seen, and what is made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

import numpy as np

from stseg3d.geometry import Grid

MAX_CHANNELS = 1000  # far more than any image has
OUTPUTS = ("labels", "instances", "probabilities")
WHEN_EMPTY = ("empty", "tile")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
RUNTIMES = ("torch", "openvino")


@dataclass(frozen=True)
class ImageView:
    """How the networks see a scan.

    Args:
        channels: Number of channels of an image.
        axcodes: Axis order in which the networks see a volume, and in which sizes and policies count axes; None keeps the file's own.
        colour: Whether images are pictures, seen as red, green and blue however they are stored.
        standardize: Whether each channel is brought to mean 0 and standard deviation 1 over the whole image first.

    Raises:
        ValueError: If there is no channel, or ``axcodes`` does not name one direction of each of the three axes.
    """

    channels: int = 1
    axcodes: str | None = "RAS"
    colour: bool = False
    standardize: bool = False

    @property
    def channels_in_files(self) -> int:
        """Number of files that may hold the channels of one image, each in its own; pictures keep theirs together."""
        return 1 if self.colour else self.channels

    def __post_init__(self) -> None:
        if not 1 <= self.channels <= MAX_CHANNELS:
            msg = f"channels must be in [1, {MAX_CHANNELS}], got {self.channels}"
            raise ValueError(msg)
        if self.axcodes is not None and sorted("RLAPSI".find(code) // 2 for code in self.axcodes) != [0, 1, 2]:
            msg = f"axcodes must name a direction of each axis, such as RAS, got {self.axcodes!r}"
            raise ValueError(msg)


@dataclass(frozen=True)
class NetworkInput:
    """Input of one of the two networks.

    Args:
        size: Input size in voxels, along each axis of the canonical view.
        mirror_axes: Axes along which the input is also mirrored, with probabilities averaged (test-time augmentation). Every
            combination is one more run of the network.
        spacing_mm: For the rough network: approximate spacing, instead of one size for all volumes. ``size`` is then the largest size.
            Each axis is rounded up to a multiple of ``multiple`` voxels, the longest to at least two of them. Sizes differ between
            cases, so training takes one case a batch.
        multiple: Number of voxels that the network's input must be divisible by; used only with ``spacing_mm``.
        rough_channel: For the fine network: whether the rough stage's foreground probability is one more channel, after the
            normalisation; zero where there is none, as for boxes that were given.

    Raises:
        ValueError: If ``size``, ``spacing_mm`` or ``multiple`` is not positive, or a mirrored axis does not exist or has one voxel.
    """

    size: Sequence[int]
    mirror_axes: Sequence[int] = ()
    spacing_mm: float | None = None
    multiple: int = 8
    rough_channel: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(int(n) for n in self.size))
        object.__setattr__(self, "mirror_axes", tuple(self.mirror_axes))
        if not self.size or min(self.size) < 1:
            msg = f"size must be positive on each axis, got {self.size}"
            raise ValueError(msg)
        if (self.spacing_mm is not None and self.spacing_mm <= 0) or self.multiple < 1:
            msg = f"spacing_mm and multiple must be positive, got {self.spacing_mm} and {self.multiple}"
            raise ValueError(msg)
        if any(not 0 <= axis < len(self.size) or self.size[axis] == 1 for axis in self.mirror_axes):
            msg = f"mirror_axes must be axes longer than 1 of size {self.size}, got {self.mirror_axes}"
            raise ValueError(msg)

    def shape_of(self, grid: Grid) -> tuple[int, ...]:
        """Input shape for a volume: ``size``, or with ``spacing_mm`` a shape that follows from its extent."""
        size = tuple(self.size)
        if self.spacing_mm is None:
            return size
        cells = (
            ceil(n * mm / self.spacing_mm / self.multiple - 1e-6) * self.multiple for n, mm in zip(grid.shape, grid.spacing_mm, strict=True)
        )
        shape = [min(most, n) for most, n in zip(size, cells, strict=True)]
        if max(shape) <= self.multiple:
            # Else a network's deepest level could be a single voxel, which instance normalisation does not accept.
            longest = int(np.argmax(np.array(grid.shape) * grid.spacing_mm))
            shape[longest] = min(2 * self.multiple, size[longest])
        return tuple(shape)


@dataclass(frozen=True)
class Output:
    """Kind of output.

    Args:
        kind: ``"labels"``, ``"instances"`` (one id for each object) or ``"probabilities"`` (of the foreground classes).
        when_empty: If nothing is found, ``"empty"`` gives an empty mask and ``"tile"`` runs the fine network on the whole volume.
        number_from: World direction whose end gets instance 1, such as ``"S"`` for the top; by default the file order of the view.
        neck_depth_mm: For instances: split touching objects at their necks, see :func:`stseg3d.ops.instances.split_at_necks`. By
            default the rough components split them, which misses objects smaller than a rough voxel. In pixels for pictures.
        largest_only: Names of classes of which only the largest component is kept, or ``"foreground"`` for all classes together. This and
            the next are done before objects are told apart; probabilities are left as they are.
        min_volume_mm3: Least volume of a component in the labels, by the same names. In pixels for pictures.

    Raises:
        ValueError: If a word is unknown, or a depth or a volume not positive.
    """

    kind: str = "labels"
    when_empty: str = "empty"
    number_from: str | None = None
    neck_depth_mm: float | None = None
    largest_only: Sequence[str] = ()
    min_volume_mm3: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "largest_only", tuple(self.largest_only))
        if self.kind not in OUTPUTS or self.when_empty not in WHEN_EMPTY:
            msg = f"output must be one of {OUTPUTS} and when_empty one of {WHEN_EMPTY}, got {self.kind!r} and {self.when_empty!r}"
            raise ValueError(msg)
        if self.number_from is not None and self.number_from not in tuple("RLAPSI"):
            msg = f"number_from must be one letter of R L A P S I, got {self.number_from!r}"
            raise ValueError(msg)
        if self.neck_depth_mm is not None and self.neck_depth_mm <= 0:
            msg = f"neck_depth_mm must be above 0, got {self.neck_depth_mm}"
            raise ValueError(msg)
        if any(not volume > 0 for volume in self.min_volume_mm3.values()):
            msg = f"min_volume_mm3 must be above 0 for each class that it names, got {dict(self.min_volume_mm3)}"
            raise ValueError(msg)

    @property
    def cleaned(self) -> tuple[str, ...]:
        """Names of classes that have a rule about their components."""
        return (*self.largest_only, *self.min_volume_mm3)


@dataclass(frozen=True)
class Execution:
    """How the networks are run.

    Args:
        precision: ``"float32"``, ``"bfloat16"``, ``"float16"`` or ``"auto"`` (bfloat16 where the device has it natively, else float32),
            regardless of any autocast around the call.
        runtime: ``"torch"``, or ``"openvino"`` (``stseg3d[openvino]``), which is quicker on a CPU once it has started. A rough network
            with ``spacing_mm`` always runs in PyTorch, as converting it for each shape takes longer than it saves.
        progress: Whether to show progress on a terminal.

    Raises:
        ValueError: If a word is unknown.
    """

    precision: str = "float32"
    runtime: str = "torch"
    progress: bool = False

    def __post_init__(self) -> None:
        for name, given, known in (("precision", self.precision, PRECISIONS), ("runtime", self.runtime, RUNTIMES)):
            if given not in known:
                msg = f"{name} must be one of {known}, got {given!r}"
                raise ValueError(msg)
