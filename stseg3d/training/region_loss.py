"""`RegionLoss`: classes that overlap, learned by a network whose classes exclude each other.

A region is a union of classes, and its probability the sum of theirs. Regions that are nested therefore have nested probabilities, and the
output is a label map of the data set's own values. nnU-Net has an output with a sigmoid for each region instead, which may contradict each
other: https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/region_based_training.md
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from monai.losses.dice import DiceLoss
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits


class RegionLoss(nn.Module):
    """Dice and binary cross-entropy of each region, each a mean over regions and samples, weighted and added.

    Args:
        regions: Classes of each region; none is empty or holds all classes.
        lambda_dice: Weight of the Dice loss.
        lambda_ce: Weight of the binary cross-entropy.
        dice: Further arguments of MONAI's ``DiceLoss``.
    """

    def __init__(self, regions: Sequence[Sequence[int]], *, lambda_dice: float = 1.0, lambda_ce: float = 1.0, **dice: Any) -> None:
        super().__init__()
        self.regions = [list(region) for region in regions]
        self.lambda_dice, self.lambda_ce = lambda_dice, lambda_ce
        self.dice = DiceLoss(sigmoid=True, **dice)

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Loss of logits ``(B, K, *S)`` and labels ``(B, 1, *S)``, whole numbers below ``K``."""
        classes = logits.unbind(dim=1)
        ours = torch.stack([_logit(classes, region) for region in self.regions], dim=1)
        inside = torch.tensor([[kind in region for kind in range(len(classes))] for region in self.regions]).to(ours)
        theirs = inside[:, label.as_subclass(Tensor)[:, 0].long()].movedim(0, 1)
        cross_entropy = binary_cross_entropy_with_logits(ours, theirs)
        found: Tensor = self.lambda_dice * self.dice(ours, theirs) + self.lambda_ce * cross_entropy
        return found


def _logit(classes: Sequence[Tensor], region: Sequence[int]) -> Tensor:
    """Logarithm of a region's odds: the sum of its classes' probabilities over that of the others', finite even if either rounds to 0."""
    inside, outside = ([x for kind, x in enumerate(classes) if (kind in region) is own] for own in (True, False))
    return reduce(torch.logaddexp, inside) - reduce(torch.logaddexp, outside)
