from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import UNet
from torch import Tensor, nn

from stseg3d.inference import Stage
from stseg3d.training import SlidingWindow, WholeCased
from stseg3d.volumes import OpenCase, as_volume

SHAPES = [(16, 16, 16), (8, 8, 8), (20, 16, 12), (37, 29, 16), (16, 8, 33), (33, 24, 1), (16, 16, 1), (9, 40, 1)]


def window_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(16 if n > 1 else 1 for n in shape)


class Counting(nn.Module):
    """A voxelwise network that knows how many windows went through it, and that is not symmetric in any axis."""

    def __init__(self) -> None:
        super().__init__()
        self.windows = 0

    def forward(self, x: Tensor) -> Tensor:
        self.windows += len(x)
        ramp = torch.arange(x[0, 0].numel(), dtype=x.dtype).reshape(x.shape[2:]) / 1000
        return torch.cat([x, x * ramp + ramp], dim=1)


@pytest.mark.parametrize("shape", SHAPES)
def test_windows_are_counted_as_monai_runs_them(shape: tuple[int, ...]) -> None:
    slide, network = SlidingWindow(Stage(window_of(shape)), "float32"), Counting()
    slide(torch.rand(1, 1, *shape), network)
    assert network.windows == slide.windows(shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_without_mirroring_it_is_monais_own(shape: tuple[int, ...]) -> None:
    image = torch.rand(1, 1, *shape)
    slide = SlidingWindow(Stage(window_of(shape), mirror_axes=[0]), precision="float32")
    own = SlidingWindowInferer(window_of(shape), sw_batch_size=4, overlap=0.25, mode="gaussian")
    assert torch.equal(slide(image, Counting()), own(image, Counting()))


def test_a_real_network_gives_the_same_too() -> None:
    torch.manual_seed(0)
    network = UNet(3, 1, 2, (4, 8), (2,)).eval()
    image = torch.rand(1, 1, 20, 24, 16)
    own = SlidingWindowInferer((16,) * 3, sw_batch_size=4, overlap=0.25, mode="gaussian")
    with torch.inference_mode():
        assert torch.equal(SlidingWindow(Stage((16,) * 3), precision="float32")(image, network), own(image, network))


def test_mirroring_is_the_mean_over_mirrored_windows() -> None:
    image, network = torch.rand(1, 1, 16, 16, 1), Counting()  # one window
    found = SlidingWindow(Stage((16, 16, 1), mirror_axes=[0, 1]), precision="float32", mirror=True)(image, network)
    twin = sum(network(image.flip(dims)).flip(dims) for dims in ([], [2], [3], [2, 3])) / 4
    torch.testing.assert_close(found, twin)
    assert not torch.allclose(found, network(image))


@pytest.mark.parametrize(("classes", "values"), [(2, {0, 1}), (3, {0, 1, 2})])
def test_a_whole_case_is_at_full_resolution(classes: int, values: set[int]) -> None:
    image, label = np.random.default_rng(0).random((5, 6, 7)), np.zeros((5, 6, 7), np.uint8)
    label[1, 1, 1:3] = 1, 2
    stage = Stage((16, 16, 16), transform=lambda x: x * 2)
    whole = WholeCased(stage, classes)({"case": OpenCase(as_volume(image), label)})
    assert whole["image"].shape == whole["label"].shape == (1, 5, 6, 7)
    np.testing.assert_allclose(whole["image"][0], 2 * image, rtol=1e-6)
    assert {int(v) for v in whole["label"].unique()} == values
    np.testing.assert_array_equal(whole["label"][0] > 0, label > 0)


def test_voxels_that_are_no_numbers_are_refused() -> None:
    image = np.full((4, 4, 4), np.nan, np.float32)
    with pytest.raises(ValueError, match="finite, got 64"):
        WholeCased(Stage((16, 16, 16)))({"case": OpenCase(as_volume(image), np.zeros((4, 4, 4), np.uint8))})
