"""Cases in a folder of results, from every ``<case>_seg.json`` and every ``outcomes.jsonl``."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

from stseg3d.results import CaseOutcome, OutcomeLog
from stseg3d.results.journal import LOG_NAME, STARTED
from stseg3d.results.notes import NOTES_SUFFIX, Notes, read_notes
from stseg3d.volumes import LabelValues, find_cases, list_cases, load_dataset

logger = logging.getLogger(__name__)

DONE, EMPTY, FAILED = "done", "empty", "failed"


@dataclass
class CaseRecord:
    """One case of the folder.

    Attributes:
        name: Its name.
        state: ``done``, ``empty`` (done, and nothing was found) or ``failed``.
        reason: Why it failed.
        notes: Content of its ``<case>_seg.json``; None without one that can be read.
        labels: File with the segmentation; None if there is none.
        rough: File with the rough map; None if there is none.
        input: Path of the image when it was read; empty if unknown.
        image: Path of the image; None if it was not found, or is not one that the run has read.
        truth: File with the ground truth; None if none was given.
        label_values: Values that the ground truth may have.
        attempts: Number of known attempts.
        seconds: Wall time of the last attempt.
        peak_memory_bytes: Peak memory of its process.
        remarks: Sentences for the reader of the report.
    """

    name: str
    state: str = DONE
    reason: str = ""
    notes: Notes | None = None
    labels: Path | None = None
    rough: Path | None = None
    input: str = ""
    image: Path | None = None
    truth: Path | None = None
    label_values: LabelValues = field(default_factory=LabelValues)
    attempts: int = 1
    seconds: float | None = None
    peak_memory_bytes: int | None = None
    remarks: list[str] = field(default_factory=list)

    @property
    def known(self) -> Notes:
        """The notes; without any, all that they hold is empty."""
        return self.notes or Notes()


def gather_cases(out: Path, *, images: Path | None = None, labels: Path | None = None) -> list[CaseRecord]:
    """Cases of a folder that ``stseg3d segment`` wrote, in order of name.

    Args:
        out: The folder, searched with its subfolders.
        images: Folder of images that were moved, or a list of them, as ``stseg3d segment`` takes it.
        labels: Folder with ground truth ``<case>.nii.gz``, or a ``dataset.json``.

    Raises:
        FileNotFoundError: If a folder does not exist, or ``out`` holds no results.
        ValueError: If ``labels`` or ``images`` holds no volumes, or two with the same name.
    """
    if not out.is_dir():
        msg = f"{out}: folder of results must exist, got none"
        raise FileNotFoundError(msg)
    records = _from_journals(out)
    _add_notes(out, records)
    if not records:
        msg = f"{out}: folder must hold results of `stseg3d segment` (<case>{NOTES_SUFFIX} or {LOG_NAME}), got neither"
        raise FileNotFoundError(msg)
    elsewhere = {} if images is None else {case.id: case.images[0] for case in list_cases([images])}
    known = {} if labels is None else _labels(labels)
    for key, record in records.items():
        record.image = elsewhere.get(record.name, record.image)
        record.truth, record.label_values = known.get(record.name, (None, record.label_values))
        if record.state == DONE and not record.known.volume_ml:
            record.state = EMPTY
        if known and record.truth is None:
            record.remarks.append("no label of this name: not scored")
        if record.name != key:
            record.remarks.append(f"in the folder {Path(key).parent}")
    return [records[key] for key in sorted(records)]


def _from_journals(out: Path) -> dict[str, CaseRecord]:
    """Records by the case's folder and name, of all journals in the folder."""
    records = {}
    for path in sorted(out.rglob(LOG_NAME)):
        try:
            outcomes = OutcomeLog(path.parent).latest()
        except OSError as error:  # the notes remain
            logger.warning("%s", error)
            continue
        for outcome in outcomes:
            key = str(path.parent.relative_to(out) / outcome.case)
            records[key] = _record(outcome, Path(key).name)
    return records


def _record(outcome: CaseOutcome, name: str) -> CaseRecord:
    """Record of a case by its last outcome: one without an end has failed."""
    record = CaseRecord(name or outcome.case, state=DONE if outcome.is_finished else FAILED, attempts=max(outcome.attempt, 1))
    if record.state == FAILED:
        begun = outcome.state == STARTED
        record.reason = "it was begun, and nobody saw its end" if begun else outcome.reason or "no reason given"
    if outcome.input:
        record.input = outcome.input.first
        record.image = Path(record.input) if os.path.exists(record.input) else None
    record.seconds = outcome.seconds or None
    record.peak_memory_bytes = outcome.peak_memory_bytes or None
    return record


def _add_notes(out: Path, records: dict[str, CaseRecord]) -> None:
    """Add what the notes say; a case whose notes cannot be read has failed."""
    for path in sorted(out.rglob(f"*{NOTES_SUFFIX}")):
        if path.name.startswith("."):
            continue  # still being written
        name = path.name.removesuffix(NOTES_SUFFIX)
        record = records.setdefault(str(path.relative_to(out).with_name(name)), CaseRecord(name))
        try:
            record.notes = read_notes(path)
        except (ValueError, OSError) as error:
            record.state, record.reason = FAILED, record.reason or str(error)
            continue
        _add_files(out, path, record, record.notes)
    for record in records.values():
        if record.state == DONE and record.notes is None:
            record.state, record.reason = FAILED, f"it was done, but <case>{NOTES_SUFFIX} is gone"
        if record.state == FAILED and record.labels is not None:
            record.remarks.append("the last attempt failed; what is shown is of an earlier one")


def _add_files(out: Path, path: Path, record: CaseRecord, notes: Notes) -> None:
    # Beside the JSON, since the folder may have been moved.
    labels = path.with_name(os.path.basename(notes.output) or f"{record.name}{NOTES_SUFFIX.removesuffix('.json')}.nii.gz")
    record.labels = _own(labels, out, record, "nothing can be drawn")
    if notes.rough:
        record.rough = _own(path.with_name(f"{record.name}_rough.nii.gz"), out, record, "the rough mask is not drawn")
    record.input = record.input or notes.input
    record.seconds = record.seconds or notes.seconds.get("total")
    record.peak_memory_bytes = record.peak_memory_bytes or notes.peak_memory_bytes


def _own(path: Path, out: Path, record: CaseRecord, otherwise: str) -> Path | None:
    """The file if it is one in the folder of results, and else a remark."""
    if not os.path.isfile(path):
        record.remarks.append(f"{path.name} is missing: {otherwise}")
    elif not path.resolve().is_relative_to(out.resolve()):
        record.remarks.append(f"{path.name} is a link to another folder: {otherwise}")
    else:
        return path
    return None


def _labels(path: Path) -> dict[str, tuple[Path, LabelValues]]:
    """Ground truth and its values by case."""
    if path.suffix == ".json":
        dataset = load_dataset(path)
        cases = dataset.training + dataset.validation + dataset.test
        return {case.id: (case.label, case.label_values) for case in cases if case.label is not None}
    return {case.id: (case.images[0], case.label_values) for case in find_cases([path])}
