"""A network run for inference: its device, its precision, and probabilities from its logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from stseg3d.compute.batches import ran_out_of_memory
from stseg3d.compute.onednn import LoneCrops
from stseg3d.networks import needed_multiple
from stseg3d.plan.values import PRECISIONS

DTYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}  # for autocast


def fast_precision(device: torch.device) -> str:
    """Fastest precision of a device: bfloat16 where it is native, else float32."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    native = any(getattr(torch.cpu, f"_is_{unit}_supported", bool)() for unit in ("avx512_bf16", "amx_tile"))
    return "bfloat16" if native else "float32"


def precision_on(device: torch.device, precision: str) -> str:
    """Precision on a device: for ``"auto"`` that of :func:`fast_precision`.

    Raises:
        ValueError: If ``precision`` is unknown.
    """
    if precision not in PRECISIONS:
        msg = f"precision must be one of {PRECISIONS}, got {precision!r}"
        raise ValueError(msg)
    return fast_precision(device) if precision == "auto" else precision


def device_of(network: nn.Module) -> torch.device:
    """Device of a network's parameters; the CPU if it has none."""
    return next((p.device for p in network.parameters()), torch.device("cpu"))


def lay_channels_last(network: nn.Module) -> None:
    """Store the weights of 3-D convolutions channels last, as tensor cores need them, which also lays out their outputs so."""
    for parameter in network.parameters():
        if parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)


@contextmanager
def evaluating(network: nn.Module, precision: str = "float32") -> Iterator[torch.device]:
    """Context for inference: evaluation mode, no gradients, in the given precision regardless of any autocast around it.

    Yields:
        The network's device.

    Raises:
        ValueError: If ``precision`` is unknown.
    """
    device = device_of(network)
    dtype = DTYPES[precision_on(device, precision)]
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
    """Class probabilities ``(B, K, *S)``, float32, on the network's device; a single channel is the logit of the foreground.

    Raises:
        ValueError: If the network returns another size than that of its input, as several do on axes of one voxel, or fails on a size
            that is no multiple of what it needs.
    """
    total: Tensor | None = None
    flips = [axes for n in range(len(mirror_axes) + 1) for axes in combinations(mirror_axes, n)]
    for axes in flips:
        dims = [axis + 2 for axis in axes]
        logits = _logits(network, batch.flip(dims) if dims else batch)
        if logits.shape[2:] != batch.shape[2:]:
            msg = f"network must return the size it is given, {tuple(batch.shape[2:])} became {tuple(logits.shape[2:])}"
            raise ValueError(msg)
        part = _activate(logits.as_subclass(Tensor).float())
        part = part.flip(dims) if dims else part
        total = part if total is None else total + part
    assert total is not None
    return total / len(flips)


def _logits(network: nn.Module, batch: Tensor) -> Tensor:
    """Output of the network, the first of several."""
    try:
        found: Any = network(batch)
    except RuntimeError as error:
        told = "" if ran_out_of_memory(error) else needed_multiple(network, batch.shape[2:], batch.shape[1])
        if not told:
            raise
        msg = f"network {told}"
        raise ValueError(msg) from error
    first: Tensor = found[0] if isinstance(found, (list, tuple)) else found
    return first


def _activate(logits: Tensor) -> Tensor:
    if logits.shape[1] == 1:
        foreground = logits.sigmoid()
        return torch.cat([1 - foreground, foreground], dim=1)
    return logits.softmax(dim=1)
