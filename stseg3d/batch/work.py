"""Work on one case, from its image to its outcome, even if it fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from stseg3d.inference import Request
from stseg3d.inference.segment import CaseWork, SegmentedCase, Segmenter
from stseg3d.machine.memory import peak_memory_bytes, reset_peak_memory
from stseg3d.results.journal import DONE, FAILED, CaseOutcome, utc_now
from stseg3d.results.notes import NOTES_SUFFIX
from stseg3d.results.stamps import FileStamp, stamp, stamp_if_there
from stseg3d.volumes import Case
from stseg3d.volumes.ahead import CaseAhead
from stseg3d.volumes.open import Source


class CaseWorker:
    """A bundle, loaded once, that turns cases into outcomes.

    Args:
        request: The request.
        ahead: The first case, if it is being read already.

    Raises:
        FileNotFoundError: If there is no such bundle, or it has no weights.
        ValueError: If the weights do not fit, or an option is unknown.
    """

    def __init__(self, request: Request, ahead: CaseAhead | None = None) -> None:
        self._ahead = ahead
        self.segmenter = Segmenter(request)
        self._memory = PeakWatch()

    def run(self, case: Case) -> CaseOutcome:
        """Segment a case; raises no ``Exception``, only the like of Ctrl-C.

        Returns:
            The outcome, ``done`` or ``failed``, as at a first attempt. If it is ``done``, the output is complete and made from the stamped
            input; otherwise no output was written, and an earlier one stays.
        """
        attempt = self.attempt(case)
        attempt.open()
        attempt.find()
        return attempt.write()

    def attempt(self, case: Case) -> CaseAttempt:
        """A case to be worked on step by step; its peak memory counts from now on."""
        ahead, self._ahead = self._ahead, None
        return CaseAttempt(CaseWork(self.segmenter, case), self._memory, ahead)


class CaseAttempt:
    """The steps of a case, those of :class:`stseg3d.inference.segment.CaseWork`, and its outcome.

    No step raises an ``Exception``: after one that fails the others do nothing, and the outcome says why.

    Args:
        work: The steps that may raise.
        memory: Watch of the worker's memory.
        ahead: The first case, if it is being read already.
    """

    def __init__(self, work: CaseWork, memory: PeakWatch, ahead: CaseAhead | None = None) -> None:
        self.case, self._ahead, self._memory = work.case, ahead, memory
        self._work: CaseWork | None = work  # until it fails
        self._seconds = 0.0
        memory.begin(self)

    @property
    def held_bytes(self) -> int:
        """Memory of its image's voxels, or of its labels once they are found; 0 if it has failed."""
        return self._work.held_bytes if self._work else 0

    def open(self) -> None:
        """Open the image."""
        self._outcome = CaseOutcome(self.case.id, FAILED, attempt=1, input=stamp_if_there(self.case.image), started_utc=utc_now())
        self._do(self._open)

    def read_ahead(self) -> None:
        """Read the voxels before :meth:`find` needs them; optional."""
        self._do(CaseWork.read_ahead)

    def find(self) -> None:
        """Find the labels: the networks run here, and in no other step."""
        self._do(CaseWork.find)

    def write(self) -> CaseOutcome:
        """Write the labels.

        Returns:
            The outcome, like that of :meth:`CaseWorker.run`. Its ``seconds`` are those of the steps, without the waits between them.
        """
        self._do(self._write)
        seconds, peak = round(self._seconds, 4), self._memory.end(self)
        return replace(self._outcome, seconds=seconds, peak_memory_bytes=peak, ended_utc=utc_now())

    def _open(self, work: CaseWork) -> None:
        self._before = stamp(self.case.image)
        work.open(self._ahead.take(self.case) if self._ahead else None)

    def _write(self, work: CaseWork) -> None:
        made = work.write()
        self._outcome = replace(
            self._outcome,
            state=DONE,
            input=_still(self.case.image, self._before, made),
            output=replace(stamp(made.output, content=True), path=made.output.name),
            stages_s=made.provenance["seconds"],
            warnings=made.provenance["warnings"],
        )

    def _do(self, step: Callable[[CaseWork], None]) -> None:
        if self._work is None:
            return
        start = time.perf_counter()
        try:
            step(self._work)
        except Exception as error:  # a failing case never stops the batch
            self._outcome, self._work = self._outcome.failed(error), None
        finally:
            self._seconds += time.perf_counter() - start


class PeakWatch:
    """Largest resident memory of this process while each of several cases is worked on.

    The system keeps a single peak, which each case resets; the peak until then counts for all cases in progress.
    """

    def __init__(self) -> None:
        self._peaks: dict[object, int] = {}
        self._lock = threading.Lock()

    def begin(self, case: object) -> None:
        """Watch from now on."""
        with self._lock:
            self._look()
            reset_peak_memory()
            self._peaks[case] = 0

    def end(self, case: object) -> int:
        """The peak since the beginning, in bytes."""
        with self._lock:
            self._look()
            return self._peaks.pop(case)

    def _look(self) -> None:
        now = peak_memory_bytes()
        self._peaks = {case: max(peak, now) for case, peak in self._peaks.items()}


def _still(image: Source, before: FileStamp, made: SegmentedCase) -> FileStamp:
    """Stamp of the image with its content; outputs of an image that has changed meanwhile are removed."""
    after = stamp_if_there(image, content=True)
    if after.looks_like(before):
        return after
    rough = [Path(made.provenance["rough"]["path"])] if "rough" in made.provenance else []
    for file in (made.output, made.output.with_name(f"{made.case_id}{NOTES_SUFFIX}"), *rough):
        file.unlink(missing_ok=True)
    msg = f"{after.path}: file must stay as it is while it is read, got {'another one' if after.size_bytes >= 0 else 'none'} afterwards"
    raise ValueError(msg)
