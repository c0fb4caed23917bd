"""Several networks that act as one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# Smaller than any probability but 0 that a float32 softmax gives: the log of 0 would spoil differences of logits.
MIN_PROBABILITY = 1e-30


class MeanEnsemble(nn.Module):
    """Mean of the networks' probabilities, as logits, so that an ensemble can stand in for one network.

    Args:
        networks: Each ``(B, C, *S) -> (B, K, *S)`` logits; not copied.

    Raises:
        ValueError: If there are none.
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
            return mean.clamp_min(MIN_PROBABILITY).log() - against.clamp_min(MIN_PROBABILITY).log()
        return torch.stack([logits.softmax(dim=1) for logits in found]).mean(dim=0).clamp_min(MIN_PROBABILITY).log()
