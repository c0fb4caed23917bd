"""Workers on many machines: a Ray cluster, of which every node that joins is used and any may be lost.

Ray finds the nodes, starts and stops processes on them and tells their deaths. Which case goes where, and how often it is tried, is decided
here: a task that Ray itself repeats would be begun without a line in the journal.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import re
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from stseg3d.batch.actor import Place, place_of
from stseg3d.batch.claims import CLAIMS_NAME
from stseg3d.batch.crew import Crew, Job
from stseg3d.batch.outcomes import WORKER_DIED, CaseOutcome
from stseg3d.batch.processes import ATTEMPTS
from stseg3d.batch.work import BatchSettings, CaseWorker
from stseg3d.machine.threads import cores
from stseg3d.volumes import Case

LOCAL, AUTO = "local", "auto"
OBJECT_STORE_BYTES = 80 * 2**20  # hardly more than the least that Ray takes: no image goes through it


class RayCluster:
    """A worker wherever a Ray cluster has room for one; one that is lost with its process or node costs a try of its case, not the batch.

    All nodes must have this package, and see images, bundle and the folder of outputs under the paths they have here. But for the images
    that is checked when a worker starts. A node where it is not so is left out with a warning; when none is left, the batch stops.

    If this process is connected to Ray already, that connection is used; else it connects while the batch runs.

    Args:
        settings: How; ``threads`` (1 if None) are those of each worker, which asks for as many CPUs.
        address: ``local`` starts Ray on this machine, for this batch; ``auto`` or ``HOST:PORT`` is one that this machine is a node of.
        jobs: Largest number of workers; by default as many as there is room for.
        gpus: Share of a GPU, up to 1, that each worker gets; by default a whole one, if the cluster has GPUs and the device is not ``cpu``.
        time_limit_s: How long a case may take, not counting the loading of the bundle; a worker that takes longer is killed.
        make_worker: Makes the worker of a process.

    Raises:
        ModuleNotFoundError: If Ray is not installed.
        ValueError: If an argument is not as above.
    """

    def __init__(
        self,
        settings: BatchSettings,
        address: str,
        *,
        jobs: int | None = None,
        gpus: float | None = None,
        time_limit_s: float | None = None,
        make_worker: Callable[[BatchSettings], CaseWorker] = CaseWorker,
    ) -> None:
        if importlib.util.find_spec("ray") is None:
            msg = "batches on a cluster need Ray, got none: pip install 'stseg3d[ray]'"
            raise ModuleNotFoundError(msg)
        _ensure_address(address)
        if (jobs is not None and jobs < 1) or (time_limit_s is not None and not time_limit_s > 0):
            msg = f"jobs and time_limit_s must be above 0, got {jobs} and {time_limit_s}"
            raise ValueError(msg)
        if gpus is not None and (not 0 < gpus <= 1 or settings.device == "cpu"):
            msg = f"gpus must be above 0 and at most 1, and the device not cpu, got gpus={gpus} and device={settings.device}"
            raise ValueError(msg)
        if ":" in settings.device:
            msg = f"device must be auto, cpu or cuda on a cluster, where Ray deals out the GPUs, got {settings.device}"
            raise ValueError(msg)
        self.settings, self.address, self.jobs, self.gpus = _absolute(settings), address, jobs, gpus
        self.time_limit_s = math.inf if time_limit_s is None else time_limit_s
        self.make_worker = make_worker

    def run(self, cases: Iterator[Case]) -> Generator[CaseOutcome, None, None]:
        """Outcomes, as soon as they are there.

        Raises:
            ConnectionError: If there is no such cluster.
            ValueError: If no node can work because of the bundle, the storage or the size of workers.
            RuntimeError: If none can for another reason.
        """
        marker = self.settings.output_dir / CLAIMS_NAME
        if not marker.exists():  # it is, where `run_batch` is at work; one that is opened anew would lose its locks
            marker.touch()
        place = place_of(self.settings)
        queue = _Queue(cases)
        with self._connected():
            crew = Crew(self._job(place), is_fixed=self.address == LOCAL)
            try:
                while self._give(crew, queue):
                    for worker in crew.wait():
                        outcome = crew.hear(worker, self.time_limit_s)
                        if outcome and outcome.error == WORKER_DIED and outcome.attempt < ATTEMPTS and worker.case:
                            queue.put_back(worker.case, outcome.attempt + 1)
                        elif outcome:
                            yield outcome
            finally:
                crew.dismiss()

    def _give(self, crew: Crew, queue: _Queue) -> bool:
        """Give each idle worker a case, as long as there are some; False once all is done."""
        for worker in crew.idle():
            work = queue.take()
            if work is None:
                break
            worker.give(*work, self.time_limit_s)
        crew.hire(are_needed=not queue.is_empty)
        return not queue.is_empty or any(worker.case for worker in crew.workers)

    def _job(self, place: Place) -> Job:
        import ray

        threads = self.settings.threads or 1
        has_gpus = any(node["Resources"].get("GPU") for node in ray.nodes() if node["Alive"])
        on_gpus = self.settings.device == "cuda" or (self.settings.device == "auto" and has_gpus)
        gpus = self.gpus or float(on_gpus)
        settings = replace(self.settings, threads=threads, device="cuda" if gpus else "cpu")
        return Job(settings, place, self.make_worker, cpus=threads, gpus=gpus, most=self.jobs)

    @contextmanager
    def _connected(self) -> Iterator[None]:
        # Ray prints the death of each worker to stdout, where our caller expects paths; what matters of it is in the outcome.
        os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "^")
        import ray

        if ray.is_initialized():
            yield
            return
        on_main = threading.current_thread() is threading.main_thread()
        before = signal.getsignal(signal.SIGTERM)
        try:
            self._connect(ray)
            if on_main:  # Ray sets its own, which would end this process with another status
                signal.signal(signal.SIGTERM, before)
            yield
        finally:
            ray.shutdown()

    def _connect(self, ray: Any) -> None:
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self.address == LOCAL:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            cpus = max(cores(), (self.jobs or 1) * (self.settings.threads or 1))
            ray.init(LOCAL, num_cpus=cpus, object_store_memory=OBJECT_STORE_BYTES, include_dashboard=False, **quiet)
            return
        try:
            _knock(self.address)
            ray.init(self.address, **quiet)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            why = str(error).strip().partition("\n")[0]
            msg = (
                f"address of Ray must be that of a cluster which this machine is a node of, got {self.address}: {why} "
                "(`ray start` makes it a node; RAY_AUTH_MODE=token is needed where the cluster has a token)"
            )
            raise ConnectionError(msg) from error


class _Queue:
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
        return None if case is None else (replace(case, image=case.image.absolute(), label=None), 1)

    def put_back(self, case: Case, attempt: int) -> None:
        """Let the case be tried again."""
        self._again.append((case, attempt))


def _absolute(settings: BatchSettings) -> BatchSettings:
    """The same for processes that are in another folder."""
    segment = {key: value.absolute() if isinstance(value, Path) else value for key, value in settings.segment.items()}
    return replace(settings, bundle=settings.bundle.absolute(), output_dir=settings.output_dir.absolute(), segment=segment)


def _ensure_address(address: str) -> None:
    if address not in (LOCAL, AUTO) and not re.fullmatch(r"[\w.\-\[\]:]+:\d+", address):
        client = "; Ray Client (ray://) is not supported, the batch must be started on a node of the cluster" if "://" in address else ""
        msg = f"address of Ray must be local, auto or HOST:PORT, got {address!r}{client}"
        raise ValueError(msg)


def _knock(address: str) -> None:
    """Fail at once where nobody listens; Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
