"""Workers on the machines of a Ray cluster. Nodes may join or be lost at any time.

Ray finds the nodes, starts and stops processes on them and reports their deaths. This module decides which case goes where, and how often
it is tried, as a task repeated by Ray itself would have no line in the journal.
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
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from stseg3d.batch.actor import Place, place_of
from stseg3d.batch.assignment import CaseQueue
from stseg3d.batch.claims import CLAIMS_NAME
from stseg3d.batch.crew import Crew, Job
from stseg3d.batch.work import CaseWorker
from stseg3d.inference import Request
from stseg3d.machine.threads import cores
from stseg3d.results.journal import CaseOutcome
from stseg3d.volumes import Case

LOCAL, AUTO = "local", "auto"
OBJECT_STORE_BYTES = 80 * 2**20  # near Ray's minimum, as no image goes through it


class RayCluster:
    """Runner with a worker wherever a Ray cluster has room. A lost process or node costs an attempt of its case, not the batch.

    All nodes must have this package, and see the images, the bundle and the output folder under the same paths. All but the images is
    checked when a worker starts. A node that fails the check is left out with a warning. When none is left, the batch stops.

    If this process is connected to Ray already, that connection is used; else it connects while the batch runs.

    Args:
        request: The request; ``threads`` (1 if None) is the number of threads and CPUs of each worker.
        address: ``local`` starts Ray on this machine, for this batch; ``auto`` or ``HOST:PORT`` is one that this machine is a node of.
        jobs: Largest number of workers; by default as many as fit.
        gpus: Share of a GPU, up to 1, that each worker gets; by default a whole one, if the cluster has GPUs and the device is not ``cpu``.
        time_limit_s: How long a case may take, not counting the loading of the bundle; a worker that takes longer is killed.
        make_worker: Factory of a process's worker.

    Raises:
        ModuleNotFoundError: If Ray is not installed.
        ValueError: If an argument is not as above.
    """

    def __init__(
        self,
        request: Request,
        address: str,
        *,
        jobs: int | None = None,
        gpus: float | None = None,
        time_limit_s: float | None = None,
        make_worker: Callable[[Request], CaseWorker] = CaseWorker,
    ) -> None:
        if importlib.util.find_spec("ray") is None:
            msg = "batches on a cluster need Ray, got none: pip install 'stseg3d[ray]'"
            raise ModuleNotFoundError(msg)
        _ensure_address(address)
        if (jobs is not None and jobs < 1) or (time_limit_s is not None and not time_limit_s > 0):
            msg = f"jobs and time_limit_s must be above 0, got {jobs} and {time_limit_s}"
            raise ValueError(msg)
        if gpus is not None and (not 0 < gpus <= 1 or request.device == "cpu"):
            msg = f"gpus must be above 0 and at most 1, and the device not cpu, got gpus={gpus} and device={request.device}"
            raise ValueError(msg)
        if ":" in request.device:
            msg = f"device must be auto, cpu or cuda on a cluster, where Ray deals out the GPUs, got {request.device}"
            raise ValueError(msg)
        self.request, self.address, self.jobs, self.gpus = request.absolute(), address, jobs, gpus
        self.time_limit_s = math.inf if time_limit_s is None else time_limit_s
        self.make_worker = make_worker

    def run(self, cases: Iterator[Case]) -> Generator[CaseOutcome, None, None]:
        """Outcomes, as soon as they are known.

        Raises:
            ConnectionError: If there is no such cluster.
            ValueError: If no node can work because of the bundle, the storage or the size of workers.
            RuntimeError: If no node can work for another reason.
        """
        marker = self.request.output_dir / CLAIMS_NAME
        if not marker.exists():  # it is, where `run_batch` is at work; one that is opened anew would lose its locks
            marker.touch()
        place = place_of(self.request)
        queue = CaseQueue(cases)
        with self._connected():
            crew = Crew(self._job(place), is_fixed=self.address == LOCAL)
            try:
                while queue.deal(crew.workers, self.time_limit_s):
                    crew.hire(are_needed=not queue.is_empty)
                    for worker in crew.wait():
                        outcome = crew.hear(worker, self.time_limit_s)
                        if outcome and not queue.takes_back(worker.case, outcome):
                            yield outcome
            finally:
                crew.dismiss()

    def _job(self, place: Place) -> Job:
        import ray

        threads = self.request.threads or 1
        has_gpus = any(node["Resources"].get("GPU") for node in ray.nodes() if node["Alive"])
        on_gpus = self.request.device == "cuda" or (self.request.device == "auto" and has_gpus)
        gpus = self.gpus or float(on_gpus)
        request = replace(self.request, threads=threads, device="cuda" if gpus else "cpu")
        return Job(request, place, self.make_worker, cpus=threads, gpus=gpus, most=self.jobs)

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
            cpus = max(cores(), (self.jobs or 1) * (self.request.threads or 1))
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


def _ensure_address(address: str) -> None:
    if address not in (LOCAL, AUTO) and not re.fullmatch(r"[\w.\-\[\]:]+:\d+", address):
        client = "; Ray Client (ray://) is not supported, the batch must be started on a node of the cluster" if "://" in address else ""
        msg = f"address of Ray must be local, auto or HOST:PORT, got {address!r}{client}"
        raise ValueError(msg)


def _knock(address: str) -> None:
    """Fail at once if nothing listens at the address; Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
