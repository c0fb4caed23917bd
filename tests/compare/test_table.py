from __future__ import annotations

import csv
import math

import pytest

from stseg3d.compare.results import Comparison
from stseg3d.compare.sheets import difference_rows, score_rows, summary_rows, write_tables
from stseg3d.compare.table import (
    Table,
    cost_table,
    difference_table,
    score_table,
    show,
    show_signed,
    summary_markdown,
    summary_text,
    terminal_table,
)
from stseg3d.evaluate import Interval, bootstrap_interval, paired_difference
from stseg3d.metrics import METRICS
from tests.compare.made_up import all_ways, made_up, score


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def column(table: Table, title: str) -> list[str]:
    return [row[table.head.index(title)] for row in table.rows]


def test_a_row_for_each_size_and_way_with_mean_and_interval():
    found = made_up({("rough_only", 32): 0.7, ("two_stage", 32): 0.8, ("two_stage", 64): 0.9}, cases=6)
    table = score_table(found)
    assert [row[:3] for row in table.rows] == [["32", "rough only", "6"], ["32", "two stages", "6"], ["64", "two stages", "6"]]
    dice = bootstrap_interval(found.values("dice", "two_stage", 64))
    assert column(table, "Dice")[2] == f"0.900 ({dice.low:.3f} to {dice.high:.3f})"
    assert column(table, "Coverage")[0].startswith("0.990")


def test_differences_are_paired_and_of_the_four_kinds():
    found = all_ways((32, 64), cases=6)
    table = difference_table(found)
    assert [(of, minus) for of, minus, *_ in table.rows] == [
        ("two stages at 32", "rough only at 32"),
        ("two stages at 64", "rough only at 64"),
        ("two stages at 32", "rough only at 64"),
        ("two stages at 32", "two stages, true boxes at 32"),
        ("two stages at 64", "two stages, true boxes at 64"),
        ("two stages at 32", "sliding window at 32"),
        ("two stages at 64", "sliding window at 64"),
    ]
    twin = paired_difference(found.values("dice", "two_stage", 32), found.values("dice", "rough_only", 64))
    assert column(table, "Dice")[2] == show_signed(twin, 3)


def test_columns_that_nobody_measured_are_left_out():
    plain = Comparison("b", "d", scores=[score(case, "two_stage", 32, 0.8) for case in "ab"])
    assert "HD95 [mm]" in score_table(plain).head
    for one in plain.scores:
        del one.values["hd95_mm"]
    assert "HD95 [mm]" not in score_table(plain).head
    assert difference_table(plain).rows == []


def test_cases_without_a_value_are_counted_beside_the_mean():
    found = made_up({("two_stage", 32): 0.8}, cases=4)
    found.scores[1].values["hd95_mm"] = math.nan
    assert column(score_table(found), "HD95 [mm]")[0].endswith(" [3 of 4]")
    assert "[n of m]" in summary_markdown(found)


def test_one_case_has_no_interval():
    found = made_up({("rough_only", 32): 0.7, ("two_stage", 32): 0.8}, cases=1)
    assert column(score_table(found), "Dice") == ["0.700", "0.800"]
    assert column(difference_table(found), "Dice") == ["+0.100"]
    assert "nan" not in summary_markdown(found) + summary_text(found)


def test_costs_stand_with_their_units():
    found = made_up({("two_stage", 64): 0.8}, cases=2)
    found.parameters = {"two_stage": 1_234_567}
    table = cost_table(found)
    assert table.head == [
        "size",
        "way",
        "Input [voxels]",
        "Boxes",
        "GMACs",
        "Read [s]",
        "Rough [s]",
        "Time [s]",
        "Peak [MiB]",
        "Parameters",
    ]
    assert table.rows == [["64", "two stages", "64x64x64", "2.0", "32.0", "0.500", "0.100", "0.700", "512", "1,234,567"]]


@pytest.mark.parametrize(
    ("value", "text"), [(123.4, "123"), (12.34, "12.3"), (1.234, "1.23"), (0.1234, "0.123"), (math.nan, ""), (0, "0.000")]
)
def test_about_three_digits(value, text):
    assert show(value, None) == text


def test_no_minus_before_zero():
    assert show_signed(Interval(-0.0001, -0.0004, 0.0006, 9), 3) == "+0.000 (+0.000 to +0.001)"


def test_text_is_aligned_words_left_and_numbers_right():
    text = Table("t", ["size", "way", "Dice"], [["32", "a", "0.5"], ["128", "rough only", "10.25"]]).text()
    assert text.splitlines() == ["size  way          Dice", "32    a             0.5", "128   rough only  10.25"]


def test_markdown_tables_have_as_many_cells_in_every_line():
    text = summary_markdown(all_ways())
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 5  # scores, differences, costs, all metrics at each of two sizes
    assert all(len({line.count("|") for line in table}) == 1 for table in tables)


def test_the_page_holds_conditions_notes_and_advice():
    found = made_up({("rough_only", 32): 0.7, ("two_stage", 32): 0.8}, cases=6)
    found.notes, found.downscaling, found.object_share, found.training_seconds = ["Mind the gap."], {32: 7.0}, 0.25, {"rough_32": 120.0}
    text = summary_markdown(found)
    for part in (
        "# spine_segmentation on spine",
        "Cropping pays",
        "6 validation cases",
        "7.0x at 32",
        "25%",
        "rough_32 2 min",
        "- Mind the gap.",
    ):
        assert part in text
    assert summary_text(found).rstrip().splitlines()[-1].startswith("Cropping pays")
    assert "Mind the gap." in summary_text(found)


def test_the_terminal_table_fits_its_ways():
    assert len(terminal_table(all_ways((32,))).rows) == 4


def test_every_metric_stands_in_the_tables_by_its_title():
    found = made_up({("two_stage", 32): 0.8}, cases=2)
    for one in found.scores:
        one.values.update(dict.fromkeys(METRICS, 0.5))
    text = summary_markdown(found)
    assert all(f"| {metric.heading} |" in text for metric in METRICS.values())


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
