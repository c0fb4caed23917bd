"""A bundle with six cases whose folds are "trained" in a moment: with weights of chance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from stseg3d.bundle import WEIGHTS, config_parser, open_bundle, remember_trained, save_weights
from stseg3d.geometry import Box
from stseg3d.planning.fingerprint import FILE as FINGERPRINT
from tests.planning.spheres import fingerprint_of
from tests.tiny import blocks, tiny_bundle, tiny_dataset

SHAPE = (20, 20, 20)
LABELS = [blocks(SHAPE, Box((4, 6, 4 + n), (10, 14, 10 + n))) for n in range(6)]


class Trainer:
    """Stands in for ``train_bundle``: writes weights of chance, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[Path, dict[str, Any]]] = []
        self.stops_after = 100

    def __call__(self, bundle: Path, data: Path, **options: Any) -> Path:
        if len(self.asked) == self.stops_after:
            raise KeyboardInterrupt
        self.asked.append((bundle, options))
        assert data == bundle / "data/dataset.json"
        torch.manual_seed(len(self.asked))
        opened = open_bundle(bundle)
        network = config_parser(opened, ["inference.json"]).get_parsed_content("network_def")
        (bundle / WEIGHTS).parent.mkdir(exist_ok=True)
        save_weights(network.state_dict(), bundle / WEIGHTS)
        remember_trained(bundle, opened.require_plan())
        return bundle / WEIGHTS

    @property
    def names(self) -> list[str]:
        return [f"{bundle.parent.name} {bundle.name}" for bundle, _ in self.asked]


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    found = Trainer()
    monkeypatch.setattr("stseg3d.selection.train.train_bundle", found)
    return found


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return tiny_dataset(tmp_path / "data", LABELS)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Two stages, mirrored along the first axis, for labels."""
    folder = tiny_bundle(tmp_path / "tiny_segmentation", output={"kind": "labels"}, **{"policy#max_components": 2})
    fingerprint_of(LABELS, {"1": "vertebral body"}).write(folder / FINGERPRINT)
    one = {"rough": None, "fine_policy#only_proposed": False}
    (folder / "candidates.json").write_text(json.dumps({"two_stages": {}, "one_stage": one}))
    return folder
