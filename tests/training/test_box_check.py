"""Boxes against ground truth: a policy that loses the objects is refused before training, and a rough network that does is told."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from stseg3d.geometry import Box
from stseg3d.training.run import train_bundle
from tests.tiny import blocks, tiny_bundle, tiny_dataset

SHAPE = (24, 24, 24)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three cases with a block of 1,000 mm3 each."""
    return tiny_dataset(tmp_path / "data", [blocks(SHAPE, Box((4 + n, 6, 6), (14 + n, 16, 16))) for n in range(3)])


def test_a_policy_that_drops_every_object_is_refused_before_training(tmp_path: Path, data: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle", **{"policy#min_volume_mm3": 5000.0})
    told = r"boxes that the policy makes of the labels themselves hold 0% .* in 2 cases: 2 objects are smaller than min_volume_mm3=5000"
    with pytest.raises(ValueError, match=told):
        train_bundle(bundle, data, epochs=1, device="cpu")
    assert not (bundle / "models").exists()


def test_a_policy_that_drops_some_objects_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labels = [blocks(SHAPE, Box((2, 2, 2), (12, 12, 12)), Box((16, 16, 16), (21, 21, 21))) for _ in range(3)]
    bundle = tiny_bundle(tmp_path / "bundle", **{"policy#min_volume_mm3": 500.0, "policy#margin_mm": 0.0})
    with caplog.at_level(logging.WARNING):
        train_bundle(bundle, tiny_dataset(tmp_path / "data", labels), epochs=1, device="cpu")
    assert any("of the labels themselves hold 8" in text and "2 objects are smaller than" in text for text in caplog.messages)


def test_a_rough_network_that_finds_nothing_is_told_loudly(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []  # MONAI sets up logging anew before each stage
    monkeypatch.setattr("stseg3d.training.box_check.logger.warning", lambda text, *values: told.append(text % values))
    bundle = tiny_bundle(tmp_path / "bundle", **{"policy#threshold": 1.0, "training#learning_rate": {"rough": 1e-9, "fine": 1e-9}})
    train_bundle(bundle, data, epochs=1, device="cpu")
    assert any("boxes of the trained rough network hold 0%" in text and "THE FINE NETWORK CANNOT FIND" in text for text in told)


def test_a_case_without_objects_needs_no_box(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    empty = np.zeros(SHAPE, np.uint8)
    bundle = tiny_bundle(tmp_path / "bundle")
    with caplog.at_level(logging.WARNING):
        train_bundle(bundle, tiny_dataset(tmp_path / "data", [empty, empty, empty]), epochs=1, device="cpu")
    assert not any("labelled voxels" in text for text in caplog.messages)
