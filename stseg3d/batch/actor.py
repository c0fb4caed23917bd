"""Worker on a node of a cluster, which first checks that it has the right package, bundle and output folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

from stseg3d import __version__
from stseg3d.batch.claims import CLAIMS_NAME
from stseg3d.batch.logs import send_logs
from stseg3d.batch.work import CaseWorker
from stseg3d.inference import Request
from stseg3d.results.journal import FAILED, CaseOutcome
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


# Outcome of the case that a worker was given, if any; an outcome of no case says why it cannot work at all. And what it has logged since.
Reply = tuple[CaseOutcome | None, list[logging.LogRecord]]


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
        self._logged: list[logging.LogRecord] = []

    def load(self) -> Reply:
        """Load the bundle unless it is loaded, and reply whether cases may come."""
        try:
            if self.worker is None:
                send_logs(self._logged.append)
                ensure_in(self.place, self.request)
                self.worker = self.make_worker(self.request)
        except Exception as error:  # also those of libraries that the driver may not have
            return self._reply(CaseOutcome("", FAILED).failed(error))
        return self._reply(None)

    def run(self, case: Case) -> Reply:
        """Work on a case; the worker is loaded."""
        assert self.worker is not None
        return self._reply(self.worker.run(case))

    def _reply(self, outcome: CaseOutcome | None) -> Reply:
        logged = self._logged[:]
        del self._logged[: len(logged)]
        return outcome, logged
