"""A bundle and scans so small that a case takes milliseconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from stseg3d.volumes import Case, list_cases
from tests.batch import fakes


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fakes.make_bundle(tmp_path_factory.mktemp("bundles") / "blocks_segmentation")


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    return fakes.make_scans(tmp_path / "scans")


@pytest.fixture
def cases(scans: Path) -> list[Case]:
    return list_cases([scans])
