"""Outcomes of cases, in a journal that survives when the batch is killed."""

from __future__ import annotations

import json
import logging
import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from stseg3d.machine.files import atomic_write_text, open_regular
from stseg3d.machine.json_files import read_json
from stseg3d.machine.locks import lock_file
from stseg3d.machine.tables import csv_text
from stseg3d.plan.json_values import build
from stseg3d.results.stamps import FileStamp

logger = logging.getLogger(__name__)

LOG_NAME, SUMMARY_NAME = "outcomes.jsonl", "summary.csv"
State = Literal["started", "done", "skipped", "failed"]
STARTED: Final = "started"
DONE: Final = "done"
SKIPPED: Final = "skipped"
FAILED: Final = "failed"
# Errors of the worker, not of the case: nobody was left to tidy up.
WORKER_DIED, TIME_LIMIT = "WorkerDied", "TimeLimit"
STOPPED = "Stopped"  # error of a case that a batch had begun when it was stopped, as by Ctrl-C
Amount = Annotated[float, 0, 1e15]  # seconds, and all else that is not negative
Count = Annotated[int, 0, 1e15]
MAX_REASON_LENGTH = 1000  # torch puts pages into an error


@dataclass(frozen=True)
class CaseOutcome:
    """Outcome of one case: a line of ``outcomes.jsonl``.

    Attributes:
        case: Name of the case.
        state: ``started``, ``done``, ``skipped`` (done before; the other fields are those of then) or ``failed``.
        attempt: Number of times it was begun, over all runs; 0 if it failed before that, so that no output was touched.
        reason: Why it failed or was skipped, in one sentence.
        error: Class of the error.
        bad_input: Whether the error lies in the input or the file system, not in the program.
        traceback: Traceback of the error.
        warnings: Warnings for the user, a sentence each.
        seconds: Wall time.
        stages_s: Wall time of each step.
        peak_memory_bytes: Largest resident memory of the process during the case.
        input: The image, as it was read.
        request: Digest of all else that the output depends on, see :class:`stseg3d.inference.Request`.
        output: Path of the output, relative to the output folder.
        started_utc: Time of its beginning, by the clock of that machine; for information only.
        ended_utc: Time of its end.
    """

    case: str
    state: State
    attempt: Count = 0
    reason: str = ""
    error: str = ""
    bad_input: bool = False
    traceback: str = ""
    warnings: Sequence[str] = ()
    seconds: Amount = 0.0
    stages_s: Annotated[Mapping[str, Amount], 0, 100] = field(default_factory=dict)
    peak_memory_bytes: Count = 0
    input: FileStamp | None = None
    request: str = ""
    output: FileStamp | None = None
    started_utc: str = ""
    ended_utc: str = ""

    @property
    def is_finished(self) -> bool:
        """Whether the output exists, according to this outcome."""
        return self.state in (DONE, SKIPPED)

    @property
    def was_interrupted(self) -> bool:
        """Whether the end is unknown, so that the output may or may not exist."""
        return self.may_have_killed or self.error in (TIME_LIMIT, STOPPED)

    @property
    def may_have_killed(self) -> bool:
        """Whether a process died while it worked on the case, perhaps because of it."""
        return self.state == STARTED or self.error == WORKER_DIED

    def failed(self, error: Exception) -> CaseOutcome:
        """The outcome of the same case when it fails with an error."""
        reason = " ".join(str(error).split())[:MAX_REASON_LENGTH] or "no reason given"
        where = "".join(traceback.format_exception(error))
        bad = isinstance(error, (ValueError, OSError))
        return replace(self, state=FAILED, output=None, error=type(error).__name__, reason=reason, bad_input=bad, traceback=where)

    def as_error(self, where: str = "") -> Exception:
        """The error, for another process, which may lack the library of its class."""
        return ValueError(where + self.reason) if self.bad_input else RuntimeError(f"{self.error}: {where}{self.reason}")


def utc_now() -> str:
    """Time of the clock, for people to read."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def as_line(outcome: CaseOutcome) -> bytes:
    """The outcome as a line of JSON, without empty fields."""
    content = {key: value for key, value in asdict(outcome).items() if value}
    return (json.dumps(content) + "\n").encode()


def read_line(line: bytes) -> CaseOutcome:
    """Outcome in a line.

    Raises:
        ValueError: If the line is not an outcome; the message names the entry.
    """
    content = read_json(line, "line")
    if isinstance(content, dict):
        content.pop("recipe", None)  # which earlier versions wrote in place of `request`
    outcome: CaseOutcome = build(CaseOutcome, content, "line")
    if not outcome.case:
        msg = "line must name a case"
        raise ValueError(msg)
    return outcome


class OutcomeLog:
    """The journal ``OUT/outcomes.jsonl``: a line for the beginning of each case and one for its end; the last one counts.

    Several processes may append to it. A line is one write at the end of the file, under a lock. It is on disk when :meth:`append`
    returns, except for skipped cases, which the next run would skip again. The next writer cuts off an incomplete line. A line that is
    not an outcome is told once, with its number, and left out.

    Args:
        folder: The output folder; the first line creates the file.

    Raises:
        OSError: By all methods, if the file cannot be read, or is a pipe, a device or a folder; by :meth:`append` also if it is a link.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOG_NAME
        self._forget()

    def append(self, outcome: CaseOutcome) -> None:
        """Write a line, whole or not at all.

        Raises:
            OSError: If it cannot be written.
        """
        line = as_line(outcome)
        self.path.parent.mkdir(parents=True, exist_ok=True)  # somebody may have removed it meanwhile
        with _locked(self.path) as file:
            end = _cut_torn_line(file)
            try:
                if os.write(file, line) != len(line):
                    msg = f"{self.path}: no space left for a line of {len(line)} bytes"
                    raise OSError(msg)
                if outcome.state != SKIPPED:
                    os.fsync(file)
            except OSError:
                os.ftruncate(file, end)
                raise

    def last(self, case: str) -> CaseOutcome | None:
        """What is known of the case's output: its last outcome of those that may have touched it."""
        self._refresh()
        line = self._begun.get(case)
        return read_line(line) if line else None

    def names(self, case: str) -> bool:
        """Whether a line may be about the case, found without reading the lines."""
        if not self.path.exists():
            return False
        with open(open_regular(self.path), "rb") as file:
            return json.dumps(case).encode() in file.read()

    def latest(self) -> list[CaseOutcome]:
        """The last outcome of each case, in the order in which cases came up."""
        self._refresh()
        return [read_line(line) for line in self._latest.values()]

    def _forget(self) -> None:
        self._begun: dict[str, bytes] = {}  # lines: objects would take several times as much
        self._latest: dict[str, bytes] = {}
        self._offset, self._number, self._line, self._state = 0, 0, b"", (0, 0)

    def _refresh(self) -> None:
        """Read what was appended since, by whomever; a line that holds no outcome is told."""
        if not self.path.exists():
            self._forget()
            return
        found = self.path.stat()
        if (found.st_ino, found.st_size) == self._state:
            return
        with open(open_regular(self.path), "rb") as file:
            file.seek(self._offset - len(self._line))
            if file.read(len(self._line)) != self._line:  # another file
                self._forget()
                file.seek(0)
            self._state = found.st_ino, found.st_size
            for line in file:
                if not line.endswith(b"\n"):
                    return  # its writer is at it, or dead
                self._take(line)

    def _take(self, line: bytes) -> None:
        self._offset += len(line)
        self._number += 1
        self._line = line
        try:
            outcome = read_line(line)
        except ValueError as error:
            logger.warning("%s: line %d is not an outcome and is left out: %s", self.path, self._number, error)
            return
        self._latest[outcome.case] = line
        if outcome.attempt:
            self._begun[outcome.case] = line


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    file = open_regular(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    try:
        lock_file(file)
        yield file
    finally:
        os.close(file)  # and the lock goes with it


def _cut_torn_line(file: int) -> int:
    """Size of the file once its last line is whole."""
    end = size = os.fstat(file).st_size
    while end:
        start = max(end - 4096, 0)
        os.lseek(file, start, os.SEEK_SET)
        newline = os.read(file, end - start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(file, end)
    return end


def write_summary(log: OutcomeLog) -> Path:
    """Write ``summary.csv`` beside the journal, a row for each case with its last outcome; whole or not at all."""
    return atomic_write_text(log.path.with_name(SUMMARY_NAME), csv_text([_row(outcome) for outcome in log.latest()]))


def _row(outcome: CaseOutcome) -> dict[str, Any]:
    names = ("case", "state", "attempt", "seconds", "peak_memory_bytes", "error", "reason", "started_utc", "ended_utc")
    files = {"input": outcome.input.path if outcome.input else "", "output": outcome.output.path if outcome.output else ""}
    steps = {f"stage_{step}_s": seconds for step, seconds in outcome.stages_s.items()}
    return {name: getattr(outcome, name) for name in names} | files | steps
