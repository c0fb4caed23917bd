"""Parts of the recipe's options: folds, corruption of the rough channel, copied weights, losses of several heads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import UNet

from stseg3d.ops.boxes import Proposal
from stseg3d.training import FullResolutiond, HeadsLoss, load_predictions, training_cases
from stseg3d.training.folds import held_out, predictions_path, save_predictions
from stseg3d.training.rough_channel import corrupted
from stseg3d.training.starting import copy_fitting
from stseg3d.volumes import Case, Dataset

# --- folds -------------------------------------------------------------------


@pytest.mark.parametrize(("cases", "folds"), [(2, 2), (5, 2), (7, 3), (4, 4)])
def test_each_case_is_held_out_once_and_never_learned_from_then(cases: int, folds: int) -> None:
    dataset = Dataset("d", {}, [Case(f"c{n}", Path(f"{n}.nii"), Path(f"l{n}.nii")) for n in range(cases)])
    out: list[str] = []
    for fold in range(folds):
        held = [case.id for case in held_out(dataset, folds, fold)]
        learned = [case["id"] for case in training_cases(dataset, folds, fold)]
        assert held
        assert sorted(held + learned) == [case.id for case in dataset.training]
        out += held
    assert sorted(out) == [case.id for case in dataset.training]
    assert [case["id"] for case in training_cases(dataset, folds)] == [case.id for case in dataset.training]


def test_predictions_come_back_by_case_whatever_its_name(tmp_path: Path) -> None:
    assert load_predictions(tmp_path) == {}
    found = {name: np.full((1, 2, n + 1, 2), 0.25 * n) for n, name in enumerate(("file", "a b", "ü"))}
    for name, array in found.items():
        save_predictions({name: array}, predictions_path(tmp_path, name))
    again = load_predictions(tmp_path)
    assert again.keys() == found.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(again[name], array.astype(np.float16))


# --- corruption --------------------------------------------------------------


def two_objects() -> Proposal:
    probability = np.zeros((12, 12, 1), np.float16)
    probability[1:4, 1:4] = probability[7:10, 7:10] = 1
    return Proposal([], probability=probability)


def test_without_corruption_the_probability_stays() -> None:
    for seed in range(5):
        found = corrupted(two_objects(), np.random.RandomState(seed), 0.0).probability
        np.testing.assert_array_equal(found, two_objects().probability)


def test_corruption_leaves_out_drops_moves_and_blurs_and_stays_a_probability() -> None:
    random = np.random.RandomState(0)
    original = two_objects()
    found = [corrupted(original, random, 0.25).probability for _ in range(400)]
    unknown = np.mean([p is None for p in found])
    assert unknown == pytest.approx(0.25, abs=0.07)
    known = [p for p in found if p is not None]
    assert all(p.shape == (12, 12, 1) and p.min() >= 0 and p.max() <= 1 for p in known)
    one_missing = [p for p in known if (p[1:4, 1:4].max() == 0) != (p[7:10, 7:10].max() == 0)]
    assert len(one_missing) / len(known) == pytest.approx(0.25 * 0.75, abs=0.1)  # unless noise is drawn over it
    as_is = np.mean([np.array_equal(p, original.probability) for p in known])
    assert as_is == pytest.approx(0.75**4, abs=0.08)
    np.testing.assert_array_equal(original.probability, two_objects().probability)


def test_an_object_moves_by_one_rough_voxel_at_most() -> None:
    probability = np.zeros((11, 11, 11), np.float32)
    probability[5, 5, 5] = 1
    random = np.random.RandomState(1)
    always = [corrupted(Proposal([], probability=probability), random, 0.2).probability for _ in range(300)]
    quiet = [p for p in always if p is not None and np.count_nonzero(p) <= 8 and p.any()]  # neither noise nor blur
    assert len(quiet) > 50
    assert all(np.abs(np.argwhere(p) - 5).max() <= 1 for p in quiet)


def test_chance_comes_from_the_seed() -> None:
    one, other = (corrupted(two_objects(), np.random.RandomState(7), 0.5) for _ in range(2))
    assert (one.probability is None) == (other.probability is None)
    if one.probability is not None:
        np.testing.assert_array_equal(one.probability, other.probability)


# --- copied weights ----------------------------------------------------------


def unet(in_channels: int = 1, channels: tuple[int, ...] = (4, 8)) -> UNet:
    return UNet(spatial_dims=3, in_channels=in_channels, out_channels=2, channels=channels, strides=(2,) * (len(channels) - 1))


def test_networks_alike_are_copied_whole() -> None:
    one, other = unet(), unet()
    assert copy_fitting(one.state_dict(), other.state_dict()) == 1
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_a_further_input_channel_begins_without_influence() -> None:
    one, other = unet().eval(), unet(in_channels=2).eval()
    share = copy_fitting(one.state_dict(), other.state_dict())
    assert 0.9 < share < 1
    image, channel = torch.randn(1, 1, 8, 8, 8), torch.randn(1, 1, 8, 8, 8)
    torch.testing.assert_close(other(torch.cat([image, channel], dim=1)), one(image))


def test_what_does_not_fit_is_left_as_it_is() -> None:
    one, other = unet(), unet(channels=(6, 12))
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    share = copy_fitting(one.state_dict(), other.state_dict())
    assert share < 0.1
    same = [name for name, tensor in other.state_dict().items() if torch.equal(tensor, before[name])]
    assert {name for name in before if before[name].shape != one.state_dict()[name].shape} <= set(same)


# --- several heads -----------------------------------------------------------


def test_the_loss_of_several_heads_is_their_weighted_sum() -> None:
    loss = DiceCELoss(to_onehot_y=True, softmax=True)
    logits, label = torch.randn(2, 3, 2, 4, 4, 1), torch.randint(0, 2, (2, 1, 4, 4, 1)).float()
    heads = [loss(logits[:, n], label) for n in range(3)]
    torch.testing.assert_close(HeadsLoss(loss)(logits, label), heads[0] + heads[1] / 2 + heads[2] / 4)


def test_the_loss_of_one_head_is_the_loss() -> None:
    loss = DiceCELoss(to_onehot_y=True, softmax=True)
    logits, label = torch.randn(2, 2, 4, 4), torch.randint(0, 2, (2, 1, 4, 4)).float()
    assert torch.equal(HeadsLoss(loss)(logits, label), loss(logits, label))


def test_metrics_see_the_full_resolution() -> None:
    label = torch.zeros(1, 4, 4)
    heads = torch.randn(3, 2, 4, 4)
    assert torch.equal(FullResolutiond()({"pred": heads, "label": label})["pred"], heads[0])
    assert torch.equal(FullResolutiond()({"pred": heads[1], "label": label})["pred"], heads[1])
