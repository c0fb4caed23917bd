"""The loss of overlapping classes is Dice and binary cross-entropy of the sums of their probabilities, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import binary_cross_entropy

from stseg3d.training import HeadsLoss, RegionLoss
from stseg3d.training.samples import IGNORED

REGIONS = [[1, 2], [2]]
# Background, 1 and 2 with probabilities in quarters, of two voxels; the labels are 1 and 0.
PROBABILITIES = torch.tensor([[[0.25, 0.5], [0.25, 0.25], [0.5, 0.25]]]).reshape(1, 3, 2, 1, 1)
LABEL = torch.tensor([1.0, 0.0]).reshape(1, 1, 2, 1, 1)


def test_it_is_dice_and_cross_entropy_of_the_sums_by_hand() -> None:
    inside = torch.tensor([[0.75, 0.5], [0.5, 0.25]])  # of the regions in both voxels
    truth = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    dice = [1 - 2 * 0.75 / (1.25 + 1), 1 - 1e-5 / (0.75 + 1e-5)]  # MONAI's smoothing
    entropy = binary_cross_entropy(inside, truth)
    logits = PROBABILITIES.log() + 3  # softmax does not see what is added
    torch.testing.assert_close(RegionLoss(REGIONS)(logits, LABEL), sum(dice) / 2 + entropy, rtol=0, atol=2e-5)
    torch.testing.assert_close(RegionLoss(REGIONS, lambda_dice=0)(logits, LABEL), entropy)
    torch.testing.assert_close(RegionLoss(REGIONS, lambda_ce=0)(logits, LABEL), torch.tensor(sum(dice) / 2), rtol=0, atol=2e-5)


def test_exact_logits_cost_nothing_and_wrong_ones_stay_finite() -> None:
    exact = torch.full((1, 3, 2, 1, 1), -200.0).scatter(1, LABEL.long(), 200.0)
    loss = RegionLoss([[1, 2], [1]])
    assert loss(exact, LABEL) == pytest.approx(0, abs=1e-5)
    wrong = (-exact).requires_grad_()
    loss(wrong, LABEL).backward()
    assert wrong.grad is not None
    assert torch.isfinite(wrong.grad).all()
    assert wrong.grad.any()


def test_the_gradient_moves_probability_into_the_region_and_not_within_it() -> None:
    logits = torch.zeros((1, 4, 1, 1, 1), requires_grad=True)
    RegionLoss([[1, 2]])(logits, torch.full((1, 1, 1, 1, 1), 2.0)).backward()
    assert logits.grad is not None
    background, one, two, other = logits.grad.flatten().tolist()
    assert one == two < 0 < background == other


@pytest.mark.parametrize("heads", [0, 2])
def test_ignored_voxels_count_in_no_term(heads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((2, *([heads] if heads else []), 3, 4, 3, 2), generator=generator)
    label = torch.randint(0, 3, (2, 1, 4, 3, 2), generator=generator).float()
    label[0, :, 2:] = IGNORED
    loss = HeadsLoss(RegionLoss(REGIONS))
    ignored = (label == IGNORED)[:, None] if heads else label == IGNORED
    value = loss(logits.requires_grad_(), label)
    value.backward()
    assert logits.grad is not None
    assert not logits.grad.masked_select(ignored).any()
    torch.testing.assert_close(loss(logits.masked_fill(ignored, 9.0), label), value, rtol=0, atol=0)
    if not heads:
        parts = [loss(logits[:1, :, :2], label[:1, :, :2]), loss(logits[1:], label[1:])]
        torch.testing.assert_close(value, torch.stack(parts).mean())
