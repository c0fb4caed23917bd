"""A bundle and a data set so small that a training takes seconds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stseg3d.geometry import Box
from stseg3d.training.run import train_bundle
from tests.tiny import blocks, tiny_bundle, tiny_dataset

SHAPE = (24, 24, 24)


def make_bundle(folder: Path) -> Path:
    """See :func:`tiny_bundle`; validates each epoch."""
    return tiny_bundle(folder / "tiny_segmentation", validate_every={"rough": 1, "fine": 1})


def make_dataset(folder: Path) -> Path:
    """Three small volumes, each with two bright blocks."""
    boxes = [(Box((4, 6, 4 + n), (10, 16, 12 + n)), Box((14, 6, 10), (20, 16, 18))) for n in range(3)]
    return tiny_dataset(folder / "data", [blocks(SHAPE, *two) for two in boxes])


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return make_dataset(tmp_path)


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    bundle = make_bundle(folder)
    train_bundle(bundle, make_dataset(folder), epochs=1, device="cpu")
    return bundle


@pytest.fixture
def trained(trained_once: Path, tmp_path: Path) -> Path:
    """The bundle after an epoch of both stages; a copy, which may be written to."""
    return Path(shutil.copytree(trained_once, tmp_path / "trained_segmentation"))
