"""Overlap within one process: the next case is read and the last one written while the networks run.

Inflating, compressing and hashing hold no lock of the interpreter, so threads are enough.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from threading import Thread
from typing import Any, Generic, TypeVar

from stseg3d.batch.outcomes import CaseOutcome
from stseg3d.batch.work import CaseAttempt, CaseWorker
from stseg3d.machine.memory import has_room
from stseg3d.volumes import Case

T = TypeVar("T")

PATIENCE_S = 10.0  # with a thread that is to end, which a dead file server may hold for ever


def overlapped(worker: CaseWorker, cases: Iterator[Case]) -> Generator[CaseOutcome, None, None]:
    """Outcomes of the cases, in their order: while the networks run on one, the next is read and the last one written.

    At most three cases are begun at once: one is read, one is with the networks, one is written. The image after the next is not touched,
    and the voxels of what is being written are let go. Voxels are read and labels written beside the networks only where there is
    room (:func:`stseg3d.machine.memory.has_room`); else in their own turn. The networks and ``next(cases)`` stay in the caller's thread,
    and so do the reading of the first case and the writing of the last: of a single case nothing is different.

    An outcome is told once the caller's thread is free: at the latest when the networks are done with the next case. If the process is
    killed before, that case is done once more by the next run. Ctrl-C ends the networks at once; what is being written is finished and
    told, what is being read is let go. Nothing that hangs is waited for longer than :data:`PATIENCE_S` at a time.

    Of each outcome ``seconds`` are those of its own steps, while others slow them down, so they add up to more than the batch took; and
    ``peak_memory_bytes`` is that of the process from when the case was pulled, with all that was there besides.

    Args:
        worker: Who works on them.
        cases: Cases; pulled when there is room for one more.
    """
    threads = _Threads()
    try:
        yield from _in_line(worker, cases, threads)
    except KeyboardInterrupt:
        yield from threads.written(PATIENCE_S)
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
    """Whether there is room for the case beside the one that is with the networks."""
    return has_room(attempt.held_bytes)


class _Threads:
    """The thread that reads and the one that writes, if there are any just now."""

    def __init__(self) -> None:
        self._reading: _Doing[None] | None = None
        self._writing: _Doing[CaseOutcome] | None = None

    def read(self, attempt: CaseAttempt) -> None:
        """Begin to read; nothing is being read."""
        self._reading = _Doing("reader", lambda: _read(attempt))

    def wait_for_read(self) -> None:
        """Wait until nothing is being read."""
        if self._reading:
            self._reading.end.result()
        self._reading = None

    def write(self, attempt: CaseAttempt) -> None:
        """Begin to write; nothing is being written."""
        self._writing = _Doing("writer", attempt.write)

    def written(self, patience_s: float | None = None) -> Iterator[CaseOutcome]:
        """The outcome of what is being written, if anything is: none if it takes longer than this."""
        if self._writing and wait([self._writing.end], patience_s).done:
            writing, self._writing = self._writing, None
            yield writing.end.result()

    def written_before_read(self) -> Iterator[CaseOutcome]:
        """The same, but none if it takes longer than the reading."""
        if self._writing and self._reading:
            ends: list[Future[Any]] = [self._writing.end, self._reading.end]
            wait(ends, return_when=FIRST_COMPLETED)
        yield from self.written(0)

    def leave(self) -> None:
        """Wait for the end of both, but not for ever."""
        for doing in (self._reading, self._writing):
            if doing:
                doing.thread.join(PATIENCE_S)


class _Doing(Generic[T]):
    """Something that is being done in a thread of its own, and its end."""

    def __init__(self, name: str, do: Callable[[], T]) -> None:
        self.end: Future[T] = Future()
        # An executor would wait for its threads when the interpreter ends, however long.
        self.thread = Thread(target=self._run, args=(do,), name=f"stseg3d {name}", daemon=True)
        self.thread.start()

    def _run(self, do: Callable[[], T]) -> None:
        try:
            self.end.set_result(do())
        except BaseException as error:  # goes on in the caller's thread
            self.end.set_exception(error)
