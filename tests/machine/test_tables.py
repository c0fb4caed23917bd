from __future__ import annotations

import json
from math import nan

import numpy as np
import pytest

from stseg3d.machine.tables import Table, csv_text, json_text, records_text

TABLE = Table(["size", "way", "Dice"], [["32", "a", "0.5"], ["128", "rough only", "10.25"], ["64", "b", ""]], title="Scores")


def test_text_is_aligned_words_left_and_numbers_right_without_blanks_at_the_end() -> None:
    assert TABLE.text().splitlines() == ["size  way          Dice", "32    a             0.5", "128   rough only  10.25", "64    b"]
    assert Table(["", "n"], [["*", "10"], ["now", "2"]], words=0).text().splitlines() == ["      n", "  *  10", "now   2"]


def test_markdown_has_a_heading_and_says_how_columns_are_aligned() -> None:
    lines = ["## Scores", "", "| size | way | Dice |", "| :-- | :-- | --: |", "| 32 | a | 0.5 |", "| 128 | rough only | 10.25 |"]
    assert TABLE.markdown().splitlines() == [*lines, "| 64 | b |  |"]


def test_csv_has_the_names_of_all_records() -> None:
    assert csv_text([{"a": 1, "b": nan}, {"c": 'x, "y"', "a": None}]) == 'a,b,c\n1,nan,\n,,"x, ""y"""\n'
    assert csv_text([]) == "\n"


def test_json_has_null_for_nan_and_plain_numbers() -> None:
    content = {"a": (nan, 1.5), "b": {32: [np.float32(nan), np.float32(0.5), np.int64(3)]}, "c": True}
    assert json.loads(json_text(content), parse_constant=pytest.fail) == {"a": [None, 1.5], "b": {"32": [None, 0.5, 3]}, "c": True}
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text({"a": float("inf")})


def test_the_suffix_decides_and_others_are_refused() -> None:
    assert records_text(".csv", [{"a": 1}], {}) == "a\n1\n"
    assert json.loads(records_text(".json", [], {"a": nan})) == {"a": None}
    with pytest.raises(ValueError, match=r"written as \.csv or \.json, got '\.txt'"):
        records_text(".txt", [], {})


def test_a_width_wraps_words_below_each_other_and_leaves_numbers_whole() -> None:
    table = Table(["what", "why", "n"], [["a", "one two three four five", "12"], ["b", "six", "3"]])
    assert table.text(20).splitlines() == [
        "what  why          n",
        "a     one two     12",
        "      three four",
        "      five",
        "b     six          3",
    ]
    assert table.text(10**3) == table.text()
    assert "abcdefghij" in Table(["n"], [["abcdefghij"]], words=1).text(4)  # a word is not cut


def test_a_bar_in_a_cell_ends_no_cell_of_markdown() -> None:
    assert "| a&#124;b |" in Table(["x"], [["a|b"]]).markdown()
