"""A plan of one stage: no rough network in configs, weights, training or inference; the fine one sees all of the volume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from stseg3d.bundle import PLAN, WEIGHTS, find_bundle, load_network, render_bundle, write_plan
from stseg3d.cli import main
from stseg3d.geometry import Box, Grid
from stseg3d.inference import FinePolicy, SegmentThenSegmentInferer, Stage
from stseg3d.networks import RoughFineNet
from stseg3d.ops import BoxPolicy
from stseg3d.plan import Plan
from stseg3d.training.run import train_bundle
from stseg3d.volumes import ArrayVolume
from tests.inference.fakes import Threshold
from tests.tiny import blocks, tiny_bundle, tiny_dataset

SHAPE = (20, 20, 20)


def one_stage(plan: Plan) -> Plan:
    content = plan.as_json(whole=True)
    del content["rough"]
    content["fine_policy"]["only_proposed"] = False
    content["output"] = {"kind": "labels"}
    return Plan.from_json(content)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tiny_bundle(tmp_path / "bundle")
    write_plan(folder, one_stage(Plan.parse((folder / PLAN).read_bytes())))
    return folder


def test_a_bundle_of_one_stage_is_trained_and_segments(bundle: Path, tmp_path: Path) -> None:
    data = tiny_dataset(tmp_path / "data", [blocks(SHAPE, Box((3, 3, 3), (13, 13, 13))) for _ in range(3)])
    assert train_bundle(bundle, data, epochs=20, device="cpu") == bundle / WEIGHTS
    assert all(name.startswith("fine.") for name in torch.load(bundle / WEIGHTS, weights_only=True))
    load_network(bundle)
    assert main(["segment", str(data.parent / "image2.nii.gz"), "--bundle", str(bundle), "-o", str(tmp_path / "out")]) == 0
    assert main(["segment", str(data.parent / "image2.nii.gz"), "--bundle", str(bundle), "-o", str(tmp_path / "o"), "--rough-only"]) != 0


def test_configs_of_a_rough_stage_go_with_it(bundle: Path) -> None:
    assert not (bundle / "configs/train_rough.json").exists()
    write_plan(bundle, Plan.parse((find_bundle("vertebrae_mr") / PLAN).read_bytes()))
    assert (bundle / "configs/train_rough.json").exists()
    plan = Plan.parse((bundle / PLAN).read_bytes())
    (bundle / PLAN).write_text(__import__("json").dumps(one_stage(plan).as_json()))
    render_bundle(bundle)
    assert not (bundle / "configs/train_rough.json").exists()


@pytest.mark.parametrize(
    ("entry", "value"), [("fine#rough_channel", True), ("training#target", "component"), ("fine_policy#only_proposed", True)]
)
def test_what_needs_a_rough_stage_is_refused_without_one(bundle: Path, entry: str, value: object) -> None:
    with pytest.raises(ValueError, match="needs a rough stage, and the plan has none"):
        Plan.parse((bundle / PLAN).read_bytes()).set({entry: value})


@pytest.mark.parametrize("limit", [None, 1.0])
def test_the_whole_volume_is_seen_at_once_or_in_tiles(limit: float | None) -> None:
    image = np.zeros((1, 30, 20, 10), np.float32)
    image[0, 25:, 3:9, 2:6] = 100
    policy = BoxPolicy(max_downscale=limit, tile_overlap=0.5)
    inferer = SegmentThenSegmentInferer(None, Stage((10, 10, 10) if limit else (30, 20, 10)), policy, FinePolicy(border_growth=0))
    found = inferer.segment(ArrayVolume(image, Grid(image.shape[1:])), RoughFineNet(None, Threshold(50)))
    np.testing.assert_array_equal(found.labels, image[0] > 50)
    assert len(found.boxes) == (15 if limit else 1)
    assert not found.warnings


def test_the_rough_network_alone_is_refused(bundle: Path) -> None:
    inferer = SegmentThenSegmentInferer(None, Stage((8, 8, 8)))
    with pytest.raises(ValueError, match="must have a rough stage in the plan"):
        inferer.rough_only(ArrayVolume(np.zeros((1, 8, 8, 8), np.float32), Grid((8, 8, 8))), RoughFineNet(None, Threshold()))
    assert main(["calibrate", str(bundle), "--data", "none.json"]) == 2
