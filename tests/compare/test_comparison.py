from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from stseg3d.compare.comparison import Comparison, Score
from stseg3d.compare.means import difference_of
from tests.compare.made_up import all_ways, made_up, score


def full() -> Comparison:
    found = all_ways(cases=3)
    found.scores[0] = replace(found.scores[0], coverage=math.nan, values={"dice": 0.5, "object_iou": math.nan})
    found.parameters = {"two_stage": 2_000_000}
    found.downscaling = {32: 7.0, 64: math.nan}
    found.training_seconds = {"rough_32": 12.5}
    found.notes = ["Checkpoints were chosen on these cases."]
    return found


def test_saved_and_loaded_it_is_the_same_and_nan_survives(tmp_path):
    found = full()
    path = found.save(tmp_path / "results.json")
    again = Comparison.load(path)
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]
    assert again.as_dict() == found.as_dict()
    assert again.scores[1:] == found.scores[1:]
    assert math.isnan(again.scores[0].coverage)
    assert math.isnan(again.scores[0].values["object_iou"])
    assert math.isnan(again.object_share)
    assert again.downscaling[32] == 7
    assert math.isnan(again.downscaling[64])


def test_the_file_is_plain_json_even_with_numbers_of_numpy(tmp_path):
    one = Score("a", "two_stage", (32, 32, 1), 32, {"dice": np.float32(0.5)}, macs=np.float64(2), boxes=np.int64(3))
    path = Comparison("b", "d", scores=[one]).save(tmp_path / "results.json")
    content = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert content["scores"][0]["values"] == {"dice": 0.5}
    assert content["scores"][0]["boxes"] == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(version=0), "version must be 1, got 0"),
        (lambda c: c.update(colour="red"), "comparison must have the names"),
        (lambda c: c.pop("notes"), "comparison must have the names"),
        (lambda c: c["scores"][0].pop("macs"), "score must have the names"),
        (lambda c: c["scores"][0].update(way="guess"), "way must be one of rough_only, two_stage, sliding_window, true_boxes, got 'guess'"),
        (lambda c: c["scores"].append(c["scores"][0]), "each case, way and size once"),
        (lambda c: c["scores"][0]["values"].update(dice="good"), "could not convert"),
    ],
)
def test_what_is_no_comparison_is_refused_by_name(tmp_path, change, message):
    content = full().as_dict()
    change(content)
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as error:
        Comparison.load(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "7", "{"])
def test_other_files_are_refused(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"results\.json: file must be a comparison"):
        Comparison.load(path)


def test_sizes_ways_and_cases_are_in_order():
    found = made_up({("two_stage", 64): 0.8, ("rough_only", 32): 0.7, ("two_stage", 32): 0.8}, cases=2)
    assert (found.sizes, found.ways, found.cases) == ([32, 64], ["rough_only", "two_stage"], ["case_00", "case_01"])
    assert [(size, way, len(scores)) for size, way, scores in found.groups()] == [
        (32, "rough_only", 2),
        (32, "two_stage", 2),
        (64, "two_stage", 2),
    ]


def test_differences_are_of_cases_with_both_values():
    dice = {"two_stage": {"a": 0.9, "b": 0.8, "c": math.nan, "d": 0.7}, "rough_only": {"b": 0.5, "a": 0.6, "c": 0.4, "e": 0.3}}
    found = Comparison("b", "d", scores=[score(case, way, 32, d) for way, cases in dice.items() for case, d in cases.items()])
    difference = difference_of(found, "dice", ("two_stage", 32), ("rough_only", 32))
    assert difference is not None
    assert (difference.interval.n, difference.interval.mean) == (2, pytest.approx(0.3))
    assert difference_of(found, "dice", ("two_stage", 32), ("rough_only", 64)) is None


def test_values_and_costs_by_name():
    one = score("a", "two_stage", 32, 0.9, macs=3e9)
    assert [one.value(n) for n in ("dice", "coverage", "gmacs", "boxes", "seconds", "peak_mib")] == [0.9, 0.99, 3, 2, 0.7, 512]
    assert replace(one, seconds={"read": 0.5, "rough": 0.25}).value("seconds") == 0.75
    assert all(
        math.isnan(v)
        for v in (one.value("unknown"), replace(one, peak_memory_bytes=0).value("peak_mib"), replace(one, seconds={}).value("seconds"))
    )
