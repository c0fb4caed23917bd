"""Sizes: networks must give back the size that they are given, also on short axes, and those that do not are caught."""

from __future__ import annotations

import re

import pytest
import torch
from monai.networks.nets import AttentionUnet, SegResNet, UNet
from torch import nn

from stseg3d.networks import SqueezeDepth, check_same_size

# The three every architecture has to take: a cube, a slice, and a slab whose axes differ.
SIZES = [(32, 32, 32), (32, 32, 1), (32, 24, 8)]


def squeezed(size):
    network = UNet(2, 1, 2, channels=(4, 8, 8), strides=(2, 2))
    return SqueezeDepth(network) if size[-1] == 1 else UNet(3, 1, 2, channels=(4, 8, 8), strides=(2, 2))


@pytest.mark.parametrize("size", SIZES)
def test_the_classes_are_counted_of_what_returns_its_size(size):
    assert check_same_size(squeezed(size), size) == 2


# --- what is caught ----------------------------------------------------------


def attention_unet():
    return AttentionUnet(spatial_dims=3, in_channels=1, out_channels=2, channels=(4, 8, 8, 8), strides=(2, 2, 2))


def seg_res_net():
    return SegResNet(spatial_dims=3, init_filters=8, in_channels=1, out_channels=2)


@pytest.mark.parametrize("make", [attention_unet, seg_res_net])
def test_networks_that_turn_one_slice_into_eight_are_caught(make):
    """Both come with MONAI and return depth 8 for depth 1 without a word."""
    rule = "fine network must return the size it is given, (32, 32, 1) became (32, 32, 8): set strides of 1 along short axes"
    with pytest.raises(ValueError, match=re.escape(rule)):
        check_same_size(make(), (32, 32, 1), name="fine network")
    assert check_same_size(make(), (32, 32, 32)) == 2


def test_networks_that_cut_an_odd_size_are_caught():
    with pytest.raises(ValueError, match=r"^network must have a size that is a multiple of 2 along axes 0, 1, 2, got \(9, 9, 9\)$"):
        check_same_size(nn.Sequential(nn.MaxPool3d(2), nn.Upsample(scale_factor=2)), (9, 9, 9))


@pytest.mark.parametrize(
    ("strides", "size", "rule"),
    [
        ((2, 2), (9, 32, 32), "4 along axis 0"),
        ((2, 2), (30, 32, 33), "4 along axes 0, 2"),
        ((2, 2, 2), (33, 32, 32), "8 along axis 0"),
        (((2, 2, 1), (2, 2, 1)), (9, 9, 9), "4 along axes 0, 1"),
    ],
)
def test_networks_that_fail_on_a_size_say_of_what_it_must_be_a_multiple(strides, size, rule):
    network = UNet(3, 1, 2, channels=(4, 8, 8, 8)[: len(strides) + 1], strides=strides)
    with pytest.raises(ValueError, match=re.escape(f"rough network must have a size that is a multiple of {rule}, got {size}")):
        check_same_size(network, size, name="rough network")
    assert network.training


def test_networks_that_fail_on_any_size_say_so_in_one_line():
    with pytest.raises(ValueError, match=r"^fine network must take an input of \(9, 32, 32\) with 1 channels, it failed: [^\n]+$"):
        check_same_size(nn.Conv3d(2, 4, 1), (9, 32, 32), name="fine network")


def test_the_number_of_channels_is_tried_too():
    network = nn.Conv3d(2, 4, 1)
    assert check_same_size(network, (4, 4, 4), in_channels=2) == 4
    with pytest.raises(ValueError, match=r"network must take an input of \(4, 4, 4\) with 1 channels"):
        check_same_size(network, (4, 4, 4))


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_left_as_it_was(training):
    network = nn.Sequential(nn.Conv3d(1, 2, 1), nn.BatchNorm3d(2)).train(training)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    check_same_size(network, (4, 4, 4))
    assert network.training is training
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name])


def test_a_network_without_parameters_can_be_checked():
    assert check_same_size(nn.Identity(), (4, 4, 1), in_channels=3) == 3
