"""The composite: one state dict for two networks, one of which runs."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import UNet
from torch import nn

from stseg3d.networks import RoughFineNet, SqueezeDepth

PARAMETERS = ("weight", "bias")


def composite(active="fine", rough_classes=2, fine_classes=3):
    torch.manual_seed(0)
    return RoughFineNet(nn.Conv3d(1, rough_classes, 1), nn.Conv3d(1, fine_classes, 3, padding=1), active)


def test_the_state_dict_names_stage_and_parameter():
    assert list(composite().state_dict()) == [f"{stage}.{name}" for stage in ("rough", "fine") for name in PARAMETERS]


@pytest.mark.parametrize(("active", "classes"), [("rough", 2), ("fine", 3)])
def test_the_active_network_runs_and_learns(active, classes):
    network = composite(active)
    x = torch.randn(2, 1, 4, 5, 6)
    y = network(x)
    torch.testing.assert_close(y, getattr(network, active)(x))
    assert y.shape == (2, classes, 4, 5, 6)
    y.sum().backward()
    learning = [name for name, p in network.named_parameters() if p.grad is not None]
    assert learning == [f"{active}.{name}" for name in PARAMETERS]
    assert {id(p) for p in network.active_parameters()} == {id(p) for p in getattr(network, active).parameters()}


def test_the_fine_network_is_active_by_default():
    assert RoughFineNet(nn.Identity(), nn.Identity()).active == "fine"


@pytest.mark.parametrize("active", ["", "both", "Rough"])
def test_another_stage_is_refused(active):
    with pytest.raises(ValueError, match=rf"active must be one of \('rough', 'fine'\), got '{active}'"):
        composite(active)


@pytest.mark.parametrize("active", ["rough", "fine"])
def test_the_composite_can_be_scripted(active):
    unet = UNet(spatial_dims=2, in_channels=1, out_channels=2, channels=(4, 8), strides=(2,))
    network = RoughFineNet(SqueezeDepth(unet), nn.Conv3d(1, 3, 1), active).eval()
    x = torch.randn(1, 1, 8, 8, 1)
    torch.testing.assert_close(torch.jit.script(network)(x), network(x))


# --- depth 1 -----------------------------------------------------------------


def test_squeezed_depth_is_the_2d_network():
    network = nn.Conv2d(2, 3, 3, padding=1)
    x = torch.randn(2, 2, 6, 5, 1)
    y = SqueezeDepth(network)(x)
    assert y.shape == (2, 3, 6, 5, 1)
    torch.testing.assert_close(y[..., 0], network(x[..., 0]))


@pytest.mark.parametrize("shape", [(1, 1, 6, 5, 2), (1, 1, 6, 5), (1, 6, 1)])
def test_squeezed_depth_refuses_any_other_depth(shape):
    with pytest.raises(ValueError, match=r"input must be of shape \(B, C, H, W, 1\), got \[1"):
        SqueezeDepth(nn.Identity())(torch.zeros(shape))
