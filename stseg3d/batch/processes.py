"""Workers in processes of this machine: one that dies or hangs costs a case, not the batch.

``concurrent.futures`` cannot do this: one dead process breaks its pool and loses all pending tasks, and a running task cannot be
stopped. So each worker has its own pipe, which closes when the worker dies. ``pebble`` 5.2 can do both, but its workers go on when this
process is killed, and it reports any failure to load a bundle as "All workers expired".
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing import connection, resource_tracker
from typing import Any

from stseg3d.batch.assignment import ATTEMPTS, KILL_TIMEOUT_S, MAX_STILLBORN, Assignment, CaseQueue
from stseg3d.batch.logs import send_logs
from stseg3d.batch.work import CaseWorker
from stseg3d.inference import Request
from stseg3d.results.journal import FAILED, WORKER_DIED, CaseOutcome
from stseg3d.volumes import Case

logger = logging.getLogger(__name__)

READY = "ready"


class Processes:
    """Runner with several processes, each with the bundle loaded; one that dies is replaced, and its case tried once more.

    They end with this process, even if it is killed. As always with ``multiprocessing``, a script must use this under
    ``if __name__ == "__main__":``.

    Args:
        request: The request; ``threads`` are those of each worker.
        jobs: Number of processes.
        time_limit_s: How long a case may take, not counting the loading of the bundle; a worker that takes longer is killed.
        attempts: How often a case is tried whose process dies.
    """

    def __init__(self, request: Request, jobs: int, *, time_limit_s: float | None = None, attempts: int = ATTEMPTS) -> None:
        if jobs < 1 or (time_limit_s is not None and not time_limit_s > 0):
            msg = f"jobs and time_limit_s must be above 0, got {jobs} and {time_limit_s}"
            raise ValueError(msg)
        self.request, self.jobs, self.attempts = request, jobs, attempts
        self.time_limit_s = math.inf if time_limit_s is None else time_limit_s

    def run(self, cases: Iterator[Case]) -> Generator[CaseOutcome, None, None]:
        """Outcomes, as soon as they are known.

        Raises:
            ValueError: If the bundle is invalid.
            RuntimeError: If it cannot be loaded for another reason.
        """
        workers: list[_Worker] = []
        queue = CaseQueue(cases, self.attempts)
        try:
            for _ in range(self.jobs):
                workers.append(_Worker(self.request, self.attempts))  # one by one, so that an interrupt ends those that exist
            while queue.deal(workers, self.time_limit_s):
                for worker in _wait(workers):
                    outcome = worker.take(self.time_limit_s)
                    if worker.death:
                        self._replace(worker, workers)
                    if outcome and not queue.takes_back(worker.case, outcome):
                        yield outcome
        finally:
            for worker in workers:
                worker.kill()

    def _replace(self, worker: _Worker, workers: list[_Worker]) -> None:
        """Replace a dead worker, unless too many have died while loading."""
        at = workers.index(worker)
        stillborn = 0 if worker.is_ready else worker.stillborn + 1
        if stillborn < MAX_STILLBORN:
            workers[at] = _Worker(self.request, self.attempts, stillborn)
            return
        del workers[at]
        msg = f"worker processes must live to load the bundle, got {stillborn} that died one after the other, the last of {worker.death}"
        if not workers:
            raise RuntimeError(msg)
        logger.warning("%s; going on with %d", msg, len(workers))


class _Worker(Assignment):
    """The driver's end of a process: its pipe, and its current case."""

    def __init__(self, request: Request, attempts: int, stillborn: int = 0) -> None:
        super().__init__()
        self.attempts = attempts
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads, as torch's, may hang
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, request), daemon=True)
        with _interrupts_blocked():  # Ctrl-C is for us
            self.process.start()
        theirs.close()  # so that the pipe ends when the process does
        self.stillborn = stillborn  # predecessors that died before they were ready
        self.death = ""

    def give(self, case: Case, attempt: int, time_limit_s: float) -> None:
        """Let it work on a case."""
        super().give(case, attempt, time_limit_s)
        with suppress(OSError):  # it has just died, as the pipe will show
            self.pipe.send(case)

    def take(self, time_limit_s: float) -> CaseOutcome | None:
        """Outcome of its case from its reply or its death, if any."""
        has_ended = not self.process.is_alive()  # Windows may keep the pipe of a process open that has ended while it started
        try:
            message = self.pipe.recv() if self.pipe.poll() else None
        except (EOFError, OSError):
            return self._died()
        if message is None and has_ended:
            return self._died()
        if isinstance(message, CaseOutcome):
            if not message.case:
                raise message.as_error()
            return self.end(message)
        if message is None and time.monotonic() >= self.deadline:
            self.kill()
            self.death = "the time limit"
            return self.time_out(time_limit_s)
        if isinstance(message, logging.LogRecord):
            logging.getLogger(message.name).handle(message)
        elif message == READY:
            self.is_ready = True
        return None

    def kill(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.join(KILL_TIMEOUT_S)
        self.pipe.close()

    def _died(self) -> CaseOutcome | None:
        self.process.join()
        code = self.process.exitcode or 0
        self.death = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        self.pipe.close()
        if self.case is None:
            return None
        when = f"in attempt {self.attempt} of {self.attempts}" if self.attempts > 1 else "as an earlier one did"
        return self.lose(WORKER_DIED, f"worker process died of {self.death} {when}")


def _wait(workers: list[_Worker]) -> list[_Worker]:
    """Workers with a reply or at their time limit."""
    seconds = min(worker.deadline for worker in workers) - time.monotonic()
    ends = [end for worker in workers for end in (worker.pipe, worker.process.sentinel)]
    ready = connection.wait(ends, None if math.isinf(seconds) else max(seconds, 0))
    return [w for w in workers if w.pipe in ready or w.process.sentinel in ready or time.monotonic() >= w.deadline]


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Context in which Ctrl-C waits, and does not reach a process that is started; on Windows it may end that process."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # its start would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- in the process ----------------------------------------------------------


def _serve(pipe: Any, request: Request) -> None:
    """Work on the cases from the pipe until it closes; an outcome without a case says why the worker cannot work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    send_logs(pipe.send)
    try:
        worker = CaseWorker(request)
    except Exception as error:
        pipe.send(CaseOutcome("", FAILED).failed(error))
        return
    inferer = worker.segmenter.inferer
    inferer.execution = replace(inferer.execution, progress=False)  # the driver's bar is enough
    with suppress(EOFError, OSError):
        pipe.send(READY)
        while True:
            pipe.send(worker.run(pipe.recv()))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        connection.wait([parent.sentinel])
        os._exit(1)  # at once: nobody is left to write down what would come of the case
