"""What a second run makes of what the first one left: skipped, done again, or not ours to touch."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from stseg3d.batch import BatchResult, BatchStoppedError, CaseOutcome, InProcess, OutcomeLog, run_batch
from stseg3d.inference import Request
from stseg3d.results.stamps import is_unchanged, stamp
from stseg3d.volumes import Case
from tests.batch import fakes
from tests.systems import on_posix


def run(cases: list[Case], wanted: Request, *, overwrite: bool = False) -> BatchResult:
    return run_batch(cases, wanted, InProcess(wanted), overwrite=overwrite)


@pytest.fixture
def wanted(bundle: Path, tmp_path: Path, cases: list[Case]) -> Request:
    """Of a batch that was done."""
    wanted = fakes.request_for(bundle, tmp_path / "out")
    assert run(cases, wanted).done == {"a", "b", "c", "d"}
    return wanted


def output(wanted: Request, case: str) -> Path:
    return wanted.output_dir / f"{case}_seg.nii.gz"


def refusals(result: BatchResult) -> dict[str, str]:
    return {outcome.case: outcome.reason for outcome in result.failed}


def test_what_is_done_is_skipped(wanted: Request, cases: list[Case]) -> None:
    before = {case.id: output(wanted, case.id).stat().st_mtime_ns for case in cases}
    result = run(cases, wanted)
    assert (result.done, result.skipped, result.failed) == (set(), 4, [])
    assert {case.id: output(wanted, case.id).stat().st_mtime_ns for case in cases} == before
    assert run(cases, wanted, overwrite=True).skipped == 4  # they are what would be written
    latest = OutcomeLog(wanted.output_dir).latest()
    assert {outcome.state for outcome in latest} == {"skipped"}
    assert all(outcome.reason.startswith("done before, 20") and outcome.seconds > 0 for outcome in latest)


def test_where_all_is_done_no_bundle_is_loaded(wanted: Request, cases: list[Case], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stseg3d.batch.work.Segmenter", None)
    assert run(cases, wanted).skipped == 4


def test_moved_and_touched_files_are_known_by_their_content(wanted: Request, cases: list[Case], tmp_path: Path) -> None:
    os.utime(cases[0].image, ns=(0, 0))  # the clock went backwards
    os.utime(output(wanted, "a"), ns=(0, 0))
    shutil.copytree(cases[0].image.parent, tmp_path / "moved")
    wanted.output_dir.rename(tmp_path / "there")
    moved = replace(wanted, output_dir=tmp_path / "there")
    assert run([Case(c.id, tmp_path / "moved" / c.image.name) for c in cases], moved).skipped == 4


def test_an_output_that_is_missing_is_made_again(wanted: Request, cases: list[Case]) -> None:
    content = output(wanted, "a").read_bytes()
    output(wanted, "a").unlink()
    result = run(cases, wanted)
    assert (result.done, result.skipped) == ({"a"}, 3)
    assert output(wanted, "a").read_bytes() == content


def test_bad_lines_block_no_case(wanted: Request, cases: list[Case], caplog: pytest.LogCaptureFixture) -> None:
    log = wanted.output_dir / "outcomes.jsonl"
    lines = [
        "[" * 100_000,
        '{"case": []}',
        '{"case": "a", "state": "done", "stages_s": 5, "attempt": 1}',
        '{"case": "\\ud800", "state": "done"}',
    ]
    log.write_text("\n".join(lines) + "\n" + log.read_text())
    output(wanted, "b").unlink()
    for done in ({"b"}, set()):
        result = run(cases, wanted)
        assert (result.done, result.skipped, result.failed) == (done, 4 - len(done), [])
    assert [caplog.text.count(f"line {n} is not an outcome") for n in range(1, 6)] == [2, 2, 2, 2, 0]  # once in each run


@on_posix
@pytest.mark.parametrize("name", ["outcomes.jsonl", ".claims"])
@pytest.mark.parametrize("kind", ["a link", "a pipe", "a folder"])
def test_nothing_is_written_through_what_is_no_file(name: str, kind: str, bundle: Path, cases: list[Case], tmp_path: Path) -> None:
    wanted = fakes.request_for(bundle, tmp_path / "out")
    wanted.output_dir.mkdir()
    (tmp_path / "elsewhere").write_text("half a line")
    make = {"a link": lambda path: path.symlink_to(tmp_path / "elsewhere"), "a pipe": os.mkfifo, "a folder": os.mkdir}[kind]
    make(wanted.output_dir / name)
    with pytest.raises((OSError, BatchStoppedError), match=f"{name}: file must be a regular file, got {kind}"):
        run(cases, wanted)
    assert (tmp_path / "elsewhere").read_text() == "half a line"


def change_input(wanted: Request, cases: list[Case]) -> Request:
    fakes.make_scan(cases[0].image, seed=9)
    return wanted


def change_output(wanted: Request, cases: list[Case]) -> Request:
    content = bytearray(output(wanted, "a").read_bytes())
    content[-1] ^= 1  # as many bytes as before
    output(wanted, "a").write_bytes(content)
    return wanted


def remove_notes(wanted: Request, cases: list[Case]) -> Request:
    (wanted.output_dir / "a_seg.json").unlink()
    return wanted


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (change_input, "made of another image"),
        (change_output, "changed since it was made"),
        (remove_notes, "changed since it was made"),
    ],
)
def test_what_would_be_different_is_refused_and_replaced_when_asked(change: object, why: str, wanted: Request, cases: list[Case]) -> None:
    change(wanted, cases)  # type: ignore[operator]
    for _ in range(2):  # the refusal itself changes nothing
        result = run(cases, wanted)
        assert result.skipped == 3
        assert refusals(result) == {"a": f"output {output(wanted, 'a')} is there already; --overwrite replaces it ({why})"}
        assert result.failed[0].bad_input
    assert run(cases, wanted, overwrite=True).done == {"a"}
    assert run(cases, wanted).skipped == 4


def test_another_bundle_or_option_is_another_batch(wanted: Request, cases: list[Case], tmp_path: Path) -> None:
    other = [
        replace(wanted, bundle=fakes.make_bundle(tmp_path / "weights_segmentation", level=60.0)),
        fakes.request_for(wanted.bundle, wanted.output_dir, output="instances"),
        replace(wanted, keep_rough=True),
    ]
    for changed in other:
        result = run(cases, changed)
        assert list(refusals(result)) == ["a", "b", "c", "d"]
        assert "made with another bundle or other options" in result.failed[0].reason
    assert run(cases, wanted).skipped == 4  # all is as it was
    elsewhere = replace(wanted, bundle=shutil.copytree(wanted.bundle, tmp_path / "copy_segmentation"), device="auto", threads=2)
    assert run(cases, elsewhere).skipped == 4  # the same bundle by content


def test_a_file_of_somebody_else_is_refused(bundle: Path, cases: list[Case], tmp_path: Path) -> None:
    wanted = fakes.request_for(bundle, tmp_path / "out")
    wanted.output_dir.mkdir()
    output(wanted, "b").write_text("somebody's")
    result = run(cases, wanted)
    assert (result.done, list(refusals(result))) == ({"a", "c", "d"}, ["b"])
    assert output(wanted, "b").read_text() == "somebody's"
    assert list(refusals(run(cases, wanted))) == ["b"]
    assert run(cases, wanted, overwrite=True).done == {"b"}


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Cases that get a process of their own, with the attempts that it has; played in this process."""
    given: list[tuple[str, int]] = []

    class Played(InProcess):
        def __init__(self, request: Request, jobs: int, attempts: int) -> None:
            super().__init__(request)
            self.attempts = attempts
            assert jobs == 1

        def run(self, cases: Iterator[Case]) -> Generator[CaseOutcome, None, None]:
            return super().run(given.append((case.id, self.attempts)) or case for case in cases)  # type: ignore[func-returns-value]

    monkeypatch.setattr("stseg3d.batch.run.Processes", Played)
    return given


def begin(wanted: Request, case: Case, **known: object) -> None:
    """What a process leaves that dies of a case."""
    begun = CaseOutcome(case.id, "started", 1, input=stamp(case.image), request=wanted.digest)
    OutcomeLog(wanted.output_dir).append(replace(begun, **known))  # type: ignore[arg-type]


def test_a_case_that_killed_its_process_gets_one_of_its_own_after_the_others(
    bundle: Path, cases: list[Case], tmp_path: Path, alone: list[tuple[str, int]], caplog: pytest.LogCaptureFixture
) -> None:
    wanted = fakes.request_for(bundle, tmp_path / "out")
    begin(wanted, cases[0])
    begin(wanted, cases[1], state="failed", error="Stopped")  # by a person: it killed nothing
    told: list[str] = []
    run_batch(cases, wanted, InProcess(wanted), on_outcome=lambda outcome: told.append(outcome.case))
    assert told == ["b", "c", "d", "a"]
    assert alone == [("a", 1)]
    assert "get one of their own: a\n" in caplog.text
    assert {o.case: (o.state, o.attempt) for o in OutcomeLog(wanted.output_dir).latest()}["a"] == ("done", 2)
    assert run(cases, wanted).skipped == 4


def test_what_kills_its_process_is_not_tried_for_ever(
    bundle: Path, cases: list[Case], tmp_path: Path, alone: list[tuple[str, int]]
) -> None:
    wanted = fakes.request_for(bundle, tmp_path / "out")
    for case, known in zip(cases, ({}, {"state": "failed", "error": "WorkerDied"}, {"request": "another"}, {"attempt": 3}), strict=True):
        begin(wanted, case, **{"attempt": 4} | known)
    for _ in range(2):
        result = run(cases, wanted)
        assert refusals(result) == dict.fromkeys("ab", "the process died in attempt 4, the last one; --overwrite tries again")
        assert {outcome.error for outcome in result.failed} == {"WorkerDied"}
    assert [case for case, _ in alone] == ["c", "d"]
    fakes.make_scan(cases[0].image, seed=9)  # another image
    assert run(cases, wanted).done == {"a"}
    assert run(cases, wanted, overwrite=True).done == {"b"}
    assert [case for case, _ in alone] == ["c", "d", "a", "b"]


@pytest.mark.parametrize("left", ["nothing", "the whole output", "notes alone"])
@pytest.mark.usefixtures("alone")
def test_what_a_killed_run_left_is_done_again(left: str, wanted: Request, cases: list[Case]) -> None:
    content = output(wanted, "b").read_bytes()
    log = wanted.output_dir / "outcomes.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    killed = [line for line in lines if json.loads(line)["case"] != "b" or json.loads(line)["state"] == "started"]
    log.write_text("".join(killed) + '{"case": "c", "sta')
    if left != "the whole output":
        output(wanted, "b").unlink()
    if left == "nothing":
        (wanted.output_dir / "b_seg.json").unlink()
    (wanted.output_dir / ".123.b_seg.nii.gz").write_bytes(content[:10])
    (wanted.output_dir / ".123.a.b_seg.nii.gz").write_text("of another case, a.b")
    result = run(cases, wanted)
    assert (result.done, result.skipped, result.failed) == ({"b"}, 3, [])
    assert output(wanted, "b").read_bytes() == content
    assert sorted(p.name for p in wanted.output_dir.glob(".*")) == [".123.a.b_seg.nii.gz", ".claims"]
    last = OutcomeLog(wanted.output_dir).last("b")
    assert last is not None
    assert last.attempt == 2


def test_a_case_that_failed_is_tried_again(bundle: Path, cases: list[Case], tmp_path: Path) -> None:
    wanted = fakes.request_for(bundle, tmp_path / "out")
    content = cases[1].image.read_bytes()
    cases[1].image.write_bytes(content[:1000])
    result = run(cases, wanted)
    assert result.done == {"a", "c", "d"}
    assert "b.nii" in refusals(result)["b"]
    cases[1].image.write_bytes(content)
    assert run(cases, wanted).done == {"b"}


# --- stamps ------------------------------------------------------------------


def test_a_series_is_all_its_files(tmp_path: Path) -> None:
    for name in ("1.dcm", "2.dcm", ".hidden"):
        (tmp_path / name).write_text(name)
    then = stamp(tmp_path, content=True)
    assert then.size_bytes == 10
    os.utime(tmp_path / "1.dcm", ns=(5, 5))
    assert is_unchanged(tmp_path, then)
    (tmp_path / "2.dcm").write_text("3.dcm")
    assert not is_unchanged(tmp_path, then)
    (tmp_path / "2.dcm").rename(tmp_path / "3.dcm")
    (tmp_path / "3.dcm").write_text("2.dcm")
    assert not is_unchanged(tmp_path, then)  # the same bytes in another file


def test_a_header_is_nothing_without_its_voxels(tmp_path: Path) -> None:
    (tmp_path / "a.mhd").write_text("ElementDataFile = a.raw")
    (tmp_path / "a.raw").write_bytes(bytes(8))
    then = stamp(tmp_path / "a.mhd", content=True)
    (tmp_path / "a.raw").write_bytes(b"1" * 8)
    assert not is_unchanged(tmp_path / "a.mhd", then)


def test_files_among_the_options_count_by_content(bundle: Path, tmp_path: Path) -> None:
    boxes = tmp_path / "boxes.json"
    found = []
    for content in ("[1]", "[1]", "[2]"):
        boxes.write_text(content)
        found.append(Request(bundle, boxes=boxes, overrides={"a": (1, 2)}).digest)
    assert found[0] == found[1] != found[2]
