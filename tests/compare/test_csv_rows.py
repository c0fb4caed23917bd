from __future__ import annotations

import csv
import math

import pytest

from stseg3d.compare.csv_rows import difference_rows, score_rows, summary_rows
from stseg3d.compare.write import write_tables
from tests.compare.made_up import all_ways, made_up


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_csv_files_hold_what_the_comparison_holds(tmp_path):
    found = made_up({("rough_only", 32): 0.7, ("two_stage", 32): 0.8}, cases=3)
    found.scores[0].values["dice"] = math.nan
    paths = write_tables(found, tmp_path)
    assert [p.name for p in paths] == ["scores.csv", "summary.csv", "differences.csv", "summary.md"]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in paths)
    scores = read(paths[0])
    assert [row["dice"] for row in scores] == ["", *(str(s.values["dice"]) for s in found.scores[1:])]
    assert {row["rough_s"] for row in scores} == {"0.1"}
    means = {(row["way"], row["value"]): row for row in read(paths[1])}
    assert means["rough_only", "dice"]["left_out"] == "1"
    assert float(means["two_stage", "dice"]["mean"]) == pytest.approx(0.8)
    [change] = [row for row in read(paths[2]) if row["value"] == "dice"]
    assert (change["way"], change["minus_way"], change["cases"]) == ("two_stage", "rough_only", "2")


def test_rows_are_one_for_each_score_value_and_pair():
    found = all_ways((32, 64), cases=3)
    assert len(score_rows(found)) == len(found.scores)
    assert len(summary_rows(found)) == 8 * (5 + 5)  # ways at sizes, metrics and costs
    assert len(difference_rows(found)) == 7 * 5


def test_without_differences_the_files_are_there_and_empty(tmp_path):
    found = made_up({("two_stage", 32): 0.8}, cases=2)
    assert read(write_tables(found, tmp_path)[2]) == []
