"""A bundle and a data set so small that a comparison takes seconds, and one that was made of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from stseg3d.compare import Comparison, compare
from stseg3d.compare.runs import SLIDING, TWO_STAGE, Run
from stseg3d.geometry import Box
from tests.tiny import blocks, tiny_bundle, tiny_dataset

SHAPE = (40, 32, 24)


@dataclass(frozen=True)
class Compared:
    """A comparison at 16, with the rough network alone at 32, in a folder."""

    bundle: Path
    data: Path
    folder: Path
    comparison: Comparison

    def run(self, kind: str) -> Run:
        stages = ("fine",) if kind == SLIDING else ("rough", "fine")
        return Run(self.folder / "016" / kind, 16, (16, 16, 16), kind, stages)

    @property
    def two_stage(self) -> Run:
        return self.run(TWO_STAGE)

    @property
    def sliding(self) -> Run:
        return self.run(SLIDING)


def make_dataset(folder: Path) -> Path:
    """Four small volumes, each with two bright blocks; two to train, two to validate."""
    boxes = [(Box((6, 6, 4 + n), (18, 20, 12 + n)), Box((24, 10, 10), (34, 24, 18))) for n in range(4)]
    return tiny_dataset(folder, [blocks(SHAPE, *two) for two in boxes])


@contextmanager
def restored_logging() -> Iterator[None]:
    """Training sets up the root logger, with a stream that pytest closes after the test."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    with restored_logging():
        yield


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "tiny_segmentation")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "data")


@pytest.fixture(scope="session")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    """Made once; a test that writes takes a copy."""
    root = tmp_path_factory.mktemp("compared")
    bundle, data, folder = tiny_bundle(root / "tiny_segmentation"), make_dataset(root / "data"), root / "out"
    with restored_logging():
        comparison = compare(bundle, data, folder, sizes=[16], rough_sizes=[32], epochs=6, device="cpu", alone=False)
    return Compared(bundle, data, folder, comparison)
