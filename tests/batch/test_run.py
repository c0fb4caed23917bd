"""A batch in this process, and what the world does to it meanwhile: every case has its outcome, and no file is half."""

from __future__ import annotations

import errno
import itertools
import json
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from stseg3d.batch import BatchStoppedError, CaseOutcome, CaseWorker, InProcess, OutcomeLog, run_batch
from stseg3d.batch.claims import Claims
from stseg3d.batch.run import BatchResult
from stseg3d.inference import Request
from stseg3d.inference.segment import CaseWork, SegmentedCase
from stseg3d.volumes import Case, list_cases
from tests.batch import fakes


@pytest.fixture
def wanted(bundle: Path, tmp_path: Path) -> Request:
    return fakes.request_for(bundle, tmp_path / "out")


@pytest.fixture(scope="module")
def undisturbed(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the cases give where nothing happens."""
    folder = tmp_path_factory.mktemp("undisturbed")
    wanted = fakes.request_for(bundle, folder / "out")
    run(list_cases([fakes.make_scans(folder / "scans")]), wanted)
    return labels(wanted)


def run(cases: list[Case], wanted: Request) -> BatchResult:
    return run_batch(cases, wanted, InProcess(wanted))


def labels(wanted: Request) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(wanted.output_dir.glob("*_seg.nii.gz"))}


def check_resumes(cases: list[Case], wanted: Request, undisturbed: dict[str, bytes]) -> None:
    """A second run, undisturbed, leaves what one would have left; nothing is lost, doubled or half."""
    result = run(cases, wanted)
    assert result.failed == []
    assert len(result.done) + result.skipped == len(cases)
    assert labels(wanted) == undisturbed
    names = {f"{case.id}_seg.{suffix}" for case in cases for suffix in ("nii.gz", "json")}
    assert {path.name for path in wanted.output_dir.iterdir()} == names | {".claims", "outcomes.jsonl", "summary.csv"}
    ends = [outcome for outcome in journal(wanted) if outcome["state"] == "done"]
    assert sorted(outcome["case"] for outcome in ends) == [case.id for case in cases]
    assert sorted(outcome.case for outcome in OutcomeLog(wanted.output_dir).latest() if outcome.is_finished) == [c.id for c in cases]


def journal(wanted: Request) -> list[dict[str, object]]:
    return [json.loads(line) for line in (wanted.output_dir / "outcomes.jsonl").read_text().splitlines()]


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets something happen once a case has been read and segmented, before its outcome is known: ``meanwhile("b", action)``."""

    def arrange(case_id: str, action: Callable[[], object]) -> None:
        write = CaseWork.write

        def disturbed(self: CaseWork) -> SegmentedCase:
            made = write(self)
            if made.case_id == case_id:
                action()
            return made

        monkeypatch.setattr(CaseWork, "write", disturbed)

    return arrange


# --- nothing happens ---------------------------------------------------------


def test_an_outcome_says_what_was_done(cases: list[Case], wanted: Request) -> None:
    told: list[CaseOutcome] = []
    counts: list[int] = []
    result = run_batch(cases, wanted, InProcess(wanted), on_outcome=told.append, on_todo=counts.append)
    assert (result.done, result.skipped, result.failed, counts) == ({"a", "b", "c", "d"}, 0, [], [4])
    assert [outcome.case for outcome in told] == ["a", "b", "c", "d"]
    outcome = told[0]
    notes = json.loads((wanted.output_dir / "a_seg.json").read_text())
    assert outcome.input is not None
    assert outcome.output is not None
    assert (outcome.input.path, outcome.output.path) == (str(cases[0].image), "a_seg.nii.gz")
    assert outcome.output.size_bytes == len(labels(wanted)["a_seg.nii.gz"])
    assert outcome.stages_s == notes["seconds"]
    assert outcome.warnings == notes["warnings"]
    assert outcome.seconds >= outcome.stages_s["total"]
    assert outcome.peak_memory_bytes > 2**20
    assert outcome.request == wanted.digest
    assert outcome.started_utc < outcome.ended_utc
    lines = [(line["case"], line["state"]) for line in journal(wanted)]
    for state in ("started", "done"):
        assert [case for case, one in lines if one == state] == ["a", "b", "c", "d"]
    assert all(lines.index((case, "started")) < lines.index((case, "done")) for case in "abcd")


def test_a_failing_case_never_stops_the_rest(cases: list[Case], wanted: Request) -> None:
    fakes.make_scan(cases[0].image, brightest=fakes.LACKS_MEMORY)
    cases[1].image.write_bytes(b"not a scan")
    result = run(cases, wanted)
    assert result.done == {"c", "d"}
    memory, header = result.failed
    assert (memory.case, memory.error, memory.bad_input) == ("a", "MemoryError", False)
    assert (header.case, header.bad_input) == ("b", True)
    assert "b.nii" in header.reason
    assert "Traceback" in memory.traceback
    assert list(labels(wanted)) == ["c_seg.nii.gz", "d_seg.nii.gz"]
    assert header.input is not None
    assert header.input.size_bytes == 10


def test_a_bad_bundle_is_no_failure_of_a_case(cases: list[Case], wanted: Request, tmp_path: Path) -> None:
    bad = fakes.request_for(fakes.make_bundle(tmp_path / "bad_segmentation"), tmp_path / "new" / "out", overrides={"nothing": 0})
    with pytest.raises(ValueError, match="must have the entry 'nothing' to override it"):
        run(cases, bad)
    assert not bad.output_dir.exists()


def test_an_empty_batch_is_done(wanted: Request) -> None:
    assert run([], wanted) == BatchResult()
    assert not wanted.output_dir.exists()


# --- the input ---------------------------------------------------------------


def test_an_input_that_vanishes_before_it_is_read(cases: list[Case], wanted: Request, undisturbed: dict[str, bytes]) -> None:
    aside = cases[1].image.rename(cases[1].image.with_suffix(".aside"))
    result = run(cases, wanted)
    assert result.done == {"a", "c", "d"}
    (failed,) = result.failed
    assert (failed.case, failed.error, failed.attempt) == ("b", "FileNotFoundError", 0)
    aside.rename(cases[1].image)
    check_resumes(cases, wanted, undisturbed)


@pytest.mark.parametrize(("change", "what"), [("vanish", "none"), ("change", "another one")])
def test_an_input_that_vanishes_or_changes_while_it_is_read(
    change: str,
    what: str,
    cases: list[Case],
    wanted: Request,
    undisturbed: dict[str, bytes],
    meanwhile: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = cases[1].image
    content = image.read_bytes()
    meanwhile("b", image.unlink if change == "vanish" else lambda: fakes.make_scan(image, seed=99))
    result = run(cases, wanted)
    assert result.done == {"a", "c", "d"}
    (failed,) = result.failed
    assert failed.reason == f"{image}: file must stay as it is while it is read, got {what} afterwards"
    assert not list(wanted.output_dir.glob("b_*"))
    image.write_bytes(content)
    monkeypatch.undo()
    check_resumes(cases, wanted, undisturbed)


# --- the output --------------------------------------------------------------


def test_an_output_folder_that_is_removed_in_mid_run(
    cases: list[Case],
    wanted: Request,
    undisturbed: dict[str, bytes],
    meanwhile: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    meanwhile("c", lambda: shutil.rmtree(wanted.output_dir))
    result = run(cases, wanted)
    assert result.done == {"d"}
    assert sorted(outcome.case for outcome in result.failed) == ["a", "b", "c"]
    assert "must stay where it is until the batch ends" in result.failed[-1].reason
    monkeypatch.undo()
    check_resumes(cases, wanted, undisturbed)


def test_a_disk_that_is_full_for_a_case(
    cases: list[Case], wanted: Request, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = itertools.count()

    def full(*arguments: object, **options: object) -> str:
        if next(calls) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return json.dumps(*arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr("stseg3d.inference.segment.json", SimpleNamespace(dumps=full))
        result = run(cases, wanted)
    (failed,) = result.failed
    assert "No space left on device" in failed.reason
    assert failed.bad_input
    check_resumes(cases, wanted, undisturbed)


def test_where_no_outcome_can_be_written_down_the_batch_stops(
    cases: list[Case], wanted: Request, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    append = OutcomeLog.append

    def full(self: OutcomeLog, outcome: CaseOutcome) -> None:
        if (outcome.case, outcome.state) == ("b", "done"):
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, outcome)

    with monkeypatch.context() as patch:
        patch.setattr(OutcomeLog, "append", full)
        with pytest.raises(
            BatchStoppedError, match=r"outcome of b could not be written \(No space left on device\); the same command goes on"
        ):
            run(cases, wanted)
    check_resumes(cases, wanted, undisturbed)


# --- the rest of the world ---------------------------------------------------


def test_a_clock_that_goes_backwards(
    cases: list[Case], wanted: Request, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    years = itertools.count(2100, -1)
    for module in ("work", "run"):
        monkeypatch.setattr(f"stseg3d.batch.{module}.utc_now", lambda: f"{next(years)}-01-01T00:00:00.000+00:00")
    monkeypatch.setattr("time.time", lambda: float(next(years)))
    assert run(cases[:2], wanted).done == {"a", "b"}
    check_resumes(cases, wanted, undisturbed)
    assert all(outcome.seconds < 100 for outcome in OutcomeLog(wanted.output_dir).latest())


@pytest.mark.parametrize("overlap", [True, False])
def test_the_keyboard_leaves_what_can_be_resumed(
    overlap: bool, cases: list[Case], wanted: Request, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = CaseWork.find

    def stopped(self: CaseWork) -> None:
        if self.case.id == "b":
            raise KeyboardInterrupt
        find(self)

    with monkeypatch.context() as patch:
        patch.setattr(CaseWork, "find", stopped)
        with pytest.raises(KeyboardInterrupt):
            run_batch(cases, wanted, InProcess(wanted, overlap=overlap))
    latest = OutcomeLog(wanted.output_dir).latest()
    assert [outcome.error for outcome in latest] == (["", "Stopped", "Stopped"] if overlap else ["", "Stopped"])
    assert latest[1].reason == "the batch was stopped"
    assert "b,failed" in (wanted.output_dir / "summary.csv").read_text()
    check_resumes(cases, wanted, undisturbed)


def test_an_output_of_which_nobody_said_that_it_is_done_is_made_again(
    cases: list[Case], wanted: Request, undisturbed: dict[str, bytes]
) -> None:
    def stop(outcome: CaseOutcome) -> None:
        if outcome.case == "a":
            raise KeyboardInterrupt  # the next ones are under way

    with pytest.raises(KeyboardInterrupt):
        run_batch(cases, wanted, InProcess(wanted), on_outcome=stop)
    errors = [outcome.error for outcome in OutcomeLog(wanted.output_dir).latest()]
    assert errors[0] == ""
    assert set(errors[1:]) == {"Stopped"}
    check_resumes(cases, wanted, undisturbed)


def test_a_case_that_another_run_is_at_is_left_to_it(
    cases: list[Case], wanted: Request, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claims hold between processes, so the other run is played here: it holds b, and finishes it when we wait for it."""
    other = fakes.request_for(wanted.bundle, wanted.output_dir)
    take, waits = Claims.take, itertools.count()

    def held(self: Claims, case: str) -> bool:
        return case != "b" and take(self, case)

    def finish(_: float) -> None:
        assert next(waits) == 0
        monkeypatch.undo()
        run([cases[1]], other)

    monkeypatch.setattr(Claims, "take", held)
    monkeypatch.setattr("stseg3d.batch.run.time.sleep", finish)
    result = run(cases, wanted)
    assert (result.done, result.skipped) == ({"a", "c", "d"}, 1)
    check_resumes(cases, wanted, undisturbed)


def test_a_runner_is_anything_that_turns_cases_into_outcomes(cases: list[Case], wanted: Request, undisturbed: dict[str, bytes]) -> None:
    class Backwards:
        """Two at a time, the later one first, each tried twice."""

        closed = False

        def run(self, cases: Iterator[Case]) -> Generator[CaseOutcome, None, None]:
            worker = CaseWorker(wanted)
            try:
                while pair := list(itertools.islice(cases, 2)):
                    for case in reversed(pair):
                        yield worker.run(case)
            finally:
                self.closed = True

    runner = Backwards()
    told: list[str] = []
    run_batch(cases, wanted, runner, on_outcome=lambda outcome: told.append(outcome.case))
    assert told == ["b", "a", "d", "c"]
    assert runner.closed
    assert labels(wanted) == undisturbed
