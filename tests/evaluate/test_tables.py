from __future__ import annotations

import csv
import io
import json
from math import nan

import pytest

from stseg3d.evaluate import Row, dump, summarise, table
from stseg3d.metrics import METRICS

VALUES = dict.fromkeys(METRICS, 0.5)
ROWS = [
    Row("a", "foreground", VALUES | {"dice": 0.25, "objects_found": 3, "volume_difference": nan}, 7, 0),
    Row("b", "foreground", VALUES | {"dice": 0.75, "objects_found": 4, "hd95_mm": 123.456}, 7, 8),
]


def test_the_table_has_what_a_terminal_has_room_for_and_notes() -> None:
    lines = table(ROWS, summarise(ROWS)).splitlines()
    assert max(map(len, lines)) <= 140
    head = lines[0].split()
    assert head[:3] == ["case", "class", "dice"]
    cells = {line.split()[0]: dict(zip(head, line.split(), strict=True)) for line in lines[1:6]}
    assert list(cells) == ["a", "b", "mean", "ci_low", "ci_high"]
    assert (cells["b"]["dice"], cells["b"]["hd95_mm"], cells["b"]["objects_found"]) == ("0.7500", "123.46", "4")
    assert (cells["mean"]["dice"], cells["mean"]["objects_found"]) == ("0.5000", "3.5000")
    assert (cells["ci_low"]["dice"], cells["ci_high"]["dice"]) == ("0.2500", "0.7500")
    assert lines[6:] == [
        "ci_low to ci_high: 95% interval of the mean over cases, 10000 bootstrap resamples (expanded percentile)",
        "foreground: in 1 of 2 cases only the label is empty; distances are the image's diagonal",
        "foreground: undefined and left out of the mean: volume_difference in 1 of 2 cases",
    ]


def test_one_case_has_no_interval() -> None:
    text = table(ROWS[1:], summarise(ROWS[1:]))
    assert "ci_" not in text
    assert len(text.splitlines()) == 3


def test_without_objects_there_are_no_columns_of_them() -> None:
    row = Row("a", "foreground", {"dice": 1.0}, 1, 1)
    assert table([row], summarise([row])).splitlines()[0].split() == ["case", "class", "dice"]


def test_json_has_everything_and_null_for_what_is_undefined() -> None:
    found = json.loads(dump(ROWS, summarise(ROWS), ".json", failed={"c": "broken"}, settings={"tolerance_mm": 2.0}))
    bootstrap = {"resamples": 10_000, "level": 0.95, "method": "expanded percentile"}
    assert found["settings"] == {"tolerance_mm": 2.0, "bootstrap": bootstrap}
    assert [case["case"] for case in found["cases"]] == ["a", "b"]
    assert set(METRICS) < set(found["cases"][0])
    assert found["cases"][0]["volume_difference"] is None
    assert found["failed"] == {"c": "broken"}
    (summary,) = found["summary"]
    assert (summary["class"], summary["cases"], summary["n_empty_label"], summary["n_empty_prediction"]) == ("foreground", 2, 1, 0)
    assert list(summary["metrics"]) == list(METRICS)
    assert list(summary["metrics"]["dice"]) == ["mean", "median", "sd", "ci_low", "ci_high", "n", "n_undefined"]
    assert (summary["metrics"]["dice"]["mean"], summary["metrics"]["volume_difference"]["n_undefined"]) == (0.5, 1)


def test_csv_has_a_line_a_case_a_statistic_and_a_failure() -> None:
    found = list(csv.DictReader(io.StringIO(dump(ROWS, summarise(ROWS), ".csv", failed={"c": "broken"}))))
    assert [line["case"] for line in found] == ["a", "b", "mean", "median", "sd", "ci_low", "ci_high", "n", "n_undefined", "c"]
    assert set(METRICS) < set(found[0])
    assert (found[0]["volume_difference"], found[2]["dice"], found[-2]["volume_difference"]) == ("nan", "0.5", "1")
    assert (found[-1]["error"], found[-1]["dice"]) == ("broken", "")


def test_other_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"written as \.csv or \.json, got '\.txt'"):
        dump(ROWS, summarise(ROWS), ".txt")
