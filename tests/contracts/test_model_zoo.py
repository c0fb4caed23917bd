"""The model zoo's verification of a bundle, step by step, as its continuous integration does it in mode "full".

Emulated: the script cannot be installed, and downloads. Read at
https://github.com/Project-MONAI/model-zoo/blob/17e7879cb1b464912fdc47c8cff6a5497f7cdc36/ci/verify_bundle.py.
Metadata against the schema, versions in the changelog, and input and output of both networks are in tests/bundles/test_bundles.py.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ckpt_export, verify_net_in_out

from stseg3d.bundle import bundle_names, find_bundle

# CONTRIBUTING.md of the model zoo: files above it are not committed, but named in large_files.yml.
LARGEST_BYTES = 25 * 2**20


@pytest.fixture(params=bundle_names())
def embedded(request: pytest.FixtureRequest) -> Path:
    return find_bundle(request.param)


def metadata(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "configs/metadata.json").read_text())
    return found


def test_necessary_and_preferred_files_are_there(embedded: Path) -> None:
    for name in ("configs/metadata.json", "LICENSE", "models/model.pt", "configs/inference.json", "docs/README.md"):
        assert (embedded / name).is_file(), name


def test_no_file_is_so_large_that_it_must_be_downloaded(embedded: Path) -> None:
    assert not list(embedded.glob("large_files.*"))
    assert max(path.stat().st_size for path in embedded.rglob("*") if path.is_file()) < LARGEST_BYTES


def test_the_name_tells_label_the_task_and_is_a_folder_anywhere(embedded: Path) -> None:
    assert re.fullmatch(r"[a-zA-Z0-9_]+_segmentation", embedded.name)


def test_versions_can_be_pinned_as_the_zoo_does(embedded: Path) -> None:
    """Its ``get_bundle_requirements.py`` makes ``name==version`` of each entry."""
    found = metadata(embedded)
    assert re.fullmatch(r"\d+\.\d+\.\d+", found["version"])
    pins = {name: found[f"{name}_version"] for name in ("monai", "pytorch", "numpy")} | found["required_packages_version"]
    assert {name for name, version in pins.items() if not re.fullmatch(r"\d+(\.\d+)+", version)} == set()
    assert "stseg3d" in pins


def test_no_app_asks_for_properties_of_its_own(embedded: Path) -> None:
    assert metadata(embedded)["supported_apps"] == {}


def test_no_path_of_one_machine_is_in_a_config(embedded: Path) -> None:
    for path in (embedded / "configs").glob("*.json"):
        assert re.findall(r'"(?:/|[A-Z]:\\|~)[^"]*"', path.read_text()) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # TorchScript, throughout
def test_shapes_and_torchscript_with_the_arguments_of_the_zoo(embedded: Path, tmp_path: Path) -> None:
    meta, config = str(embedded / "configs/metadata.json"), str(embedded / "configs/inference.json")
    verify_net_in_out(net_id="network_def", meta_file=meta, config_file=config, bundle_root=str(embedded))
    weights, out = str(embedded / "models/model.pt"), tmp_path / "verify_model.ts"
    ckpt_export(net_id="network_def", filepath=str(out), ckpt_file=weights, meta_file=meta, config_file=config, bundle_root=str(embedded))
    assert torch.jit.load(out)
