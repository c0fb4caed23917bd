"""Who works on which case: nothing is pulled before it is wanted, and what a dead worker left is tried once more."""

from __future__ import annotations

from pathlib import Path

import pytest

from stseg3d.batch import CaseOutcome, assignment
from stseg3d.batch.assignment import Assignment, CaseQueue
from stseg3d.results.journal import TIME_LIMIT, WORKER_DIED
from stseg3d.volumes import Case

CASES = [Case(name, Path(f"{name}.nii")) for name in "abc"]


def test_cases_are_pulled_one_by_one_and_those_to_be_tried_again_go_first() -> None:
    pulled: list[str] = []
    queue = CaseQueue(pulled.append(case.id) or case for case in CASES)  # type: ignore[func-returns-value]
    assert queue.take() == (CASES[0], 1)
    assert pulled == ["a"]
    assert queue.takes_back(CASES[0], CaseOutcome("a", "failed", attempt=1, error=WORKER_DIED))
    assert [queue.take() for _ in range(4)] == [(CASES[0], 2), (CASES[1], 1), (CASES[2], 1), None]
    assert queue.is_empty


@pytest.mark.parametrize(("error", "attempt"), [(WORKER_DIED, 2), (TIME_LIMIT, 1), ("ValueError", 1), ("", 1)])
def test_a_case_is_not_tried_again_without_need(error: str, attempt: int) -> None:
    queue = CaseQueue(iter([]))
    assert not queue.takes_back(CASES[0], CaseOutcome("a", "failed", attempt=attempt, error=error))
    assert queue.take() is None


def test_a_worker_is_at_its_case_until_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(assignment.time, "monotonic", lambda: now[0])
    worker = Assignment()
    worker.give(CASES[0], 2, 30.0)
    assert (worker.case, worker.deadline) == (CASES[0], 130.0)
    now[0] = 131.5
    late = worker.time_out(30.0)
    assert (late.case, late.state, late.attempt, late.error, late.seconds) == ("a", "failed", 2, TIME_LIMIT, 31.5)
    assert late.reason == "case must end within 30 s, got a worker that had not and was killed"
    assert worker.end(CaseOutcome("a", "done", attempt=1)) == CaseOutcome("a", "done", attempt=2)
    assert worker.case is None
