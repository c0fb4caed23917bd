"""The crew of a batch on a cluster: which workers there are, what each is at, and what became of it."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from stseg3d.batch.actor import NodeWorker, Place, Reply
from stseg3d.batch.assignment import ATTEMPTS, MAX_STILLBORN, PATIENCE_S, Assignment
from stseg3d.batch.outcomes import WORKER_DIED, CaseOutcome
from stseg3d.batch.work import CaseWorker
from stseg3d.inference import Request
from stseg3d.volumes import Case

logger = logging.getLogger(__name__)

LOOK_S = 5.0  # between two looks at which nodes there are
PATIENCE_WITH_CLUSTER_S = 60.0  # until a user is told that nobody is at work yet


@dataclass(frozen=True)
class Job:
    """What workers are hired for, and what each takes.

    Attributes:
        request: What is wanted of them.
        place: Where they must be.
        make_worker: What makes the worker of a process.
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
        """How many workers a node has room for, whoever may use it just now."""
        found = int(resources.get("CPU", 0)) // self.cpus
        return min(found, int(resources.get("GPU", 0)) * int(1 / self.gpus + 1e-6)) if self.gpus else found

    @property
    def size(self) -> str:
        """What a worker takes, in words."""
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
    """The driver's end of an actor, and what it is at.

    Args:
        actor: Its handle.
        node: Id of its node.
        host: Name of its node, for people.
    """

    def __init__(self, actor: Any, node: str, host: str) -> None:
        super().__init__()
        self.actor, self.node, self.host = actor, node, host
        self.is_ready = False
        self.answer: Any = None  # what it was asked last, until it is heard
        self.ask()

    @property
    def is_idle(self) -> bool:
        """Whether it may be given a case."""
        return self.is_ready and self.answer is None

    def ask(self) -> None:
        """Ask whether it is ready."""
        self.is_ready = False
        self.answer = self.actor.load.remote()

    def give(self, case: Case, attempt: int, time_limit_s: float) -> None:
        """Let it work on a case."""
        self.begin(case, attempt, time_limit_s)
        self.answer = self.actor.run.remote(case)

    def done(self, outcome: CaseOutcome | None) -> CaseOutcome | None:
        """Outcome of its case, if it had one; it is free then."""
        self.answer, self.is_ready = None, True
        return outcome and self.end(outcome)


class Crew:
    """All workers.

    Args:
        job: What they are hired for.
        is_fixed: Whether no node can join later.
    """

    def __init__(self, job: Job, *, is_fixed: bool) -> None:
        self.job, self.is_fixed = job, is_fixed
        self.workers: list[Worker] = []
        self._unfit: set[str] = set()  # ids of nodes
        self._stillborn: Counter[str] = Counter()
        self._look_at, self._tell_at = 0.0, time.monotonic() + PATIENCE_WITH_CLUSTER_S

    def idle(self) -> list[Worker]:
        """Workers that may be given a case."""
        return [worker for worker in self.workers if worker.is_idle]

    def hire(self, *, are_needed: bool = True) -> None:
        """Start workers where there is room for more, if they are needed and it is time for a look.

        Raises:
            ValueError: If there is room nowhere, and never will be.
        """
        import ray

        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_S
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
        """Those workers that have something to tell, or no time left; none if nothing happens for long."""
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
        """What a worker has to tell, or of its end: the outcome of its case, if it had one.

        Raises:
            ValueError: If it cannot work because of what it was given, and there is no other.
            RuntimeError: If it cannot for another reason, and there is no other.
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
        """End all processes, whatever they are at."""
        import ray

        answers = [worker.answer for worker in self.workers if worker.case]
        for worker in list(self.workers):
            self._lose(worker)
        if answers:  # until they have ended, they may write
            ray.wait(answers, num_returns=len(answers), timeout=PATIENCE_S)

    def _lose(self, worker: Worker) -> None:
        import ray

        ray.kill(worker.actor)
        self.workers.remove(worker)
        self._look_at = 0.0

    def _died(self, worker: Worker, error: Exception) -> CaseOutcome | None:
        self._lose(worker)
        for neighbour in self.workers:  # it may be the node that died, and what waits on it would not be missed
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
        """Do without a node where no worker can be; those that are at work there may stay."""
        self._unfit.add(worker.node)
        for one in [one for one in self.workers if one.node == worker.node and not one.is_ready and not one.case]:
            self._lose(one)
        self._look_at = 0.0
        self.hire()
        if not self.workers:
            raise why
        logger.warning("%s; going on without more workers there, with %d in all", why, len(self.workers))

    def _tell_if_nobody_works(self, nodes: int, places: int) -> None:
        """Say why nothing happens, if nothing does."""
        if any(worker.is_ready for worker in self.workers) or self._unfit:
            return
        if not places and self.is_fixed:
            msg = f"this machine must have the {self.job.size} that a worker takes"
            raise ValueError(msg)
        late = time.monotonic() >= self._tell_at
        if math.isfinite(self._tell_at) and (late or not places):
            self._tell_at = math.inf
            logger.warning("no worker is ready; waiting for one of %d, of %s each, on %d nodes", places, self.job.size, nodes)
