"""Assignment of cases to workers: the cases that are left, and the case that each worker in another process has."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

from stseg3d.results.journal import FAILED, TIME_LIMIT, WORKER_DIED, CaseOutcome, utc_now
from stseg3d.volumes import Case

ATTEMPTS = 2  # of a case whose worker died: the cause may have been its neighbour's memory
KILL_TIMEOUT_S = 10  # a dead file server can keep a killed process alive
MAX_STILLBORN = 3  # workers in a row that die while they load the bundle


class CaseQueue:
    """Cases to be done: those to be tried again, then new ones, each pulled only when a worker is free.

    Args:
        cases: The new ones.
        attempts: How often a case is tried whose worker dies.
    """

    def __init__(self, cases: Iterator[Case], attempts: int = ATTEMPTS) -> None:
        self._cases, self._again, self._attempts = cases, deque[tuple[Case, int]](), attempts
        self._has_ended = False

    @property
    def is_empty(self) -> bool:
        """Whether the queue is known to be empty."""
        return self._has_ended and not self._again

    def take(self) -> tuple[Case, int] | None:
        """A case and its attempt."""
        if self._again:
            return self._again.popleft()
        case = None if self._has_ended else next(self._cases, None)
        self._has_ended = case is None
        return None if case is None else (case, 1)

    def deal(self, workers: Sequence[Assignment], time_limit_s: float) -> bool:
        """Give each idle worker a case, if any are left; False once all are done."""
        for worker in workers:
            if worker.is_idle and (work := self.take()):
                worker.give(*work, time_limit_s)
        return not self.is_empty or any(worker.case for worker in workers)

    def takes_back(self, case: Case | None, outcome: CaseOutcome) -> bool:
        """Whether a case is to be tried again because its worker died."""
        if case is None or outcome.error != WORKER_DIED or outcome.attempt >= self._attempts:
            return False
        self._again.append((case, outcome.attempt + 1))
        return True


class Assignment:
    """Current case of a worker in another process, with its attempt and time limit."""

    def __init__(self) -> None:
        self.case: Case | None = None
        self.is_ready = False  # to be given cases
        self.attempt, self.begun, self.deadline, self.started_utc = 0, 0.0, math.inf, ""

    @property
    def is_idle(self) -> bool:
        """Whether the worker may be given a case."""
        return self.is_ready and self.case is None

    def give(self, case: Case, attempt: int, time_limit_s: float) -> None:
        """Let the worker work on a case."""
        self.case, self.attempt, self.started_utc = case, attempt, utc_now()
        self.begun = time.monotonic()
        self.deadline = self.begun + time_limit_s

    def end(self, outcome: CaseOutcome) -> CaseOutcome:
        """Outcome of the case, with this attempt; the worker is then free."""
        self.case, self.deadline = None, math.inf
        return replace(outcome, attempt=self.attempt)

    def lose(self, error: str, reason: str, traceback: str = "") -> CaseOutcome:
        """Outcome of a case whose end is unknown."""
        assert self.case is not None
        lost = CaseOutcome(self.case.id, FAILED, attempt=self.attempt, error=error, reason=reason, traceback=traceback)
        return replace(lost, seconds=round(time.monotonic() - self.begun, 4), started_utc=self.started_utc, ended_utc=utc_now())

    def time_out(self, time_limit_s: float) -> CaseOutcome:
        """Outcome of a case whose worker was killed at the time limit."""
        return self.lose(TIME_LIMIT, f"case must end within {time_limit_s:g} s, got a worker that had not and was killed")
