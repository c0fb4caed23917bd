"""A bundle and a data set so small that a training takes seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from stseg3d.geometry import Box
from tests.tiny import blocks, tiny_bundle, tiny_dataset

SHAPE = (24, 24, 24)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """See :func:`tiny_bundle`; validates each epoch."""
    return tiny_bundle(tmp_path / "tiny_segmentation", validate_every={"rough": 1, "fine": 1})


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Three small volumes, each with two bright blocks."""
    boxes = [(Box((4, 6, 4 + n), (10, 16, 12 + n)), Box((14, 6, 10), (20, 16, 18))) for n in range(3)]
    return tiny_dataset(tmp_path / "data", [blocks(SHAPE, *two) for two in boxes])
