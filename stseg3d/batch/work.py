"""Work: one case, from its image to its outcome, whatever happens on the way."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from stseg3d.batch.fingerprints import FileStamp, recipe_of, stamp, stamp_if_there
from stseg3d.batch.outcomes import DONE, FAILED, CaseOutcome, utc_now
from stseg3d.inference.cases import FoundCase, OpenedCase, Outcome
from stseg3d.inference.segment import Segmenter
from stseg3d.machine.memory import peak_memory_bytes, reset_peak_memory
from stseg3d.machine.threads import set_threads
from stseg3d.volumes import Case
from stseg3d.volumes.ahead import CaseAhead

LONGEST_REASON = 1000  # torch puts pages into an error


@dataclass(frozen=True)
class BatchSettings:
    """How each case is to be worked on; goes to other processes and machines by pickle.

    Args:
        bundle: Folder of the bundle.
        output_dir: Folder of all outputs.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: CPU threads of one worker; by default those of its libraries.
        segmenter: Further arguments of :class:`stseg3d.inference.segment.Segmenter`.
        segment: Further arguments of its method ``open``.
    """

    bundle: Path
    output_dir: Path
    device: str = "auto"
    threads: int | None = None
    segmenter: Mapping[str, Any] = field(default_factory=dict)
    segment: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """What labels depend on besides the image; see :func:`stseg3d.batch.fingerprints.recipe_of`."""
        given = {
            key: value for key, value in {**self.segmenter, **self.segment}.items() if key != "trust" and value not in (None, False, {})
        }
        return recipe_of(self.bundle, given)


class CaseWorker:
    """A bundle, loaded once, that turns cases into outcomes.

    Args:
        settings: How.
        ahead: A case that is being read already, if it is the first.

    Raises:
        FileNotFoundError: If there is no such bundle, or it has no weights.
        ValueError: If it does not fit, or a setting is unknown.
    """

    def __init__(self, settings: BatchSettings, ahead: CaseAhead | None = None) -> None:
        self.settings = settings
        self._ahead = ahead
        set_threads(settings.threads)
        self.segmenter = Segmenter(settings.bundle, device=settings.device, **settings.segmenter)
        self._memory = PeakWatch()

    def run(self, case: Case) -> CaseOutcome:
        """Segment a case; never raises but what is no ``Exception``, such as Ctrl-C.

        Returns:
            The outcome, ``done`` or ``failed``, as of a first attempt. If it is ``done``, the output is whole and made of the input as it
            is stamped; else there is none, but what was there before.
        """
        attempt = self.attempt(case)
        attempt.open()
        attempt.find()
        return attempt.write()

    def attempt(self, case: Case) -> CaseAttempt:
        """A case that is to be worked on step by step; its peak of memory counts from now on."""
        ahead, self._ahead = self._ahead, None
        return CaseAttempt(case, self.segmenter, self.settings, self._memory, ahead)


class CaseAttempt:
    """A case on its way through a worker: :meth:`open`, :meth:`find` and :meth:`write`, once each, in this order, in whatever thread.

    None of them raises but what is no ``Exception``: where one fails, those after it do nothing, and the outcome says why.

    Args:
        case: The case.
        segmenter: Who works on it.
        settings: How.
        memory: Of the worker.
        ahead: What may be this case, being read already.
    """

    def __init__(
        self, case: Case, segmenter: Segmenter, settings: BatchSettings, memory: PeakWatch, ahead: CaseAhead | None = None
    ) -> None:
        self.case, self._ahead = case, ahead
        self._segmenter, self._settings, self._memory = segmenter, settings, memory
        self._opened: OpenedCase | None = None
        self._found: FoundCase | None = None
        self._facts: dict[str, Any] = {}  # of its end, once it is known
        self._seconds = 0.0
        memory.begin(self)

    @property
    def held_bytes(self) -> int:
        """What it takes in memory to hold the voxels of its image, or its labels once they are known; 0 if it has failed."""
        held = self._found or self._opened
        return held.held_bytes if held else 0

    def open(self) -> None:
        """Open the image."""
        self._begun = CaseOutcome(self.case.id, FAILED, attempt=1, input=stamp_if_there(self.case.image), started_utc=utc_now())
        with self._step():
            self._before = stamp(self.case.image)
            volume = self._ahead.take(self.case) if self._ahead else None
            self._opened = self._segmenter.open(self.case, self._settings.output_dir, volume=volume, **self._settings.segment)

    def read_ahead(self) -> None:
        """Have the voxels in memory before :meth:`find` asks for them; may be left out."""
        if self._opened:
            with self._step():
                self._opened.read_ahead()

    def find(self) -> None:
        """Find the labels: the networks run here, and in no other step."""
        opened, self._opened = self._opened, None  # so that nobody holds the voxels afterwards
        if opened and not self._facts:
            with self._step():
                self._found = self._segmenter.find(opened)

    def write(self) -> CaseOutcome:
        """Write what was found.

        Returns:
            The outcome, as of :meth:`CaseWorker.run`. Its ``seconds`` are those of the steps, without what was waited between them.
        """
        if self._found:
            with self._step():
                made = self._segmenter.write(self._found)
                self._facts = {
                    "state": DONE,
                    "input": _still(self.case.image, self._before, made),
                    "output": replace(stamp(made.output, content=True), path=made.output.name),
                    "stages_s": made.provenance["seconds"],
                    "warnings": made.provenance["warnings"],
                }
        seconds, peak = round(self._seconds, 4), self._memory.end(self)
        return replace(self._begun, seconds=seconds, peak_memory_bytes=peak, ended_utc=utc_now(), **self._facts)

    @contextmanager
    def _step(self) -> Iterator[None]:
        clock = time.perf_counter()
        try:
            yield
        except Exception as error:  # a failing case never stops the batch
            self._facts = facts_of(error)
        finally:
            self._seconds += time.perf_counter() - clock


class PeakWatch:
    """Largest resident memory of this process while each of several cases is worked on.

    The system keeps one peak, which each case begins anew; what it was until then belongs to those that are there.
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


def notes_name(case: str) -> str:
    """File name of what is told of a case's output, beside it."""
    return f"{case}_seg.json"


def facts_of(error: Exception) -> dict[str, Any]:
    """What an outcome says of an error."""
    reason = " ".join(str(error).split())[:LONGEST_REASON] or "no reason given"
    where = "".join(traceback.format_exception(error))
    return {"error": type(error).__name__, "reason": reason, "bad_input": isinstance(error, (ValueError, OSError)), "traceback": where}


def _still(image: Path, before: FileStamp, made: Outcome) -> FileStamp:
    """Stamp of the image, with its content; what was made of one that is not the same any more is removed."""
    after = stamp_if_there(image, content=True)
    if after.looks_like(before):
        return after
    rough = [Path(made.provenance["rough"]["path"])] if "rough" in made.provenance else []
    for file in (made.output, made.output.with_name(notes_name(made.case_id)), *rough):
        file.unlink(missing_ok=True)
    msg = f"{image}: file must stay as it is while it is read, got {'another one' if after.size_bytes >= 0 else 'none'} afterwards"
    raise ValueError(msg)
