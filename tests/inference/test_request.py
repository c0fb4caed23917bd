"""Requests: what is asked of the config, what labels depend on, and what other processes are given."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from stseg3d.bundle import PLAN, find_bundle, open_bundle
from stseg3d.inference import Request
from stseg3d.plan import json_text

WANTED = Request(find_bundle("aorta_ct_segmentation"), Path("out"))
# Another value of each field on which labels depend.
OTHER: dict[str, Any] = {
    "output": "instances",
    "precision": "bfloat16",
    "runtime": "openvino",
    "batch_size": 2,
    "rough_only": True,
    "mask": Path("mask.nii"),
    "boxes": Path("boxes.json"),
    "keep_rough": True,
    "series": "1.2",
    "overrides": {"policy#threshold": 0.2},
}
ELSEWHERE: dict[str, Any] = {"output_dir": Path("other"), "device": "cpu", "threads": 2, "trust": True}


def test_options_are_entries_of_the_config() -> None:
    assert WANTED.entries == {}
    asked = replace(WANTED, output="labels", precision="auto", runtime="torch", batch_size=2, overrides={"policy#threshold": 0.2})
    assert asked.entries == {
        "policy#threshold": 0.2,
        "output#kind": "labels",
        "execution#precision": "auto",
        "execution#runtime": "torch",
        "displayable_configs#batch_size": 2,
    }


def test_its_digest_tells_what_labels_depend_on_and_nothing_else() -> None:
    assert {"bundle", *OTHER, *ELSEWHERE} == {f.name for f in fields(Request)}
    digests = [replace(WANTED, **{name: value}).digest for name, value in OTHER.items()]
    assert len({WANTED.digest, *digests}) == len(OTHER) + 1
    assert replace(WANTED, **ELSEWHERE).digest == WANTED.digest
    assert replace(WANTED, bundle=find_bundle("nuclei_segmentation")).digest != WANTED.digest


def test_another_process_is_given_the_same() -> None:
    asked = replace(WANTED, mask=Path("mask.nii"))
    assert pickle.loads(pickle.dumps(asked)) == asked
    found = asked.absolute()
    assert (found.output_dir, found.mask, found.bundle) == (Path.cwd() / "out", Path.cwd() / "mask.nii", WANTED.bundle)
    assert replace(found, output_dir=asked.output_dir, mask=asked.mask) == asked


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"output": "mask"}, r"^output must be one of \('labels', 'instances', 'probabilities'\), got 'mask'$"),
        ({"precision": "half"}, "^precision must be one of .*, got 'half'$"),
        ({"runtime": "onnx"}, r"^runtime must be one of \('torch', 'openvino'\), got 'onnx'$"),
        ({"mask": Path("m"), "boxes": Path("b")}, "^mask and boxes cannot both say where to look, got m and b$"),
        ({"rough_only": True, "mask": Path("m")}, "^rough_only asks the rough network where to look, got m too$"),
        ({"rough_only": True, "output": "instances"}, "^rough_only gives labels, got output='instances' too$"),
    ],
)
def test_unknown_words_and_contradictions_are_refused(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        replace(WANTED, **options)


def test_a_request_knows_of_an_edited_plan_before_it_is_rendered(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(find_bundle("nuclei"), bundle, ignore=shutil.ignore_patterns("docs", "logs", "stages"))
    before = Request(bundle).digest
    plan = open_bundle(bundle).require_plan()
    (bundle / PLAN).write_text(json_text(plan.set({"policy#threshold": 0.1}).as_json()))
    edited = Request(bundle).digest
    open_bundle(bundle)  # renders
    assert before != edited == Request(bundle).digest
