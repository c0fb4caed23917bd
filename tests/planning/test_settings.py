"""Numbers in configs: found through references, replaced in the text, and nothing else touched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from stseg3d.bundle import bundle_names, find_bundle
from stseg3d.planning.settings import margin_name, write_policy

INFERENCE = """{
    "shown": { "threshold" : 0.5,
               "sizes": [1, 2,   3] },
    "note": "a \\"threshold\\": 0.5 in a string, and a brace }",
    "boxes": {"_target_": "stseg3d.ops.BoxPolicy", "threshold": "@shown#threshold", "margin_mm": 6, "merge": false},
    "inferer": {"policy": "@boxes"}
}
"""
TRAIN = """{"policy": {"threshold": 0.50, "margin_mm": 6.0}, "epochs": 1e3}"""


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/inference.json").write_text(INFERENCE)
    (tmp_path / "configs/train.json").write_text(TRAIN)
    return tmp_path


def texts(bundle: Path) -> list[str]:
    return [(bundle / "configs" / name).read_bytes().decode() for name in ("inference.json", "train.json")]


def test_only_the_numbers_change(bundle: Path) -> None:
    written = write_policy(bundle, {"threshold": 0.2, "margin_mm": 8.0})
    assert written == [bundle / "configs/inference.json", bundle / "configs/train.json"]
    inference = INFERENCE.replace('"threshold" : 0.5', '"threshold" : 0.2').replace('"margin_mm": 6,', '"margin_mm": 8.0,')
    assert texts(bundle) == [inference, TRAIN.replace("0.50", "0.2").replace("6.0", "8.0")]
    assert sorted(p.name for p in (bundle / "configs").iterdir()) == ["inference.json", "train.json"]


def test_line_ends_and_permissions_stay(bundle: Path) -> None:
    path = bundle / "configs/inference.json"
    path.write_bytes(INFERENCE.replace("\n", "\r\n").encode())
    path.chmod(0o640)
    write_policy(bundle, {"threshold": 0.2})
    assert path.read_bytes().decode() == INFERENCE.replace('"threshold" : 0.5', '"threshold" : 0.2').replace("\n", "\r\n")
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_number_that_the_policy_lacks_is_added(bundle: Path) -> None:
    write_policy(bundle, {"margin_rough_voxels": 1.5})
    inference, train = texts(bundle)
    assert inference == INFERENCE.replace('"boxes": {"_', '"boxes": {"margin_rough_voxels": 1.5,"_')
    assert json.loads(train)["policy"] == {"margin_rough_voxels": 1.5, "threshold": 0.5, "margin_mm": 6.0}
    (bundle / "configs/train.json").write_text('{"policy": { }}')
    write_policy(bundle, {"threshold": 0.3})
    assert json.loads(texts(bundle)[1]) == {"policy": {"threshold": 0.3}}


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ('{"policy": {"threshold": "$0.1 + 0.2"}}', r"train\.json: policy#threshold must be a number .*got '\$0\.1 \+ 0\.2'"),
        ('{"policy": "$make_policy()"}', r"train\.json: policy must be an object.*got '\$make_policy\(\)'"),
        ('{"policies": {}}', r"train\.json: config must have the entry 'policy'"),
        ('{"policy": "@gone#policy"}', r"train\.json: config must have the entry 'gone'"),
    ],
)
def test_what_cannot_be_written_leaves_both_files_alone(bundle: Path, train: str, message: str) -> None:
    (bundle / "configs/train.json").write_text(train)
    with pytest.raises(ValueError, match=message):
        write_policy(bundle, {"threshold": 0.2})
    assert texts(bundle) == [INFERENCE, train]


def test_a_bundle_that_is_not_trained_here_needs_no_training_config(bundle: Path) -> None:
    (bundle / "configs/train.json").unlink()
    assert write_policy(bundle, {"threshold": 0.2}) == [bundle / "configs/inference.json"]


def test_the_margin_is_in_mm_where_the_policy_names_one(bundle: Path) -> None:
    assert margin_name(bundle) == "margin_mm"
    (bundle / "configs/inference.json").write_text(INFERENCE.replace('"margin_mm": 6, ', ""))
    assert margin_name(bundle) == "margin_rough_voxels"


@pytest.mark.parametrize("name", bundle_names())
def test_embedded_bundles_can_be_written_once_copied(name: str, tmp_path: Path) -> None:
    shutil.copytree(find_bundle(name) / "configs", tmp_path / "configs")
    before = texts(tmp_path)
    write_policy(tmp_path, {"threshold": 0.125, margin_name(tmp_path): 0.625})
    for old, new in zip(before, texts(tmp_path), strict=True):
        changed = [line for a, line in zip(old.splitlines(), new.splitlines(), strict=True) if a != line]
        assert [line.strip().rstrip(",").split(": ")[1] for line in changed] == ["0.125", "0.625"]
