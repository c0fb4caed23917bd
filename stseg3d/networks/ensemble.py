"""Several networks that answer as one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# Below the least probability that a softmax in float32 gives but for 0; the log of 0 would spoil differences of logits.
LEAST = 1e-30


class MeanEnsemble(nn.Module):
    """The mean of what networks say, as logits: whatever takes one network takes the ensemble.

    Args:
        networks: Each ``(B, C, *S) -> (B, K, *S)`` logits; they are held as they are, not copied.

    Raises:
        ValueError: If there is none.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        if not networks:
            msg = "networks must hold at least one network, got none"
            raise ValueError(msg)
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(B, K, *S)``, float32, whose softmax (for one channel: sigmoid) is the mean of the networks' own."""
        found = [network(x).float() for network in self.networks]
        if found[0].shape[1] == 1:
            mean = torch.stack([logits.sigmoid() for logits in found]).mean(dim=0)
            against = torch.stack([(-logits).sigmoid() for logits in found]).mean(dim=0)
            return mean.clamp_min(LEAST).log() - against.clamp_min(LEAST).log()
        return torch.stack([logits.softmax(dim=1) for logits in found]).mean(dim=0).clamp_min(LEAST).log()
