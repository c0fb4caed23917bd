"""`RegionLoss`: classes that overlap, learned by a network whose classes exclude each other.

A region is a union of classes, and its probability the sum of theirs. Regions that are nested therefore have nested probabilities, and the
output is a label map of the data set's own values. nnU-Net has an output with a sigmoid for each region instead, which may contradict each
other: https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/region_based_training.md
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.losses.dice import DiceLoss
from torch import Tensor, nn


class RegionLoss(nn.Module):
    """Dice and binary cross-entropy of each region, each a mean over regions and samples, weighted and added.

    Args:
        regions: Classes of each region; none holds class 0 alone or all classes.
        lambda_dice: Weight of the Dice loss.
        lambda_ce: Weight of the binary cross-entropy.
        dice: Arguments of MONAI's ``DiceLoss``.
    """

    def __init__(self, regions: Sequence[Sequence[int]], *, lambda_dice: float = 1.0, lambda_ce: float = 1.0, **dice: Any) -> None:
        super().__init__()
        self.regions = [list(region) for region in regions]
        self.lambda_dice, self.lambda_ce = lambda_dice, lambda_ce
        self.dice = DiceLoss(**dice)

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Loss of logits ``(B, K, *S)`` and labels ``(B, 1, *S)``."""
        scores, classes = logits.log_softmax(dim=1), label.as_subclass(Tensor)
        target = torch.cat([torch.isin(classes, classes.new_tensor(region)) for region in self.regions], dim=1).to(scores)
        # As sums of logarithms, which stay finite where a probability is 0 or 1 to the last digit.
        inside = torch.stack([scores[:, region].logsumexp(dim=1) for region in self.regions], dim=1)
        outside = torch.stack([scores[:, self._others(region, scores)].logsumexp(dim=1) for region in self.regions], dim=1)
        cross_entropy = -(target * inside + (1 - target) * outside).mean()
        found: Tensor = self.lambda_dice * self.dice(inside.exp(), target) + self.lambda_ce * cross_entropy
        return found

    @staticmethod
    def _others(region: Sequence[int], scores: Tensor) -> list[int]:
        return [k for k in range(scores.shape[1]) if k not in region]
