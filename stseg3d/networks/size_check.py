"""Check that a network returns the size of its input."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


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
        ValueError: If the network fails on this size, or returns another.
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
