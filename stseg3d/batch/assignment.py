"""Who works on which case: the cases that are left to do, and what a worker in another process is at."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from stseg3d.batch.outcomes import FAILED, TIME_LIMIT, WORKER_DIED, CaseOutcome, utc_now
from stseg3d.volumes import Case

ATTEMPTS = 2  # of a case whose worker died: the cause may have been its neighbour's memory
PATIENCE_S = 10  # with a killed process, which the kernel keeps as long as a dead file server holds it
MAX_STILLBORN = 3  # workers in a row that die while they load the bundle


class CaseQueue:
    """Cases to be done: those to be tried again, then new ones, each pulled only when it is wanted."""

    def __init__(self, cases: Iterator[Case]) -> None:
        self._cases, self._again = cases, deque[tuple[Case, int]]()
        self._has_ended = False

    @property
    def is_empty(self) -> bool:
        """Whether there is known to be none."""
        return self._has_ended and not self._again

    def take(self) -> tuple[Case, int] | None:
        """A case and its attempt."""
        if self._again:
            return self._again.popleft()
        case = None if self._has_ended else next(self._cases, None)
        self._has_ended = case is None
        return None if case is None else (case, 1)

    def takes_back(self, case: Case | None, outcome: CaseOutcome) -> bool:
        """Whether a case is to be tried again, as one whose worker died is."""
        if case is None or outcome.error != WORKER_DIED or outcome.attempt >= ATTEMPTS:
            return False
        self._again.append((case, outcome.attempt + 1))
        return True


class Assignment:
    """What a worker in another process is at: a case, which attempt it is, and how long it may take."""

    def __init__(self) -> None:
        self.case: Case | None = None
        self.attempt, self.begun, self.deadline, self.started_utc = 0, 0.0, math.inf, ""

    def begin(self, case: Case, attempt: int, time_limit_s: float) -> None:
        """A case is given to the worker."""
        self.case, self.attempt, self.started_utc = case, attempt, utc_now()
        self.begun = time.monotonic()
        self.deadline = self.begun + time_limit_s

    def end(self, outcome: CaseOutcome) -> CaseOutcome:
        """Outcome of the case as of this attempt; the worker is free."""
        self.case, self.deadline = None, math.inf
        return replace(outcome, attempt=self.attempt)

    def lose(self, error: str, reason: str, traceback: str = "") -> CaseOutcome:
        """Outcome of the case, of which nobody saw the end."""
        assert self.case is not None
        lost = CaseOutcome(self.case.id, FAILED, attempt=self.attempt, error=error, reason=reason, traceback=traceback)
        return replace(lost, seconds=round(time.monotonic() - self.begun, 4), started_utc=self.started_utc, ended_utc=utc_now())

    def time_out(self, time_limit_s: float) -> CaseOutcome:
        """Outcome of the case, whose worker was killed for it."""
        return self.lose(TIME_LIMIT, f"case must end within {time_limit_s:g} s, got a worker that had not and was killed")
