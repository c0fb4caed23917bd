"""Cases that overlap within one process: what runs beside what, how much at once, and what becomes of it when something breaks."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stseg3d.batch import CaseOutcome, CaseWorker, InProcess, overlap, run_batch, work
from stseg3d.batch.overlap import overlapped
from stseg3d.batch.work import PeakWatch
from stseg3d.inference import Request
from stseg3d.inference.segment import CaseWork, SegmentedCase
from stseg3d.machine import memory
from stseg3d.volumes import Case, list_cases
from tests.batch import fakes

PATIENCE_S = 60.0


class Recorder:
    """A worker whose steps do what a test says, ``steps["find a"] = action``, and a record of what was done in which thread."""

    def __init__(self, names: str) -> None:
        self.cases = [Case(name, Path(f"{name}.nii.gz")) for name in names]
        self.steps: dict[str, Callable[[], object]] = {}
        self.done: list[str] = []
        self.threads: dict[str, threading.Thread] = {}
        self.begun: dict[str, threading.Event] = {}
        self.open_now, self.most, self.held_bytes = 0, 0, 1

    def run(self) -> Iterator[CaseOutcome]:
        return overlapped(self, self.pulled())  # type: ignore[arg-type]

    def pulled(self) -> Iterator[Case]:
        for case in self.cases:
            self.note(f"pull {case.id}")
            self.open_now += 1
            self.most = max(self.most, self.open_now)
            yield case

    def attempt(self, case: Case) -> Attempt:
        return Attempt(self, case.id)

    def note(self, step: str) -> None:
        self.threads[step] = threading.current_thread()
        self.event(step).set()
        self.steps.get(step, lambda: None)()
        self.done.append(step)

    def event(self, step: str) -> threading.Event:
        return self.begun.setdefault(step, threading.Event())

    def has_begun(self, step: str) -> None:
        """Wait until a step has begun; that it never does is an error."""
        assert self.event(step).wait(PATIENCE_S), f"{step} was not begun, but {self.done}"

    def here(self) -> set[str]:
        return {step for step, thread in self.threads.items() if thread is threading.current_thread()}


class Attempt:
    """A case on a :class:`Recorder`."""

    def __init__(self, recorder: Recorder, name: str) -> None:
        self.recorder, self.name = recorder, name

    @property
    def held_bytes(self) -> int:
        return self.recorder.held_bytes

    def open(self) -> None:
        self.recorder.note(f"open {self.name}")

    def read_ahead(self) -> None:
        self.recorder.note(f"read {self.name}")

    def find(self) -> None:
        self.recorder.note(f"find {self.name}")

    def write(self) -> CaseOutcome:
        self.recorder.note(f"write {self.name}")
        self.recorder.open_now -= 1
        return CaseOutcome(self.name, "done", attempt=1)


@pytest.fixture(autouse=True)
def all_threads_end() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("stseg3d"):
            thread.join(1)  # one that has said its last word may take a moment to go
            assert not thread.is_alive()


def names(outcomes: Iterator[CaseOutcome]) -> list[str]:
    return [outcome.case for outcome in outcomes]


# --- what runs beside what ---------------------------------------------------


def test_the_next_case_is_read_and_the_last_one_written_while_the_networks_run() -> None:
    recorder = Recorder("abc")
    recorder.steps = {
        "find a": lambda: recorder.has_begun("read b"),
        "find b": lambda: (recorder.has_begun("read c"), recorder.has_begun("write a")),
        "find c": lambda: recorder.has_begun("write b"),
        "write a": lambda: recorder.has_begun("find b"),
        "write b": lambda: recorder.has_begun("find c"),
        "open b": lambda: recorder.has_begun("find a"),
        "open c": lambda: recorder.has_begun("find b"),
    }
    assert names(recorder.run()) == ["a", "b", "c"]
    aside = {"open b", "read b", "open c", "read c", "write a", "write b"}
    assert {recorder.threads[step].name for step in aside} == {"stseg3d reader", "stseg3d writer"}
    assert recorder.here() == set(recorder.done) - aside  # pulling, all networks, the first reading and the last writing


def test_no_more_than_one_case_is_read_ahead_and_one_is_written() -> None:
    recorder = Recorder("abcdef")
    recorder.steps["find a"] = lambda: recorder.has_begun("read b")
    recorder.steps["find c"] = lambda: recorder.has_begun("read d")
    for name, after in zip("abcd", "cdef", strict=True):  # with the next but one nobody begins before
        recorder.steps[f"write {name}"] = lambda after=after: recorder.event(f"pull {after}").wait(0.05)
    assert names(recorder.run()) == list("abcdef")
    assert recorder.most == 3
    for before, name, after in zip("abcd", "bcde", "cdef", strict=True):
        at = recorder.done.index
        assert at(f"find {before}") < at(f"pull {after}") < at(f"find {name}")
        assert at(f"write {before}") < at(f"write {name}")
        assert at(f"read {name}") < at(f"open {after}")


def test_what_is_written_is_told_while_the_next_case_is_still_read() -> None:
    recorder, told = Recorder("ab"), threading.Event()
    recorder.steps["read b"] = lambda: told.wait(PATIENCE_S) or pytest.fail("the outcome of a was not told")
    outcomes = recorder.run()
    assert next(outcomes).case == "a"
    told.set()
    assert names(outcomes) == ["b"]


def test_a_single_case_is_done_in_the_thread_of_the_caller_and_its_voxels_are_read_by_the_networks() -> None:
    recorder = Recorder("a")
    assert names(recorder.run()) == ["a"]
    assert recorder.done == ["pull a", "open a", "find a", "write a"]
    assert recorder.here() == set(recorder.done)
    assert names(Recorder("").run()) == []


@pytest.mark.parametrize("free", [3, None])
def test_where_memory_is_short_or_unknown_voxels_and_labels_wait_for_their_turn(free: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: free)  # of which a case would take 1
    recorder = Recorder("abc")
    assert names(recorder.run()) == ["a", "b", "c"]
    assert not any(step.startswith("read") for step in recorder.done)
    assert {f"write {name}" for name in "abc"} <= recorder.here()
    assert "open b" not in recorder.here()  # a header is small


# --- when something breaks ---------------------------------------------------


class StopError(BaseException):
    """What is no ``Exception``, and so no failure of a case."""


def stop() -> None:
    raise StopError


@pytest.mark.parametrize("step", ["pull b", "open b", "read b", "find b", "write b", "write c"])
def test_what_is_no_failure_of_a_case_ends_all_threads_and_reaches_the_caller(step: str) -> None:
    recorder = Recorder("abc")
    recorder.steps[step] = stop
    with pytest.raises(StopError):
        list(recorder.run())


def test_the_keyboard_ends_the_networks_while_what_is_written_is_finished_and_told() -> None:
    recorder, stopped = Recorder("abcd"), threading.Event()

    def interrupt() -> None:
        for step in ("write a", "open c"):
            recorder.has_begun(step)
        stopped.set()
        raise KeyboardInterrupt

    recorder.steps = {"find b": interrupt, "write a": lambda: stopped.wait(PATIENCE_S), "open c": lambda: stopped.wait(PATIENCE_S)}
    outcomes = recorder.run()
    assert next(outcomes).case == "a"
    with pytest.raises(KeyboardInterrupt):
        next(outcomes)
    assert {"pull d", "write b"}.isdisjoint(recorder.done)


def test_a_read_that_hangs_does_not_hold_the_keyboard_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "THREAD_TIMEOUT_S", 0.05)
    recorder, server_is_back = Recorder("abc"), threading.Event()

    def interrupt() -> None:
        recorder.has_begun("open b")
        raise KeyboardInterrupt

    recorder.steps = {"open b": lambda: server_is_back.wait(PATIENCE_S), "find a": interrupt}
    with pytest.raises(KeyboardInterrupt):
        list(recorder.run())
    assert "open b" not in recorder.done
    server_is_back.set()
    recorder.threads["open b"].join()


def test_a_batch_that_is_closed_early_waits_for_what_is_read() -> None:
    recorder, closing = Recorder("abc"), threading.Event()
    recorder.steps["read b"] = lambda: closing.wait(PATIENCE_S)
    outcomes = recorder.run()
    assert next(outcomes).case == "a"
    threading.Timer(0.1, closing.set).start()
    outcomes.close()  # type: ignore[attr-defined]
    assert recorder.done[-1] == "read b"


def test_a_batch_that_cannot_go_on_waits_for_what_is_written() -> None:
    recorder, stopped = Recorder("abc"), threading.Event()

    def stop_soon() -> None:
        recorder.has_begun("write a")
        threading.Timer(0.1, stopped.set).start()
        stop()

    recorder.steps = {"write a": lambda: stopped.wait(PATIENCE_S), "pull c": stop_soon}
    with pytest.raises(StopError):
        list(recorder.run())
    assert recorder.done[-1] == "write a"
    assert "find b" not in recorder.done


# --- with real cases ---------------------------------------------------------


@pytest.fixture
def cases(scans: Path) -> list[Case]:
    """Scans of all sorts: mapped, and compressed, of which the voxels are read ahead."""
    for seed in range(4, 8):
        fakes.make_scan(scans / f"{seed}.nii.gz", seed)
    return list_cases([scans])


@pytest.fixture
def wanted(bundle: Path, tmp_path: Path) -> Request:
    return fakes.request_for(bundle, tmp_path / "out")


def outputs(wanted: Request) -> dict[str, Any]:
    """Label maps, and what is said of them but for times and memory."""
    notes = {path.name: json.loads(path.read_text()) for path in wanted.output_dir.glob("*_seg.json")}
    for note in notes.values():
        for name in ("seconds", "stage_peak_bytes", "peak_memory_bytes", "output"):
            del note[name]
    return notes | {path.name: path.read_bytes() for path in wanted.output_dir.glob("*_seg.nii.gz")}


def test_labels_are_bit_for_bit_those_of_one_case_after_the_other(cases: list[Case], wanted: Request, tmp_path: Path) -> None:
    plain = fakes.request_for(wanted.bundle, tmp_path / "plain")
    told: list[CaseOutcome] = []
    run_batch(cases, wanted, InProcess(wanted), on_outcome=told.append)
    run_batch(cases, plain, InProcess(plain, overlap=False))
    assert outputs(wanted) == outputs(plain)
    assert len(outputs(wanted)) == 2 * len(cases) == 16
    assert [outcome.case for outcome in told] == [case.id for case in cases]
    assert all(outcome.seconds >= outcome.stages_s["total"] for outcome in told)


def test_a_case_that_fails_in_any_thread_fails_alone(
    cases: list[Case], wanted: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = fakes.request_for(wanted.bundle, tmp_path / "plain")
    run_batch(cases, plain, InProcess(plain, overlap=False))
    find, write = CaseWork.find, CaseWork.write

    def no_find(self: CaseWork) -> None:
        find(self) if self.case.id != "a" else 1 / 0

    def no_write(self: CaseWork) -> SegmentedCase:
        return write(self) if self.case.id != "b" else 1 / 0  # type: ignore[return-value]

    monkeypatch.setattr(CaseWork, "find", no_find)
    monkeypatch.setattr(CaseWork, "write", no_write)
    cases[1].image.write_bytes(b"no scan")  # on opening
    cases[2].image.write_bytes(cases[2].image.read_bytes()[:-9])  # on reading ahead
    told: list[CaseOutcome] = []
    result = run_batch(cases, wanted, InProcess(wanted), on_outcome=told.append)
    assert result.done == {"4", "7", "c", "d"}
    assert {outcome.case: outcome.error for outcome in result.failed} == {
        "5": "ValueError",
        "6": "ValueError",
        "a": "ZeroDivisionError",
        "b": "ZeroDivisionError",
    }
    assert [outcome.case for outcome in told] == [case.id for case in cases]
    assert all(outcome.case in outcome.reason for outcome in told if outcome.bad_input)
    expected = outputs(plain)
    assert outputs(wanted) == {name: expected[name] for name in expected if name[0] in result.done}


def test_an_image_that_changes_between_reading_ahead_and_its_networks_is_found_out(
    cases: list[Case], wanted: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = CaseWork.find

    def changed(self: CaseWork) -> None:
        if self.case.id in ("5", "b"):
            fakes.make_scan(self.case.image, seed=99, brightest=fakes.OBJECT + 1)
        find(self)

    monkeypatch.setattr(CaseWork, "find", changed)
    result = run_batch(cases, wanted, InProcess(wanted))
    assert {outcome.case for outcome in result.failed} == {"5", "b"}
    assert all("file must stay as it is while it is read, got another one" in outcome.reason for outcome in result.failed)
    assert not list(wanted.output_dir.glob("[5b]_*"))


# --- what is told ------------------------------------------------------------


def test_seconds_do_not_count_what_a_case_waits_for_others(cases: list[Case], wanted: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("stseg3d.batch.work.time.perf_counter", lambda: clock[0])
    attempt = CaseWorker(wanted).attempt(cases[0])
    for step in (attempt.open, attempt.read_ahead, attempt.find):
        step()
        clock[0] += 1000
    outcome = attempt.write()
    assert (outcome.state, outcome.seconds) == ("done", 0)


def test_the_peak_of_a_case_is_that_of_the_process_from_its_beginning_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0]
    monkeypatch.setattr(work, "peak_memory_bytes", lambda: now[0])
    monkeypatch.setattr(work, "reset_peak_memory", lambda: now.__setitem__(0, 1))
    watch = PeakWatch()
    watch.begin("a")
    now[0] = 5
    watch.begin("b")  # the system's peak begins anew, that of a does not
    now[0] = 3
    assert watch.end("a") == 5
    watch.begin("c")
    assert watch.end("b") == 3
    assert watch.end("c") == 1
