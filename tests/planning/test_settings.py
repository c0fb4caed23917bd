"""Numbers of the policy in a plan, and in all that is rendered from it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from stseg3d.bundle import PLAN, UntrustedError, bundle_names, find_bundle, read_bundle
from stseg3d.planning.settings import margin_name, write_policy
from tests.tiny import read_config


@pytest.fixture(params=bundle_names())
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    shutil.copytree(find_bundle(request.param) / "configs", tmp_path / "configs")
    return tmp_path


def test_the_numbers_change_and_nothing_else(bundle: Path) -> None:
    before = (bundle / PLAN).read_text().splitlines()
    written = write_policy(bundle, {"threshold": 0.125, margin_name(bundle): 0.625})
    assert [path.name for path in written] == ["plan.json", "inference.json", "train.json"]
    changed = [new for old, new in zip(before, (bundle / PLAN).read_text().splitlines(), strict=True) if old != new]
    assert [line.strip() for line in changed] == ['"threshold": 0.125,', f'"{margin_name(bundle)}": 0.625,']
    assert read_bundle(bundle).stale == ()
    for name in ("inference.json", "train.json"):
        policy = read_config(bundle, name).get_parsed_content("policy")
        assert (policy.threshold, getattr(policy, margin_name(bundle))) == (0.125, 0.625)


def test_a_number_that_the_policy_lacks_is_added(bundle: Path) -> None:
    write_policy(bundle, {"max_spacing_mm": 3.5})
    assert json.loads((bundle / PLAN).read_text())["policy"]["max_spacing_mm"] == 3.5


def test_a_number_out_of_range_leaves_all_files_alone(bundle: Path) -> None:
    before = {path: path.read_bytes() for path in (bundle / "configs").iterdir()}
    with pytest.raises(ValueError, match="threshold must be in"):
        write_policy(bundle, {"threshold": 2.0})
    assert {path: path.read_bytes() for path in (bundle / "configs").iterdir()} == before


def test_a_bundle_without_a_plan_is_not_written(bundle: Path) -> None:
    (bundle / PLAN).unlink()
    with pytest.raises(UntrustedError):
        write_policy(bundle, {"threshold": 0.2})
    with pytest.raises(ValueError, match=r"must have configs/plan\.json and configs that are rendered from it"):
        write_policy(bundle, {"threshold": 0.2}, trust=True)


def test_the_margin_is_in_mm_where_the_policy_names_one(bundle: Path) -> None:
    assert margin_name(bundle) == "margin_mm"
    content = json.loads((bundle / PLAN).read_text())
    del content["policy"]["margin_mm"]
    (bundle / PLAN).write_text(json.dumps(content))
    assert margin_name(bundle) == "margin_rough_voxels"
