"""Overlap within one process: the next case is read and the last one written while the networks run.

Inflating, compressing and hashing release the interpreter's lock, so threads are enough.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from threading import Thread
from typing import Any, Generic, TypeVar

from stseg3d.batch.work import CaseAttempt, CaseWorker
from stseg3d.machine.memory import has_room
from stseg3d.results.journal import CaseOutcome
from stseg3d.volumes import Case

T = TypeVar("T")

THREAD_TIMEOUT_S = 10.0  # a dead file server can keep a thread alive for ever


def overlapped(worker: CaseWorker, cases: Iterator[Case]) -> Generator[CaseOutcome, None, None]:
    """Outcomes of the cases, in their order: while the networks run on one, the next is read and the last one written.

    At most three cases are in progress: one is read, one is with the networks, one is written. The voxels of the last one are dropped.
    Reading and writing overlap with the networks only if there is enough memory (:func:`stseg3d.machine.memory.has_room`); else they take
    turns. The networks and ``next(cases)`` stay in the caller's thread, and so do reading the first case and writing the last, so that a
    single case is done as without overlap.

    An outcome is reported once the caller's thread is free, at the latest when the networks are done with the next case. If the process
    is killed before, the next run does that case again. Ctrl-C ends the networks at once; a case that is being written is finished and
    reported, one that is being read is dropped. No hanging thread is waited for longer than :data:`THREAD_TIMEOUT_S` at a time.

    The ``seconds`` of an outcome are those of its own steps, slowed down by others, so they add up to more than the batch took. Its
    ``peak_memory_bytes`` is that of the process since the case was pulled, including other cases.

    Args:
        worker: The worker.
        cases: Cases; pulled when there is room for one more.
    """
    threads = _Threads()
    try:
        yield from _in_line(worker, cases, threads)
    except KeyboardInterrupt:
        yield from threads.written(THREAD_TIMEOUT_S)
        raise
    finally:
        threads.leave()


def _in_line(worker: CaseWorker, cases: Iterator[Case], threads: _Threads) -> Generator[CaseOutcome, None, None]:
    attempt = _begun(worker, cases)
    if attempt:
        attempt.open()
    while attempt:
        after = _begun(worker, cases)
        if after:
            threads.read(after)
        attempt.find()
        yield from threads.written()
        if after and _fits(attempt):
            threads.write(attempt)
            yield from threads.written_before_read()
        else:
            yield attempt.write()
        threads.wait_for_read()
        attempt = after


def _begun(worker: CaseWorker, cases: Iterator[Case]) -> CaseAttempt | None:
    case = next(cases, None)
    return worker.attempt(case) if case else None


def _read(attempt: CaseAttempt) -> None:
    attempt.open()
    if _fits(attempt):
        attempt.read_ahead()


def _fits(attempt: CaseAttempt) -> bool:
    """Whether the case fits into memory beside the one that is with the networks."""
    return has_room(attempt.held_bytes)


class _Threads:
    """The thread that reads and the one that writes, if any."""

    def __init__(self) -> None:
        self._reading: _Doing[None] | None = None
        self._writing: _Doing[CaseOutcome] | None = None

    def read(self, attempt: CaseAttempt) -> None:
        """Begin to read; only if nothing is being read."""
        self._reading = _Doing("reader", lambda: _read(attempt))

    def wait_for_read(self) -> None:
        """Wait until nothing is being read."""
        if self._reading:
            self._reading.end.result()
        self._reading = None

    def write(self, attempt: CaseAttempt) -> None:
        """Begin to write; only if nothing is being written."""
        self._writing = _Doing("writer", attempt.write)

    def written(self, patience_s: float | None = None) -> Iterator[CaseOutcome]:
        """Outcome of the case that is being written, if any; none if it takes longer than ``patience_s``."""
        if self._writing and wait([self._writing.end], patience_s).done:
            writing, self._writing = self._writing, None
            yield writing.end.result()

    def written_before_read(self) -> Iterator[CaseOutcome]:
        """Outcome of the case that is being written, if it ends before the reading does."""
        if self._writing and self._reading:
            ends: list[Future[Any]] = [self._writing.end, self._reading.end]
            wait(ends, return_when=FIRST_COMPLETED)
        yield from self.written(0)

    def leave(self) -> None:
        """Wait for both threads to end, up to the time limit."""
        for doing in (self._reading, self._writing):
            if doing:
                doing.thread.join(THREAD_TIMEOUT_S)


class _Doing(Generic[T]):
    """A call in a thread of its own, and its result."""

    def __init__(self, name: str, do: Callable[[], T]) -> None:
        self.end: Future[T] = Future()
        # An executor would wait for its threads for ever when the interpreter ends.
        self.thread = Thread(target=self._run, args=(do,), name=f"stseg3d {name}", daemon=True)
        self.thread.start()

    def _run(self, do: Callable[[], T]) -> None:
        try:
            self.end.set_result(do())
        except BaseException as error:  # goes on in the caller's thread
            self.end.set_exception(error)
