"""A plan that was changed in what its networks see since they were trained is refused, and no other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from stseg3d.bundle import PLAN, WEIGHTS, bundle_names, find_bundle, load_network, read_weights, save_weights
from stseg3d.bundle.trained import TRAINED


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    shutil.copytree(find_bundle("aorta_ct"), tmp_path / "bundle", ignore=shutil.ignore_patterns("docs", "logs", "stages"))
    return tmp_path / "bundle"


def change(bundle: Path, part: str, **entries: object) -> None:
    content = json.loads((bundle / PLAN).read_text())
    (content[part][0] if isinstance(content[part], list) else content[part]).update(entries)
    (bundle / PLAN).write_text(json.dumps(content))


@pytest.mark.parametrize("name", bundle_names())
def test_embedded_weights_were_trained_with_their_plan(name: str) -> None:
    assert (find_bundle(name) / TRAINED).is_file()
    load_network(find_bundle(name))


def test_another_normalization_than_that_of_training_is_refused(bundle: Path) -> None:
    change(bundle, "normalization", a_min=-1000)
    with pytest.raises(ValueError, match=r"plan\.json: normalization#0#a_min must be what the weights were trained with"):
        load_network(bundle)


def test_what_is_done_with_the_answer_may_change(bundle: Path) -> None:
    change(bundle, "policy", threshold=0.2)
    change(bundle, "output", kind="instances")
    load_network(bundle)


def test_of_other_weights_nothing_is_known(bundle: Path) -> None:
    change(bundle, "normalization", a_min=-1000)
    state = read_weights(bundle / WEIGHTS)
    save_weights({name: tensor * 2 for name, tensor in state.items()}, bundle / WEIGHTS)
    load_network(bundle)
