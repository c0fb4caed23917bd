"""Kernels and strides per axis from an input size, and the check that a network returns the size it was given."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

# An axis is no longer halved below this many voxels.
LEAST_EDGE = 4


def axis_plan(size: Sequence[int], levels: int, least_edge: int = LEAST_EDGE) -> dict[str, list[list[int]]]:
    """Kernel sizes and strides of an encoder, level by level.

    An axis of length 1 gets kernel 1 and stride 1. Any other gets kernel 3, and stride 2 while it is even and stays at least
    ``least_edge`` long; so every level divides and skip connections meet.

    Args:
        size: Input size, one entry an axis.
        levels: Number of downsampling steps.
        least_edge: See above.

    Returns:
        ``{"kernel_size": [...], "strides": [...]}``: for ``monai.networks.nets.DynUNet``, ``levels + 1`` entries, the first stride 1.

    Example:
        >>> axis_plan((16, 16, 1), 2)["strides"]
        [[1, 1, 1], [2, 2, 1], [2, 2, 1]]
    """
    left = list(size)
    kernels = [[1 if n == 1 else 3 for n in size]]
    strides = [[1] * len(left)]
    for _ in range(levels):
        step = [2 if n % 2 == 0 and n // 2 >= least_edge else 1 for n in left]
        left = [n // s for n, s in zip(left, step, strict=True)]
        strides.append(step)
        kernels.append(list(kernels[0]))
    return {"kernel_size": kernels, "strides": strides}


@torch.inference_mode()
def check_same_size(network: nn.Module, size: Sequence[int], in_channels: int = 1, name: str = "network") -> int:
    """Run a network once on zeros of its input size and see what comes back.

    Several MONAI networks silently return depth 8 or 16 for an input of depth 1, or cut an odd size; others fail deep inside.

    Args:
        network: ``(B, C, *S) -> (B, K, *S)``.
        size: Input size ``S``.
        in_channels: ``C``.
        name: For messages.

    Returns:
        Number of output channels ``K``.

    Raises:
        ValueError: If it fails on this size, or returns another.
    """
    parameter = next(network.parameters(), torch.zeros(1))
    x = torch.zeros((1, in_channels, *size), device=parameter.device, dtype=parameter.dtype)
    training = network.training
    network.eval()
    try:
        y = network(x)
    except (RuntimeError, ValueError) as error:
        msg = f"{name} must take an input of {tuple(size)} with {in_channels} channels, it failed: {str(error).splitlines()[0]}"
        raise ValueError(msg) from error
    finally:
        network.train(training)
    if tuple(y.shape[2:]) != tuple(size):
        msg = f"{name} must return the size it is given, {tuple(size)} became {tuple(y.shape[2:])}: set strides of 1 along short axes"
        raise ValueError(msg)
    return int(y.shape[1])
