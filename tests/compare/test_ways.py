"""Each way on networks that were trained for a moment: it is what the inferer does, and costs what is said."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from stseg3d.bundle import load_network, open_bundle, write_plan
from stseg3d.compare.runs import Run
from stseg3d.compare.ways import Contestant, multiply_adds
from stseg3d.inference import Stage
from stseg3d.ops import box_coverage
from stseg3d.volumes import Volume, open_volume
from tests.compare.conftest import SHAPE, Compared
from tests.tiny import UNET


@pytest.fixture
def contestant(compared: Compared) -> Contestant:
    return Contestant(compared.two_stage.folder)


@pytest.fixture
def volumes(compared: Compared) -> tuple[Volume, Volume]:
    folder = compared.data.parent
    return open_volume(folder / "image3.nii.gz"), open_volume(folder / "label3.nii.gz")


def macs_of_unet(size: tuple[int, ...], classes: int = 2) -> float:
    """Of the tiny UNet, by hand: a halving convolution, one at the bottom, and a doubling one of both; all on the halved grid."""
    first, second = UNET["channels"]
    cells = np.prod(size) / 8
    return float(27 * cells * (first + first * second + (first + second) * classes))


def test_rough_only_is_the_inferers_own(compared: Compared, contestant: Contestant, volumes: tuple[Volume, Volume]) -> None:
    network, parser = load_network(compared.two_stage.folder)
    found = contestant.segment("rough_only", *volumes)
    np.testing.assert_array_equal(found.labels, parser.get_parsed_content("inferer").rough_only(volumes[0], network))
    assert found.labels.any()
    assert found.boxes is None
    assert found.macs == 2 * macs_of_unet((16, 16, 16))  # mirrored along one axis
    assert set(found.seconds) == {"rough", "total"}


def test_two_stages_are_the_inferers_own(compared: Compared, contestant: Contestant, volumes: tuple[Volume, Volume]) -> None:
    network, parser = load_network(compared.two_stage.folder)
    twin = parser.get_parsed_content("inferer").segment(volumes[0], network)
    found = contestant.segment("two_stage", *volumes)
    np.testing.assert_array_equal(found.labels, twin.labels)
    assert found.labels.any()
    assert found.boxes == [b.box for b in twin.boxes]
    assert found.macs == (1 + twin.counts["crops"]) * 2 * macs_of_unet((16, 16, 16))
    assert {"rough", "fine", "total"} <= found.seconds.keys()


def test_rules_for_components_which_the_other_ways_lack_are_left_out(
    compared: Compared, contestant: Contestant, volumes: tuple[Volume, Volume], tmp_path: Path
) -> None:
    ruled = Path(shutil.copytree(compared.two_stage.folder, tmp_path / "ruled"))
    write_plan(ruled, open_bundle(ruled).require_plan().set({"output#min_volume_mm3": {"foreground": 1e6}}))
    network, parser = load_network(ruled)
    assert not parser.get_parsed_content("inferer").segment(volumes[0], network).labels.any()
    np.testing.assert_array_equal(Contestant(ruled).segment("two_stage", *volumes).labels, contestant.segment("two_stage", *volumes).labels)


def test_true_boxes_are_of_the_ground_truth(contestant: Contestant, volumes: tuple[Volume, Volume]) -> None:
    found = contestant.segment("true_boxes", *volumes)
    truth = volumes[1].read()[0]
    assert box_coverage(truth, found.boxes or []) >= box_coverage(truth, contestant.rough_boxes(volumes[0]))
    assert box_coverage(truth, found.boxes or []) == 1.0
    assert found.macs % contestant.fine_macs == 0  # and none of a rough network
    nothing = contestant.segment("true_boxes", volumes[0], Empty(volumes[1]))
    assert (nothing.boxes, nothing.macs, nothing.labels.any()) == ([], 0.0, False)


class Empty:
    """A label of nothing, on the grid of another."""

    def __init__(self, like: Volume) -> None:
        self.like = like

    def __getattr__(self, name: str) -> object:
        return getattr(self.like, name)

    def read(self, box: object = None) -> np.ndarray:
        return np.zeros_like(self.like.read() if box is None else self.like.read(box))  # type: ignore[arg-type]


def test_a_sliding_window_sees_all_of_the_image(compared: Compared, volumes: tuple[Volume, Volume]) -> None:
    contestant = Contestant(compared.sliding.folder)
    found = contestant.segment("sliding_window", *volumes)
    view = contestant.inferer.view(volumes[0])
    image = contestant.inferer.fine.prepare(np.ascontiguousarray(view.read(), np.float32))[None]
    with torch.inference_mode():
        logits = contestant.slide(image, contestant.network.fine)[0]
    np.testing.assert_array_equal(found.labels, view.restore(logits.argmax(0).numpy().astype(np.uint8)))
    assert found.labels.any()
    assert found.labels.shape == SHAPE
    windows = contestant.slide.windows(view.grid.shape)
    assert windows == 3 * 3 * 2
    assert found.macs == windows * 2 * macs_of_unet((16, 16, 16))
    assert found.boxes is None


def test_parameters_are_of_the_networks_that_run(contestant: Contestant) -> None:
    fine = sum(p.numel() for p in contestant.network.fine.parameters())
    counts = [contestant.parameters(way) for way in ("rough_only", "two_stage", "sliding_window", "true_boxes")]
    assert counts == [fine, 2 * fine, fine, fine]


@pytest.mark.parametrize(("axes", "runs"), [((), 1), ((0,), 2), ((0, 1), 4)])
@pytest.mark.parametrize("has_rough_channel", [False, True])
def test_multiply_adds_of_one_convolution(axes: tuple[int, ...], runs: int, has_rough_channel: bool) -> None:
    size, channels = (8, 6, 4), 3 + has_rough_channel
    network = nn.Conv3d(channels, 5, 3, padding=1)
    stage = Stage(size, mirror_axes=axes, rough_channel=has_rough_channel)
    assert multiply_adds(network, stage, 3) == runs * 8 * 6 * 4 * 27 * channels * 5


def test_networks_that_were_not_trained_are_not_compared(bundle: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"tiny_segmentation: the fine stage must be trained"):
        Contestant(bundle)


def test_a_run_of_the_rough_network_alone_needs_no_fine_weights(compared: Compared, volumes: tuple[Volume, Volume]) -> None:
    run = Run(compared.folder / "032" / "two_stage", 32, (32, 32, 32), "two_stage", ("rough",))
    found = Contestant(run.folder, "rough").segment("rough_only", *volumes)
    assert found.macs == 2 * macs_of_unet((32, 32, 32))
