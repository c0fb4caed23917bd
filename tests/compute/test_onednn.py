"""Lone crops: convolutions of a batch of one run as those of a batch of two do; what they return, and all others, stay."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from stseg3d.compute import evaluating
from stseg3d.compute.onednn import LoneCrops

ONEDNN = "aten::mkldnn_convolution"
pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")


def operations(network, x):
    """Names of what PyTorch runs for ``network(x)``."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        network(x)
    return {event.name for event in seen.events()}


def test_a_lone_crop_takes_the_way_of_two():
    network, two = nn.Conv3d(2, 4, 3, padding=1), torch.randn(2, 2, 8, 8, 8)
    with evaluating(network):
        assert ONEDNN in operations(network, two)
        assert ONEDNN in operations(network, two[:1])


@pytest.mark.parametrize("options", [{"stride": 2, "padding": 1}, {"padding": (1, 0, 2)}, {"dilation": 2}, {"groups": 2}, {"bias": False}])
@pytest.mark.parametrize("kernel", [3, (3, 3, 1), (1, 1, 5)])
def test_it_returns_what_it_did(kernel, options):
    torch.manual_seed(0)
    network, x = nn.Conv3d(2, 4, kernel, **options).requires_grad_(requires_grad=False), torch.randn(1, 2, 8, 9, 10)
    plain = network(x)
    with LoneCrops():
        assert ONEDNN in operations(network, x)
        torch.testing.assert_close(network(x), plain)


@pytest.mark.parametrize(
    ("network", "x"),
    [
        (nn.Conv3d(2, 4, 3, padding="same"), torch.randn(1, 2, 8, 8, 8)),
        (nn.Conv3d(2, 4, 3, padding=1, padding_mode="replicate"), torch.randn(1, 2, 8, 8, 8)),
        (nn.Conv3d(2, 4, 1), torch.randn(1, 2, 8, 8, 8)),
        (nn.Conv3d(2, 4, 3).double(), torch.randn(1, 2, 8, 8, 8).double()),
        (nn.Conv3d(2, 4, 3), torch.randn(2, 8, 8, 8)),  # one image without a batch
        (nn.Conv3d(2, 4, 3), torch.randn(3, 2, 8, 8, 8)),
        (nn.Conv2d(2, 4, 3), torch.randn(1, 2, 8, 8)),
        (nn.ConvTranspose3d(2, 4, 3), torch.randn(1, 2, 8, 8, 8)),
    ],
    ids=["same", "replicate", "kernel of one", "float64", "no batch", "three", "2-D", "transposed"],
)
def test_all_others_stay_as_they_are(network, x):
    network.requires_grad_(requires_grad=False)
    plain = network(x)
    with LoneCrops():
        torch.testing.assert_close(network(x), plain, rtol=1e-5, atol=1e-5)


def test_a_function_called_by_names_stays_as_it_is():
    x, weight = torch.randn(1, 2, 8, 8, 8), torch.randn(4, 2, 3, 3, 3)
    with LoneCrops():
        found = nn.functional.conv3d(input=x, weight=weight, padding=1)
    torch.testing.assert_close(found, nn.functional.conv3d(x, weight, padding=1))


def test_where_onednn_is_switched_off_it_stays_off():
    network, x = nn.Conv3d(2, 4, 3).requires_grad_(requires_grad=False), torch.randn(1, 2, 8, 8, 8)
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        with LoneCrops():
            assert ONEDNN not in operations(network, x)
    finally:
        torch._C._set_mkldnn_enabled(before)


@pytest.mark.slow
def test_a_compiled_network_chooses_for_itself():
    network, x = nn.Conv3d(2, 4, 3).eval(), torch.randn(1, 2, 8, 8, 8)
    compiled = torch.compile(network, backend="eager")
    with evaluating(network):
        torch.testing.assert_close(compiled(x), network(x))


def test_autocast_goes_its_own_way():
    network, x = nn.Conv3d(2, 4, 3), torch.randn(1, 2, 8, 8, 8)
    with evaluating(network, "bfloat16"):
        assert network(x).dtype == torch.bfloat16
