"""Work: one case, from its image to its outcome, whatever happens on the way."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from stseg3d.batch.fingerprints import FileStamp, recipe_of, stamp, stamp_if_there
from stseg3d.batch.outcomes import DONE, FAILED, CaseOutcome, utc_now
from stseg3d.inference.memory import peak_memory_bytes
from stseg3d.inference.segment import Outcome, Segmenter
from stseg3d.volumes import Case

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
        segment: Further arguments of its method ``segment``.
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

    Raises:
        FileNotFoundError: If there is no such bundle, or it has no weights.
        ValueError: If it does not fit, or a setting is unknown.
    """

    def __init__(self, settings: BatchSettings) -> None:
        self.settings = settings
        _set_threads(settings.threads)
        self.segmenter = Segmenter(settings.bundle, device=settings.device, **settings.segmenter)

    def run(self, case: Case) -> CaseOutcome:
        """Segment a case; never raises but what is no ``Exception``, such as Ctrl-C.

        Returns:
            The outcome, ``done`` or ``failed``, as of a first attempt. If it is ``done``, the output is whole and made of the input as it
            is stamped; else there is none, but what was there before.
        """
        begun = CaseOutcome(case.id, FAILED, attempt=1, input=stamp_if_there(case.image), started_utc=utc_now())
        clock = time.perf_counter()
        _reset_peak_memory()
        try:
            facts = self._segment(case)
        except Exception as error:  # a failing case never stops the batch
            facts = facts_of(error)
        seconds = round(time.perf_counter() - clock, 4)
        return replace(begun, seconds=seconds, peak_memory_bytes=peak_memory_bytes(), ended_utc=utc_now(), **facts)

    def _segment(self, case: Case) -> dict[str, Any]:
        before = stamp(case.image)
        made = self.segmenter.segment(case, self.settings.output_dir, **self.settings.segment)
        return {
            "state": DONE,
            "input": _still(case.image, before, made),
            "output": replace(stamp(made.output, content=True), path=made.output.name),
            "stages_s": made.provenance["seconds"],
            "warnings": made.provenance["warnings"],
        }


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


def _set_threads(threads: int | None) -> None:
    if threads is None:
        return
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(threads)  # read by SimpleITK and itk when they start
    import torch

    torch.set_num_threads(threads)


def _reset_peak_memory() -> None:
    """Begin anew with the peak, where the system can: a worker's earlier cases are not this one's."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
