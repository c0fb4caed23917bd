"""Worker on a node of a cluster, which first checks that it has the right package, bundle and output folder."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from logging.handlers import QueueHandler
from typing import Any

from tqdm import tqdm

from stseg3d import __version__
from stseg3d.batch.claims import CLAIMS_NAME
from stseg3d.batch.outcomes import FAILED, CaseOutcome
from stseg3d.batch.work import CaseWorker
from stseg3d.inference import Request
from stseg3d.volumes import Case, ensure_writable


@dataclass(frozen=True)
class Place:
    """Facts that must be the same on every node.

    Attributes:
        version: Version of this package.
        bundle_digest: Digest of the bundle's files.
        folder_made_s: Time at which the output folder's file of claims was made; equal on all nodes that share the folder.
    """

    version: str
    bundle_digest: str
    folder_made_s: int


def place_of(request: Request) -> Place:
    """The place as this process sees it.

    Raises:
        FileNotFoundError: If the bundle or the output folder, with its file of claims, does not exist.
    """
    for what, path in (("output folder", request.output_dir / CLAIMS_NAME), ("bundle", request.bundle)):
        if not path.exists():
            msg = f"{what} must be on storage that all nodes share, got none at {path}"
            raise FileNotFoundError(msg)
    return Place(__version__, Request(request.bundle).digest, int(os.stat(request.output_dir / CLAIMS_NAME).st_mtime))


def ensure_in(place: Place, request: Request) -> None:
    """Refuse to work in another place.

    Raises:
        OSError: If the bundle or the output folder does not exist, or the folder cannot be written.
        ValueError: If the bundle, the folder or the version of this package differs.
    """
    here = place_of(request)
    if here.version != place.version:
        msg = f"stseg3d must be {place.version} on all nodes, as it is where the batch was started, got {here.version}"
        raise ValueError(msg)
    if here.folder_made_s != place.folder_made_s:
        msg = f"output folder must be on storage that all nodes share, got another one at {request.output_dir}"
        raise ValueError(msg)
    if here.bundle_digest != place.bundle_digest:
        msg = f"bundle must be on storage that all nodes share, or be the same on all, got another one at {request.bundle}"
        raise ValueError(msg)
    ensure_writable(request.output_dir)


@dataclass(frozen=True)
class Reply:
    """Reply of a worker.

    Attributes:
        outcome: Outcome of its case; one without a case says why the worker cannot work at all.
        logged: Log records of the package since the last reply.
    """

    outcome: CaseOutcome | None = None
    logged: list[logging.LogRecord] = field(default_factory=list)


class NodeWorker:
    """A :class:`CaseWorker` in a process of its own on some node; as a Ray actor.

    Args:
        request: The request, with absolute paths.
        place: The place where it must be.
        make_worker: Factory of the worker, :class:`CaseWorker` for segmentation.
    """

    def __init__(self, request: Request, place: Place, make_worker: Callable[[Request], CaseWorker] = CaseWorker) -> None:
        self.request, self.place, self.make_worker = request, place, make_worker
        self.worker: CaseWorker | None = None
        self._log = _LogBuffer()

    def load(self) -> Reply:
        """Load the bundle unless it is loaded, and reply whether cases may come."""
        try:
            if self.worker is None:
                self._log.listen()
                ensure_in(self.place, self.request)
                self.worker = self.make_worker(self.request)
        except Exception as error:  # also those of libraries that the driver may not have
            return Reply(CaseOutcome("", FAILED).failed(error), logged=self._log.taken())
        return Reply(logged=self._log.taken())

    def run(self, case: Case) -> Reply:
        """Work on a case; the worker is loaded."""
        assert self.worker is not None
        return Reply(self.worker.run(case), logged=self._log.taken())


class _LogBuffer(QueueHandler):
    """Buffer of the package's log records, ready to be sent."""

    queue: Any

    def __init__(self) -> None:
        super().__init__([])  # type: ignore[arg-type]

    def listen(self) -> None:
        """Collect the package's log records here, and silence third parties."""
        warnings.simplefilter("ignore")
        tqdm.set_lock(threading.RLock())  # its own is a semaphore of the system, which a killed process would leave behind
        package = logging.getLogger("stseg3d")
        package.addHandler(self)
        package.propagate = False

    def enqueue(self, record: logging.LogRecord) -> None:
        self.queue.append(record)

    def taken(self) -> list[logging.LogRecord]:
        """Log records since the last call."""
        records: list[logging.LogRecord] = self.queue
        self.queue = []
        return records
