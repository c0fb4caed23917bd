"""The journal: lines whole or not at all, the last one counts, and nothing that stops a writer stops a reader."""

from __future__ import annotations

import csv
import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from stseg3d.results import CaseOutcome, OutcomeLog, write_summary
from stseg3d.results.stamps import FileStamp
from tests.systems import on_posix

DONE = CaseOutcome(
    "a",
    "done",
    attempt=1,
    warnings=("small",),
    seconds=1.5,
    stages_s={"open": 0.5, "rough": 1.0},
    peak_memory_bytes=2**30,
    input=FileStamp("scans/a.nii", 10, 2**62, "ab"),
    request="cd",
    output=FileStamp("a_seg.nii.gz", 5, 7, "ef"),
    started_utc="2026-01-01T00:00:00.000+00:00",
    ended_utc="2026-01-01T00:00:01.500+00:00",
)
BEGUN = CaseOutcome("a", "started", attempt=1)
FAILED = CaseOutcome("b", "failed", attempt=1, reason="voxels must be finite, got\n4 NaN", error="ValueError", bad_input=True)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    log = OutcomeLog(tmp_path)
    assert log.last("a") is None
    assert log.latest() == []
    for outcome in (BEGUN, FAILED, DONE):
        log.append(outcome)
    assert log.last("a") == DONE
    assert log.last("b") == FAILED
    assert log.latest() == [DONE, FAILED]
    lines = log.path.read_text().splitlines()
    assert json.loads(lines[0]) == {"case": "a", "state": "started", "attempt": 1}
    assert len(lines) == 3  # a line of its own for each, whatever is in it


def test_another_writers_lines_are_seen(tmp_path: Path) -> None:
    mine, other = OutcomeLog(tmp_path), OutcomeLog(tmp_path)
    mine.append(BEGUN)
    assert mine.last("a") == BEGUN
    other.append(DONE)
    assert mine.last("a") == DONE


def test_what_touched_no_output_says_nothing_of_it(tmp_path: Path) -> None:
    log = OutcomeLog(tmp_path)
    log.append(DONE)
    refused = CaseOutcome("a", "failed", reason="output is there already")
    log.append(refused)
    assert log.last("a") == DONE
    assert log.latest() == [refused]


def test_a_torn_last_line_is_passed_over_and_cut_off(tmp_path: Path) -> None:
    log = OutcomeLog(tmp_path)
    log.append(BEGUN)
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + b'{"case": "b", "sta' + b" " * 10_000)  # longer than a block, and killed there
    assert OutcomeLog(tmp_path).latest() == [BEGUN]
    assert OutcomeLog(tmp_path).last("b") is None
    log.append(DONE)
    assert log.path.read_bytes().startswith(whole + b'{"case": "a"')
    assert OutcomeLog(tmp_path).latest() == [DONE]
    log.path.write_bytes(b"{" * 5000)
    log.append(DONE)
    assert OutcomeLog(tmp_path).latest() == [DONE]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"\0\0\0\n", "must be JSON"),
        (b"[1]\n", "must be an object, got [1]"),
        (b'{"case": "x"}\n', "must have the entry 'state'"),
        (b'{"case": "x", "state": "done", "of": "another version"}\n', "has no entry 'of'"),
        (b"\xff\n", "must be JSON"),
        (b"[" * 100_000 + b"\n", "must be JSON"),
        (b'{"case": "x", "state": "done", "stages_s": ' + b'{"a":' * 50 + b"1" + b"}" * 52 + b"\n", "must be JSON"),
        (b'{"case": ["a"], "state": "done"}\n', 'line#case must be a word, got ["a"]'),
        (b'{"case": "", "state": "done"}\n', "must name a case"),
        (b'{"case": "x", "state": "perhaps"}\n', "line#state must be one of started, done, skipped, failed"),
        (b'{"case": "x", "state": "done", "stages_s": 5}\n', "line#stages_s must be an object, got 5"),
        (b'{"case": "x", "state": "done", "stages_s": {"open": "1"}}\n', "line#stages_s#open must be a number"),
        (b'{"case": "x", "state": "done", "attempt": NaN}\n', "NaN is not a finite number"),
        (b'{"case": "x", "state": "done", "seconds": 1e999}\n', "1e999 is not a finite number"),
        (b'{"case": "x", "state": "done", "seconds": -1}\n', "line#seconds must be 0 to 1e+15, got -1"),
        (b'{"case": "x", "state": "done", "attempt": ' + b"9" * 400 + b"}\n", "line#attempt must be less than"),
        (b'{"case": "x", "state": "done", "attempt": ' + b"9" * 9000 + b"}\n", "must be JSON"),
        (b'{"case": "\\ud800", "state": "done"}\n', "surrogates not allowed"),
        (b'{"case": "x", "state": "done", "input": "a.nii"}\n', "line#input must be an object"),
        (b'{"case": "x", "state": "done", "warnings": "no list"}\n', "line#warnings must be a list"),
    ],
)
def test_a_line_that_is_no_outcome_is_named_once_and_the_rest_counts(
    line: bytes, why: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = OutcomeLog(tmp_path)
    log.append(BEGUN)
    log.path.write_bytes(log.path.read_bytes() + line)
    log.append(FAILED)
    reader = OutcomeLog(tmp_path)
    assert (reader.last("a"), reader.last("b")) == (BEGUN, FAILED)
    assert reader.latest() == [BEGUN, FAILED]
    assert write_summary(reader).is_file()
    assert caplog.text.count("outcomes.jsonl: line 2 is not an outcome and is left out") == 1
    assert why in caplog.text


def test_a_path_that_is_no_utf_8_is_read_as_it_was_written(tmp_path: Path) -> None:
    log = OutcomeLog(tmp_path)
    outcome = replace(DONE, input=FileStamp(os.fsdecode(b"scans/\xff/a.nii"), 10, 7))
    log.append(outcome)
    assert log.last("a") == outcome
    assert "scans/\\udcff/a.nii" in write_summary(log).read_text()


@on_posix
@pytest.mark.parametrize("kind", ["a pipe", "a folder", "a device"])
def test_a_journal_that_is_no_file_is_refused_and_not_opened(kind: str, tmp_path: Path) -> None:
    log = OutcomeLog(tmp_path)
    {"a pipe": os.mkfifo, "a folder": os.mkdir, "a device": lambda path: os.symlink("/dev/zero", path)}[kind](log.path)
    for use in (log.latest, lambda: log.last("a")):
        with pytest.raises(OSError, match=f"outcomes.jsonl: file must be a regular file, got {kind}"):
            use()
    with pytest.raises(OSError, match="file must be a regular file"):
        log.append(DONE)


@on_posix
@pytest.mark.parametrize("there", [True, False])
def test_a_journal_that_is_a_link_is_read_and_not_written_through(there: bool, tmp_path: Path) -> None:
    elsewhere = OutcomeLog(tmp_path / "elsewhere")
    if there:
        elsewhere.append(BEGUN)
    log = OutcomeLog(tmp_path)
    log.path.symlink_to(elsewhere.path)
    with pytest.raises(OSError, match="file must be a regular file, got a link"):
        log.append(DONE)
    assert OutcomeLog(tmp_path).latest() == elsewhere.latest() == [BEGUN] * there


def test_a_line_of_an_earlier_version_is_read_but_is_of_no_request_of_today(tmp_path: Path) -> None:
    log = OutcomeLog(tmp_path)
    log.append(DONE)
    line = json.loads(log.path.read_text())
    line["recipe"] = {"weights_sha256": line.pop("request")}
    log.path.write_text(json.dumps(line) + "\n")
    assert OutcomeLog(tmp_path).last("a") == replace(DONE, request="")


@pytest.mark.parametrize("fault", ["short", "raise"])
def test_on_a_full_disk_a_line_is_not_there_at_all(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = OutcomeLog(tmp_path)
    log.append(BEGUN)
    before = log.path.read_bytes()
    write = os.write

    def full(file: int, line: bytes) -> int:
        written = write(file, line[:20])
        if fault == "short":
            return written
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("stseg3d.results.journal.os.write", full)
    with pytest.raises(OSError, match=r"[Nn]o space left"):
        log.append(DONE)
    assert log.path.read_bytes() == before


def test_a_journal_that_was_removed_begins_anew(tmp_path: Path) -> None:
    log = OutcomeLog(tmp_path / "out")
    log.append(BEGUN)
    assert log.last("a") == BEGUN
    log.path.unlink()
    assert log.last("a") is None
    log.path.parent.rmdir()
    log.append(FAILED)
    assert (log.last("a"), log.last("b")) == (None, FAILED)


def test_the_summary_has_a_row_a_case(tmp_path: Path) -> None:
    log = OutcomeLog(tmp_path)
    for outcome in (BEGUN, FAILED, DONE):
        log.append(outcome)
    with write_summary(log).open(newline="") as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    assert rows["a"]["state"] == "done"
    assert {key: rows["a"][key] for key in ("seconds", "stage_rough_s", "input", "output")} == {
        "seconds": "1.5",
        "stage_rough_s": "1.0",
        "input": "scans/a.nii",
        "output": "a_seg.nii.gz",
    }
    assert (rows["b"]["error"], rows["b"]["reason"], rows["b"]["stage_rough_s"]) == ("ValueError", FAILED.reason, "")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["outcomes.jsonl", "summary.csv"]
