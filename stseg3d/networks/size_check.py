"""Check that a network returns the size of its input."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import torch
from torch import Tensor, nn

MULTIPLES = (2, 4, 8, 16, 32)  # one of which the size may have to be


@torch.inference_mode()
def check_same_size(network: nn.Module, size: Sequence[int], in_channels: int = 1, name: str = "network") -> int:
    """Run a network once on zeros of its input size and check the size of its output.

    Several MONAI networks silently return depth 8 or 16 for an input of depth 1, or cut an odd size; others fail deep inside.

    Args:
        network: ``(B, C, *S) -> (B, K, *S)``.
        size: Input size ``S``.
        in_channels: ``C``.
        name: Name in messages.

    Returns:
        Number of output channels ``K``.

    Raises:
        ValueError: If the network fails on this size, or returns another; the message says what the size must be a multiple of, if that
            is all that is wrong.
    """
    training = network.training
    network.eval()
    try:
        found = _run(network, size, in_channels)
        if isinstance(found, Tensor) and tuple(found.shape[2:]) == tuple(size):
            return int(found.shape[1])
        if isinstance(found, torch.OutOfMemoryError):
            raise found
        told = needed_multiple(network, size, in_channels)
    finally:
        network.train(training)
    if not told and isinstance(found, Tensor):
        told = f"must return the size it is given, {tuple(size)} became {tuple(found.shape[2:])}: set strides of 1 along short axes"
    elif not told:
        told = f"must take an input of {tuple(size)} with {in_channels} channels, it failed: {str(found).splitlines()[0]}"
    msg = f"{name} {told}"
    raise ValueError(msg) from (found if isinstance(found, Exception) else None)


@torch.inference_mode()
def needed_multiple(network: nn.Module, size: Sequence[int], in_channels: int) -> str:
    """What a size must be a multiple of, and along which axes, as the end of a sentence; empty if the size is not at fault.

    Args:
        network: A network in evaluation mode, which has failed or returned another size.
        size: Input size ``S``.
        in_channels: ``C``.
    """

    def holds(tried: Sequence[int]) -> bool:
        found = _run(network, tried, in_channels)
        return isinstance(found, Tensor) and tuple(found.shape[2:]) == tuple(tried)

    for multiple in () if holds(size) else MULTIPLES:
        rounded = [n if n == 1 else ceil(n / multiple) * multiple for n in size]
        if rounded == list(size) or not holds(rounded):
            continue
        for axis, n in enumerate(size):  # not all axes need it, as strides may differ
            if holds(one := [*rounded[:axis], n, *rounded[axis + 1 :]]):
                rounded = one
        axes = [str(axis) for axis, n in enumerate(size) if rounded[axis] != n]
        along = f"axes {', '.join(axes)}" if len(axes) > 1 else f"axis {axes[0]}"
        return f"must have a size that is a multiple of {multiple} along {along}, got {tuple(size)}"
    return ""


def _run(network: nn.Module, size: Sequence[int], in_channels: int) -> Tensor | Exception:
    """The output for zeros, or why there is none."""
    parameter = next(network.parameters(), torch.zeros(1))
    try:
        found: Tensor = network(torch.zeros((1, in_channels, *size), device=parameter.device, dtype=parameter.dtype))
    except (RuntimeError, ValueError) as error:
        return error
    return found
