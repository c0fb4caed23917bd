"""How a network is fed and run: sizes, transforms, mirrored runs, and whatever a network returns read as probabilities."""

from __future__ import annotations

import re
from itertools import product

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.networks.nets import UNet
from monai.transforms import NormalizeIntensity
from torch import nn

from stseg3d.compute import evaluating, probabilities
from stseg3d.geometry import Grid
from stseg3d.inference import Stage


class Leaning(nn.Module):
    """Classes that depend on where a voxel lies along the first axis: mirroring shows."""

    def __init__(self, classes=2):
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv3d(1, classes, 3, padding=1)

    def forward(self, x):
        return self.convolution(x) * torch.arange(x.shape[2]).reshape(-1, 1, 1)


def run(network, batch, mirror_axes=()):
    with evaluating(network):
        return probabilities(network, batch, mirror_axes)


def test_a_stage_gives_float32_and_takes_its_size_from_json():
    stage = Stage([4, 5.0, 6])
    assert stage.size == (4, 5, 6)
    image = np.random.default_rng(0).normal(size=(1, 4, 5, 6))
    assert stage.prepare(image).dtype == torch.float32
    np.testing.assert_allclose(stage.prepare(image), image, rtol=1e-6)


def test_monais_transforms_run_on_the_input_and_leave_no_metatensor():
    image = np.random.default_rng(0).normal(7, 3, size=(2, 4, 5, 6)).astype(np.float32)
    out = Stage((4, 5, 6), transform=NormalizeIntensity(channel_wise=True)).prepare(image)
    assert type(out) is torch.Tensor
    torch.testing.assert_close(out.mean(dim=(1, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
    assert type(Stage((4, 5, 6), transform=MetaTensor).prepare(image)) is torch.Tensor


@pytest.mark.parametrize(
    ("size", "mirror_axes", "said"),
    [
        ((), (), "size must be positive on each axis, got ()"),
        ((4, 0, 4), (), "size must be positive on each axis, got (4, 0, 4)"),
        ((4, 4, 1), (2,), "mirror_axes must be axes longer than 1 of size (4, 4, 1), got (2,)"),
        ((4, 4, 4), (3,), "mirror_axes must be axes longer than 1 of size (4, 4, 4), got (3,)"),
        ((4, 4, 4), (-1,), "mirror_axes must be axes longer than 1 of size (4, 4, 4), got (-1,)"),
    ],
)
def test_bad_stages_are_refused(size, mirror_axes, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        Stage(size, mirror_axes=mirror_axes)


@pytest.mark.parametrize("classes", [2, 4])
def test_logits_become_probabilities(classes):
    network, batch = Leaning(classes), torch.randn(3, 1, 4, 5, 6)
    found = run(network, batch)
    torch.testing.assert_close(found, network(batch).softmax(1).detach())
    torch.testing.assert_close(found.sum(1), torch.ones(3, 4, 5, 6))


def test_one_channel_is_read_as_a_sigmoid():
    network, batch = Leaning(1), torch.randn(2, 1, 4, 5, 6)
    found = run(network, batch)
    assert found.shape == (2, 2, 4, 5, 6)
    torch.testing.assert_close(found[:, 1:], network(batch).sigmoid().detach())
    torch.testing.assert_close(found.sum(1), torch.ones(2, 4, 5, 6))


def test_of_several_outputs_the_first_counts():
    class Deep(nn.Module):
        def forward(self, x):
            return [torch.cat([x, -x], 1), "what deep supervision adds"]

    batch = torch.randn(1, 1, 4, 4, 4)
    torch.testing.assert_close(run(Deep(), batch)[:, :1], (2 * batch).sigmoid())


@pytest.mark.parametrize("axes", [(0,), (2,), (0, 1), (0, 1, 2)])
def test_mirrored_runs_are_averaged_over_every_combination(axes):
    network, batch = Leaning(), torch.randn(2, 1, 4, 5, 6)
    slow = []
    for flips in product((False, True), repeat=len(axes)):
        dims = [axis + 2 for axis, flip in zip(axes, flips, strict=True) if flip]
        slow.append(network(batch.flip(dims)).softmax(1).flip(dims))
    assert len(slow) == 2 ** len(axes)
    torch.testing.assert_close(run(network, batch, axes), torch.stack(slow).mean(0).detach())


def test_a_mirrored_input_gives_the_mirrored_result_then():
    network, batch = Leaning(), torch.randn(1, 1, 4, 5, 6)
    torch.testing.assert_close(run(network, batch.flip(2), (0,)), run(network, batch, (0,)).flip(2))
    assert not torch.allclose(run(network, batch.flip(2)), run(network, batch).flip(2))


def test_a_network_that_fails_is_left_as_it_was():
    class Failing(nn.Module):
        def forward(self, x):
            assert not self.training
            raise RuntimeError

    network = Failing().train()
    with pytest.raises(RuntimeError):
        run(network, torch.zeros(1, 1, 4, 4, 4))
    assert network.training


def test_a_size_that_a_network_cannot_take_is_told_by_the_multiple_that_it_needs():
    network = UNet(3, 1, 2, channels=(4, 8, 8), strides=(2, 2))
    with pytest.raises(ValueError, match=r"^network must have a size that is a multiple of 4 along axis 1, got \(8, 9, 12\)$"):
        run(network, torch.zeros(2, 1, 8, 9, 12))
    with pytest.raises(RuntimeError, match="channels"):  # the size is not at fault
        run(network, torch.zeros(2, 2, 8, 9, 12))


def test_a_grid_by_spacing_is_never_a_single_cell_of_the_deepest_level() -> None:
    stage = Stage((96, 96, 96), spacing_mm=4.0, multiple=16)
    assert stage.shape_of(Grid((20, 20, 30), spacing_mm=(1.0, 1.0, 1.0))) == (16, 16, 32)
    assert stage.shape_of(Grid((200, 20, 30), spacing_mm=(1.0, 1.0, 1.0))) == (64, 16, 16)
    assert Stage((16, 16, 16), spacing_mm=4.0, multiple=16).shape_of(Grid((20, 20, 30), spacing_mm=(1.0, 1.0, 1.0))) == (16, 16, 16)
