"""Notes: what does not fit the schema is one sentence that names the entry; what fits is bounded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stseg3d.results.notes import MAX_BOXES, Notes, read_notes


def read(folder: Path, content: str | bytes) -> Notes:
    path = folder / "a_seg.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_notes(path)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('{"volume_ml": {"1": NaN}}', "NaN is not a finite number"),
        ('{"volume_ml": {"1": 1e999}}', "1e999 is not a finite number"),
        ('{"volume_ml": {"1": ' + "9" * 400 + "}}", "#volume_ml#1 must be less than"),
        ('{"volume_ml": {"1": -1}}', "#volume_ml#1 must be 0 to 1e+15, got -1"),
        ('{"volume_ml": {"1": 1e300}}', "#volume_ml#1 must be 0 to 1e+15"),
        ('{"volume_ml": ["no", "mapping"]}', "#volume_ml must be an object"),
        ('{"grid": {"shape": ["a"]}}', '#grid#shape#0 must be a whole number, got "a"'),
        ('{"grid": {"shape": [1, 2, 3, 4, 5]}}', "#grid#shape must be of length 0 to 4"),
        ('{"input": "\\ud800"}', "surrogates not allowed"),
        ('{"input": []}', "#input must be a word, got []"),
        ('{"input": {}}', "#input must be a word, got {}"),
        ('{"input": "' + "a" * 5000 + '"}', "#input must be of length 0 to 4096"),
        ('{"seconds": {"open": "slow"}}', "#seconds#open must be a number"),
        ('{"seconds": {"total": true}}', "#seconds#total must be a number"),
        ('{"warnings": {"a": 1}}', "#warnings must be a list"),
        ('{"boxes": "none"}', "#boxes must be a list"),
        ('{"boxes": [{"start": [0, 0, 0], "stop": [1, 1, 1e9]}]}', "#boxes#0#stop#2 must be a whole number"),
        ('{"rough": {"threshold": 5}}', "#rough#threshold must be 0 to 1, got 5"),
        ('{"unknown": ' + "[" * 100_000 + "}", "file must be JSON"),
        ("[]", "file must hold a JSON object, got list"),
        (b"\xff", "file must be JSON"),
    ],
)
def test_what_does_not_fit_is_named(content: str | bytes, why: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a_seg\.json") as error:
        read(tmp_path, content)
    assert why in str(error.value)


def test_what_fits_is_read_and_further_entries_may_be_anything(tmp_path: Path) -> None:
    notes = read(
        tmp_path,
        '{"volume_ml": {"1": 2}, "box_count": -1, "text": 5, "more": [{"of": null}], "seconds": {"write": 1, "new": 2, "open": 3}}',
    )
    assert (notes.volume_ml, notes.box_count, notes.stage_seconds) == ({"1": 2.0}, 0, {"open": 3.0, "write": 1.0, "new": 2.0})
    assert '"more"' in notes.text


def test_long_lists_are_cut_and_counted(tmp_path: Path) -> None:
    box = {"start": [0, 0, 0], "stop": [1, 1, 1]}
    notes = read(tmp_path, json.dumps({"boxes": [box] * 5000, "volume_ml": {str(n): 1 for n in range(5000)}}))
    assert (notes.box_count, len(notes.boxes), len(notes.volume_ml)) == (5000, MAX_BOXES, 5000)
    assert notes.text.count("and 4800 more") == 2


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stseg3d.results.notes.MAX_BYTES", 10)
    assert read(tmp_path, '{"a": 123}').box_count == 0
    with pytest.raises(ValueError, match="file must have at most 10 bytes"):
        read(tmp_path, '{"a": 1234}')
