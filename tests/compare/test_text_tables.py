from __future__ import annotations

import math

import pytest

from stseg3d.compare.comparison import Comparison
from stseg3d.compare.text_tables import (
    cost_table,
    difference_table,
    score_table,
    show,
    show_signed,
    summary_markdown,
    summary_text,
    terminal_table,
)
from stseg3d.evaluate import Interval, bootstrap_interval
from stseg3d.machine.tables import Table
from stseg3d.metrics import METRICS
from tests.compare.made_up import all_ways, made_up, score


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
    twin = bootstrap_interval(found.values("dice", "two_stage", 32) - found.values("dice", "rough_only", 64))
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
