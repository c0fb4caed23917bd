"""Workers of a batch on a cluster: who they are, their cases, and their ends."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

from stseg3d.batch.actor import NodeWorker, Place, Reply
from stseg3d.batch.assignment import ATTEMPTS, KILL_TIMEOUT_S, MAX_STILLBORN, Assignment
from stseg3d.batch.work import CaseWorker
from stseg3d.inference import Request
from stseg3d.results.journal import WORKER_DIED, CaseOutcome
from stseg3d.volumes import Case

logger = logging.getLogger(__name__)

NODE_CHECK_INTERVAL_S = 5.0
IDLE_WARNING_S = 60.0  # until a user is told that no worker is ready yet


@dataclass(frozen=True)
class Job:
    """Job of the workers, and the resources of each.

    Attributes:
        request: The request.
        place: Place where they must be.
        make_worker: Factory of a process's worker.
        cpus: CPUs of each.
        gpus: GPUs of each, at most 1.
        most: Largest number of workers, if any.
    """

    request: Request
    place: Place
    make_worker: Callable[[Request], CaseWorker]
    cpus: int
    gpus: float
    most: int | None = None

    def room(self, resources: dict[str, float]) -> int:
        """Number of workers that fit on a node when it is free."""
        found = int(resources.get("CPU", 0)) // self.cpus
        return min(found, int(resources.get("GPU", 0)) * int(1 / self.gpus + 1e-6)) if self.gpus else found

    @property
    def size(self) -> str:
        """Resources of a worker, in words."""
        return f"{self.cpus} CPU" + (f" and {self.gpus:g} GPU" if self.gpus else "")

    @cached_property
    def _actor(self) -> Any:
        import ray

        return ray.remote(NodeWorker)

    def start(self, node: str) -> Any:
        """An actor on the node of that id."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        takes = {"num_cpus": self.cpus, "num_gpus": self.gpus, "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}
        # Neither Ray's retries nor its history of tasks, which would grow with the batch.
        actor = self._actor.options(**takes, max_restarts=0, max_task_retries=0, enable_task_events=False)
        return actor.remote(self.request, self.place, self.make_worker)


class Worker(Assignment):
    """The driver's end of an actor, and its current case.

    Args:
        actor: Its handle.
        node: Id of its node.
        host: Name of its node, for people.
    """

    def __init__(self, actor: Any, node: str, host: str) -> None:
        super().__init__()
        self.actor, self.node, self.host = actor, node, host
        self.answer: Any = None  # of the last call, until it is read
        self.ask()

    def ask(self) -> None:
        """Ask whether it is ready."""
        self.is_ready = False
        self.answer = self.actor.load.remote()

    def give(self, case: Case, attempt: int, time_limit_s: float) -> None:
        """Let it work on a case, whose label it does not need."""
        super().give(case, attempt, time_limit_s)
        self.answer = self.actor.run.remote(replace(case.absolute(), label=None))

    def done(self, outcome: CaseOutcome | None) -> CaseOutcome | None:
        """Outcome of its case, if it had one; it is free then."""
        self.answer, self.is_ready = None, True
        return outcome and self.end(outcome)


class Crew:
    """All workers of a batch.

    Args:
        job: Their job.
        is_fixed: Whether no node can join later.
    """

    def __init__(self, job: Job, *, is_fixed: bool) -> None:
        self.job, self.is_fixed = job, is_fixed
        self.workers: list[Worker] = []
        self._unfit: set[str] = set()  # ids of nodes
        self._stillborn: Counter[str] = Counter()
        self._look_at, self._tell_at = 0.0, time.monotonic() + IDLE_WARNING_S

    def hire(self, *, are_needed: bool = True) -> None:
        """Start workers where more fit, if they are needed and it is time to check.

        Raises:
            ValueError: If a worker fits on no node, and none can join.
        """
        import ray

        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + NODE_CHECK_INTERVAL_S
        if not are_needed:
            return
        nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in self._unfit}
        places = sorted((k, node) for node in nodes for k in range(self.job.room(nodes[node]["Resources"])))
        there = Counter(worker.node for worker in self.workers)
        for k, node in places:  # on as many nodes as possible
            if k >= there[node] and len(self.workers) < (self.job.most or math.inf):
                self.workers.append(Worker(self.job.start(node), node, nodes[node]["NodeManagerHostname"]))
        self._tell_if_nobody_works(len(nodes), len(places))

    def wait(self) -> list[Worker]:
        """Workers with a reply or at their time limit; none if nothing happens for a while."""
        import ray

        until = min([self._look_at, *(worker.deadline for worker in self.workers)])
        seconds = max(until - time.monotonic(), 0)
        answers = [worker.answer for worker in self.workers if worker.answer is not None]
        if not answers:
            time.sleep(seconds)
            return []
        ray.wait(answers, timeout=seconds)
        ready = set(ray.wait(answers, num_returns=len(answers), timeout=0)[0])
        return [worker for worker in self.workers if worker.answer in ready or time.monotonic() >= worker.deadline]

    def hear(self, worker: Worker, time_limit_s: float) -> CaseOutcome | None:
        """Outcome of a worker's case, if it had one, from its reply or its death.

        Raises:
            ValueError: If its input keeps the last worker from working.
            RuntimeError: If the last worker cannot work for another reason.
        """
        import ray

        if worker not in self.workers:  # dismissed meanwhile
            return None
        if not ray.wait([worker.answer], timeout=0)[0]:
            self._lose(worker)
            return worker.time_out(time_limit_s)
        try:
            outcome, logged = cast(Reply, ray.get(worker.answer))
        except ray.exceptions.RayError as error:
            return self._died(worker, error)
        for record in logged:
            logging.getLogger(record.name).handle(record)
        if outcome and not outcome.case:
            self._leave_out(worker, outcome.as_error(f"node {worker.host}: "))
            return None
        self._stillborn[worker.node] = 0
        return worker.done(outcome)

    def dismiss(self) -> None:
        """End all processes at once."""
        import ray

        answers = [worker.answer for worker in self.workers if worker.case]
        for worker in list(self.workers):
            self._lose(worker)
        if answers:  # they may write until they have ended
            ray.wait(answers, num_returns=len(answers), timeout=KILL_TIMEOUT_S)

    def _lose(self, worker: Worker) -> None:
        import ray

        ray.kill(worker.actor)
        self.workers.remove(worker)
        self._look_at = 0.0

    def _died(self, worker: Worker, error: Exception) -> CaseOutcome | None:
        self._lose(worker)
        for neighbour in self.workers:  # the node itself may have died
            if neighbour.node == worker.node and neighbour.is_idle:
                neighbour.ask()
        if worker.case:
            return worker.lose(WORKER_DIED, f"worker on {worker.host} died in attempt {worker.attempt} of {ATTEMPTS}", str(error))
        self._stillborn[worker.node] += 1
        if self._stillborn[worker.node] == MAX_STILLBORN:
            last = (str(error).strip() or "no reason given").splitlines()[-1]
            msg = f"node {worker.host}: workers must live to load the bundle, got {MAX_STILLBORN} that died one after the other: {last}"
            self._leave_out(worker, RuntimeError(msg))
        return None

    def _leave_out(self, worker: Worker, why: Exception) -> None:
        """Start no more workers on a node; those at work there may stay."""
        self._unfit.add(worker.node)
        for one in [one for one in self.workers if one.node == worker.node and not one.is_ready and not one.case]:
            self._lose(one)
        self._look_at = 0.0
        self.hire()
        if not self.workers:
            raise why
        logger.warning("%s; going on without more workers there, with %d in all", why, len(self.workers))

    def _tell_if_nobody_works(self, nodes: int, places: int) -> None:
        """Warn if no worker is ready."""
        if any(worker.is_ready for worker in self.workers) or self._unfit:
            return
        if not places and self.is_fixed:
            msg = f"this machine must have the {self.job.size} that a worker takes"
            raise ValueError(msg)
        late = time.monotonic() >= self._tell_at
        if math.isfinite(self._tell_at) and (late or not places):
            self._tell_at = math.inf
            logger.warning("no worker is ready; waiting for one of %d, of %s each, on %d nodes", places, self.job.size, nodes)
