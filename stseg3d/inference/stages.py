"""The two stages: which size a network sees, how its input is made, and how it is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import combinations
from math import ceil
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stseg3d.geometry import Grid
from stseg3d.inference.onednn import LoneCrops

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
AUTO = "auto"


@dataclass(frozen=True)
class Stage:
    """How one of the two networks is fed.

    Args:
        size: Input size in voxels, one entry an axis of the canonical view.
        spacing_mm: For a rough stage: about this spacing instead of one size for all volumes. ``size`` is then the largest size; each
            axis is the next multiple of ``multiple`` voxels, the longest at least two of them. Sizes differ from case to case, so
            training takes one case a batch.
        multiple: What the network needs its input to be divisible by; counts only with ``spacing_mm``.
        transform: MONAI array transform (or any callable) on the resampled image, ``(C, *size)`` to ``(C, *size)``: intensities only.
            Build it from transforms without randomness; it runs on the small volume and on crops, never on the whole volume. It is given
            a tensor; one of a crop lies on the fine network's device.
        mirror_axes: Axes along which the input is mirrored too, the probabilities averaged (test-time augmentation): every
            combination is one more run of the network.
        rough_channel: For a fine stage: the rough stage's foreground probability follows as one more channel, after ``transform``; zeros
            where there is none, as for boxes that were given. Training and inference must agree on it.

    Raises:
        ValueError: If ``size``, ``spacing_mm`` or ``multiple`` is not positive, or a mirrored axis does not exist or has one voxel.
    """

    size: Sequence[int]
    transform: Callable[[Tensor], Tensor] | None = None
    mirror_axes: Sequence[int] = ()
    spacing_mm: float | None = None
    multiple: int = 8
    rough_channel: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(int(n) for n in self.size))
        if not self.size or min(self.size) < 1:
            msg = f"size must be positive on each axis, got {self.size}"
            raise ValueError(msg)
        if (self.spacing_mm is not None and self.spacing_mm <= 0) or self.multiple < 1:
            msg = f"spacing_mm and multiple must be positive, got {self.spacing_mm} and {self.multiple}"
            raise ValueError(msg)
        if any(not 0 <= axis < len(self.size) or self.size[axis] == 1 for axis in self.mirror_axes):
            msg = f"mirror_axes must be axes longer than 1 of size {self.size}, got {tuple(self.mirror_axes)}"
            raise ValueError(msg)

    def shape_of(self, grid: Grid) -> tuple[int, ...]:
        """Input shape for a volume: ``size``, or what ``spacing_mm`` makes of its extent."""
        size = tuple(self.size)
        if self.spacing_mm is None:
            return size
        cells = (
            ceil(n * mm / self.spacing_mm / self.multiple - 1e-6) * self.multiple for n, mm in zip(grid.shape, grid.spacing_mm, strict=True)
        )
        shape = [min(most, n) for most, n in zip(size, cells, strict=True)]
        if max(shape) <= self.multiple:
            # A network's deepest level would be a single voxel, and instance normalisation takes no single voxel.
            longest = int(np.argmax(np.array(grid.shape) * grid.spacing_mm))
            shape[longest] = min(2 * self.multiple, size[longest])
        return tuple(shape)

    def prepare(self, image: NDArray[np.float32] | Tensor) -> Tensor:
        """Network input ``(C, *size)``, float32, of an image already resampled to ``size``; on the device of ``image``."""
        tensor = image if isinstance(image, Tensor) else torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
        if self.transform is None:
            return tensor
        out = torch.as_tensor(self.transform(tensor))
        # A MetaTensor would drag its metadata through every operation of the network.
        return out.as_subclass(Tensor).to(tensor.device, torch.float32)


def fast_precision(device: torch.device) -> str:
    """The lower precision this device computes faster in: bfloat16 where it is native, else float32."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    native = any(getattr(torch.cpu, f"_is_{unit}_supported", bool)() for unit in ("avx512_bf16", "amx_tile"))
    return "bfloat16" if native else "float32"


def precision_on(device: torch.device, precision: str) -> str:
    """The precision that is meant on a device: ``"auto"`` is what :func:`fast_precision` says.

    Raises:
        ValueError: If ``precision`` is unknown.
    """
    if precision not in (AUTO, *PRECISIONS):
        msg = f"precision must be one of {(AUTO, *PRECISIONS)}, got {precision!r}"
        raise ValueError(msg)
    return fast_precision(device) if precision == AUTO else precision


def device_of(network: nn.Module) -> torch.device:
    """Where a network's parameters are; the CPU if it has none."""
    return next((p.device for p in network.parameters()), torch.device("cpu"))


def lay_channels_last(network: nn.Module) -> None:
    """Store the weights of 3-D convolutions, and so what these return, channels last, as tensor cores take them; the numbers stay."""
    for parameter in network.parameters():
        if parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)


@contextmanager
def evaluating(network: nn.Module, precision: str = "float32") -> Iterator[torch.device]:
    """Run a network for inference: evaluation mode, no gradients, in the precision asked for whatever autocast surrounds it.

    Yields:
        The network's device.

    Raises:
        ValueError: If ``precision`` is unknown.
    """
    device = device_of(network)
    dtype = PRECISIONS[precision_on(device, precision)]
    if dtype is not None and device.type != "cpu":  # on the CPU it saves less than a tenth: tests/benchmarks/bench_networks.py
        lay_channels_last(network)
    lone = LoneCrops() if dtype is None and device.type == "cpu" else nullcontext()
    training = network.training
    network.eval()
    try:
        with torch.inference_mode(), torch.autocast(device.type, dtype=dtype, enabled=dtype is not None), lone:
            yield device
    finally:
        network.train(training)


def probabilities(network: nn.Module, batch: Tensor, mirror_axes: Sequence[int] = ()) -> Tensor:
    """Class probabilities ``(B, K, *S)``, float32, on the network's device; one channel is read as a sigmoid of the foreground.

    Raises:
        ValueError: If the network returns another size than it was given, as several do on axes of one voxel.
    """
    total: Tensor | None = None
    flips = [axes for n in range(len(mirror_axes) + 1) for axes in combinations(mirror_axes, n)]
    for axes in flips:
        dims = [axis + 2 for axis in axes]
        logits: Any = network(batch.flip(dims) if dims else batch)
        logits = logits[0] if isinstance(logits, (list, tuple)) else logits
        if logits.shape[2:] != batch.shape[2:]:
            msg = f"network must return the size it is given, {tuple(batch.shape[2:])} became {tuple(logits.shape[2:])}"
            raise ValueError(msg)
        part = _activate(logits.as_subclass(Tensor).float())
        part = part.flip(dims) if dims else part
        total = part if total is None else total + part
    assert total is not None
    return total / len(flips)


def _activate(logits: Tensor) -> Tensor:
    if logits.shape[1] == 1:
        foreground = logits.sigmoid()
        return torch.cat([1 - foreground, foreground], dim=1)
    return logits.softmax(dim=1)
