"""The batch: each case once, with every outcome in the journal."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

from stseg3d.batch.claims import CLAIMS_NAME, Claims
from stseg3d.batch.overlap import overlapped
from stseg3d.batch.processes import Processes
from stseg3d.batch.resume import remove_leftovers, settled
from stseg3d.batch.work import CaseWorker
from stseg3d.inference import Request
from stseg3d.results.journal import DONE, FAILED, STARTED, STOPPED, CaseOutcome, OutcomeLog, utc_now, write_summary
from stseg3d.results.stamps import stamp_if_there
from stseg3d.volumes import Case, ensure_writable
from stseg3d.volumes.ahead import CaseAhead

logger = logging.getLogger(__name__)

CLAIM_POLL_S = 0.5  # between two looks at cases that another run has claimed


class Runner(Protocol):
    """Works on cases: in this process, in others, or on other machines."""

    def run(self, cases: Iterator[Case]) -> Generator[CaseOutcome, None, None]:
        """Outcome of each case, in any order, as soon as it is known.

        A case that is pulled from ``cases`` counts as begun, so one is pulled only when a worker is free. A generator that is closed early
        or raises stops its workers. It raises only errors that concern all cases, such as a bundle that cannot be loaded. An error of a
        single case is an outcome, with ``attempt`` counted from 1.
        """


class InProcess:
    """Runner in this process: the next case is read and the last one written while the networks run.

    If this process dies, the next batch gives the cases that were in progress to :class:`stseg3d.batch.Processes`.

    Args:
        request: The request.
        overlap: Whether cases overlap, see :func:`stseg3d.batch.overlap.overlapped`; else one is done after the other.
        ahead: The first case, if it is being read already.
    """

    def __init__(self, request: Request, *, overlap: bool = True, ahead: CaseAhead | None = None) -> None:
        self.request, self.overlap, self.ahead = request, overlap, ahead

    def run(self, cases: Iterator[Case]) -> Generator[CaseOutcome, None, None]:
        """Outcomes, in the order of the cases."""
        worker = CaseWorker(self.request, self.ahead)
        yield from overlapped(worker, cases) if self.overlap else map(worker.run, cases)


class BatchStoppedError(RuntimeError):
    """The batch cannot go on, as an outcome could not be recorded. The same command resumes it."""


@dataclass
class BatchResult:
    """Result of a batch in this run.

    Attributes:
        done: Names of the cases that were done.
        skipped: Number of cases that had been done before.
        failed: Outcomes of the failed cases.
    """

    done: set[str] = field(default_factory=set)
    skipped: int = 0
    failed: list[CaseOutcome] = field(default_factory=list)


def run_batch(
    cases: Sequence[Case],
    request: Request,
    runner: Runner,
    *,
    overwrite: bool = False,
    on_todo: Callable[[int], None] = lambda _: None,
    on_outcome: Callable[[CaseOutcome], None] = lambda _: None,
) -> BatchResult:
    """Work on all cases that are not done yet, and write ``outcomes.jsonl`` and ``summary.csv`` beside the outputs.

    The same call resumes a batch that was stopped, see :func:`stseg3d.batch.resume.settled`. Several runs on one folder share the work:
    a case that another run works on is left to it, and checked again at the end.

    Args:
        cases: Cases, each with a name of its own.
        request: The request.
        runner: Runner that works on them.
        overwrite: Replace outputs that are not what would be written now, even those of others.
        on_todo: Called with the number of cases to be done, after the outcomes of those that need no work.
        on_outcome: Called with each outcome, once it is in the journal.

    Returns:
        The cases by result.

    Raises:
        OSError: If the folder cannot be written.
        BatchStoppedError: If an outcome cannot be recorded, as on a full disk.
    """
    new = not request.output_dir.exists()
    ensure_writable(request.output_dir)
    batch = _Batch(request, overwrite, on_outcome)
    try:
        todo = batch.unsettled(cases)
        on_todo(len(todo))
        while todo:
            for one, share in batch.shares(todo, runner):
                with closing(one.run(batch.claimed(share))) as outcomes:
                    for outcome in outcomes:
                        batch.finish(outcome)
            todo = batch.wait()
        batch.tell_vanished()
    finally:
        batch.close(new_folder=new)
    return batch.result


class _Batch:
    """One run: its journal, its claims, its result."""

    def __init__(self, request: Request, overwrite: bool, on_outcome: Callable[[CaseOutcome], None]) -> None:
        self.request, self.overwrite, self.on_outcome = request, overwrite, on_outcome
        self.folder = request.output_dir
        self.log = OutcomeLog(self.folder)
        self.claims = Claims(self.folder)
        self.result = BatchResult()
        self.begun: dict[str, CaseOutcome] = {}
        self.busy: list[Case] = []

    def unsettled(self, cases: Iterable[Case]) -> list[Case]:
        """Cases that are to be done; the outcomes of the others are reported."""
        return [case for case in cases if not self._settle(case)]

    def shares(self, cases: Sequence[Case], runner: Runner) -> Iterator[tuple[Runner, list[Case]]]:
        """The cases by runner: those that may have killed an earlier process like this one come last, in a process of their own."""
        alone = {case.id for case in cases if isinstance(runner, InProcess) and self._may_kill(case)}
        if len(alone) < len(cases):
            yield runner, [case for case in cases if case.id not in alone]
        if alone:
            names = ", ".join(sorted(alone))
            logger.warning("an earlier process died while it worked on them, so these get one of their own: %s", names)
            yield Processes(self.request, 1, attempts=1), [case for case in cases if case.id in alone]

    def claimed(self, cases: Iterable[Case]) -> Iterator[Case]:
        """The cases, each once it is claimed and its beginning recorded; those of another run are kept for later."""
        for case in cases:
            if not self.claims.take(case.id):
                self.busy.append(case)
            elif self._settle(case):  # another run was faster
                self.claims.release(case.id)
            else:
                self._begin(case)
                yield case

    def finish(self, outcome: CaseOutcome) -> None:
        """Record an outcome and release the case."""
        begun = self.begun[outcome.case]
        if outcome.was_interrupted:
            remove_leftovers(outcome.case, self.folder)
        attempt = begun.attempt + outcome.attempt - 1
        self._tell(replace(outcome, attempt=attempt, input=outcome.input or begun.input, request=self.request.digest))
        self.claims.release(outcome.case)

    def wait(self) -> list[Case]:
        """Cases that another run had claimed and did not do, once it works on none of them."""
        todo, self.busy = self.busy, []
        for case in todo:
            while not self.claims.take(case.id):
                time.sleep(CLAIM_POLL_S)
            self.claims.release(case.id)
        return self.unsettled(todo)

    def tell_vanished(self) -> None:
        """Report outputs of this run that are missing by now."""
        for case in sorted(self.result.done):
            then = self.log.last(case)
            if then is None or then.output is None or not (self.folder / then.output.path).is_file():
                self.result.done.remove(case)
                msg = f"{self.folder}: output of {case} must stay where it is until the batch ends, got none"
                self._tell((then or CaseOutcome(case, FAILED, attempt=1)).failed(FileNotFoundError(msg)))

    def close(self, *, new_folder: bool) -> None:
        """Write the summary, release all cases, and leave no files if nothing was done."""
        for case, begun in self.begun.items():  # of workers that were killed when the batch was stopped
            remove_leftovers(case, self.folder)
            with suppress(OSError):
                self.log.append(replace(begun, state=FAILED, error=STOPPED, reason="the batch was stopped", ended_utc=utc_now()))
        self.claims.close()
        try:
            if self.log.path.is_file():
                write_summary(self.log)
            elif new_folder:
                (self.folder / CLAIMS_NAME).unlink(missing_ok=True)
                self.folder.rmdir()
        except OSError as error:  # what counts is in the journal
            logger.warning("%s: summary could not be written: %s", self.folder, error.strerror or error)

    def _settle(self, case: Case) -> bool:
        outcome = settled(case, self.log.last(case.id), self.request, overwrite=self.overwrite)
        if outcome:
            self._tell(outcome)
        return outcome is not None

    def _may_kill(self, case: Case) -> bool:
        last = self.log.last(case.id)
        if not last or not last.may_have_killed or not self.claims.take(case.id):  # another run is at it
            return False
        self.claims.release(case.id)
        return True

    def _begin(self, case: Case) -> None:
        last = self.log.last(case.id)
        if last and last.was_interrupted:
            remove_leftovers(case.id, self.folder)
        attempt = last.attempt + 1 if last else 1
        stamped = stamp_if_there(case.image)
        begun = CaseOutcome(case.id, STARTED, attempt, input=stamped, request=self.request.digest, started_utc=utc_now())
        self.begun[case.id] = begun
        self._write(begun)

    def _tell(self, outcome: CaseOutcome) -> None:
        self._write(outcome)
        self.begun.pop(outcome.case, None)
        if outcome.state == DONE:
            self.result.done.add(outcome.case)
        elif outcome.state == FAILED:
            self.result.failed.append(outcome)
        else:
            self.result.skipped += 1
        self.on_outcome(outcome)

    def _write(self, outcome: CaseOutcome) -> None:
        try:
            self.log.append(outcome)
        except OSError as error:
            msg = f"{self.log.path}: outcome of {outcome.case} could not be written ({error.strerror or error}); the same command goes on"
            raise BatchStoppedError(msg) from error
