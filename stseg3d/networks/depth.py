"""Two-dimensional networks on volumes of depth 1."""

from __future__ import annotations

from torch import Tensor, nn


class SqueezeDepth(nn.Module):
    """A ``spatial_dims=2`` network on ``(B, C, H, W, 1)``: the last axis is removed before it and restored after it.

    Any 2-D network can be used, without the cost of three-dimensional kernels.

    Args:
        network: ``(B, C, H, W) -> (B, K, H, W)``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape ``(B, K, H, W, 1)``.

        Raises:
            ValueError: If the last axis is not of length 1.
        """
        if x.ndim != 5 or x.shape[-1] != 1:
            msg = f"input must be of shape (B, C, H, W, 1), got {list(x.shape)}"
            raise ValueError(msg)
        logits: Tensor = self.network(x[..., 0])
        return logits[..., None]
