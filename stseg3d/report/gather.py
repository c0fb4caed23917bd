"""Cases in a folder of results, from every ``<case>_seg.json`` and the attempts in ``outcomes.jsonl``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stseg3d.volumes import LabelValues, find_cases, list_cases, load_dataset

OUTCOMES = "outcomes.jsonl"
NOTES_SUFFIX = "_seg.json"
DONE, EMPTY, FAILED = "done", "empty", "failed"
STAGES = ["open", "rough", "fine", "instances", "write", "total"]
STARTED = "started"  # an attempt without an end


@dataclass
class CaseRecord:
    """One case of the folder.

    Attributes:
        name: Its name.
        state: ``done``, ``empty`` (done, and nothing was found) or ``failed``.
        reason: Why it failed.
        notes: Content of its ``<case>_seg.json``; empty without one.
        labels: File with the segmentation; None if there is none.
        rough: File with the rough map; None if there is none.
        image: Path of the image; None if it was not found.
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
    notes: dict[str, Any] = field(default_factory=dict)
    labels: Path | None = None
    rough: Path | None = None
    image: Path | None = None
    truth: Path | None = None
    label_values: LabelValues = field(default_factory=LabelValues)
    attempts: int = 1
    seconds: float | None = None
    peak_memory_bytes: int | None = None
    remarks: list[str] = field(default_factory=list)

    @property
    def volumes_ml(self) -> dict[str, float]:
        """Volume of each label or instance."""
        return self._numbers("volume_ml")

    @property
    def stage_seconds(self) -> dict[str, float]:
        """Wall time of each stage, in their order."""
        found = self._numbers("seconds")
        return {name: found[name] for name in sorted(found, key=STAGES.index if set(found) <= set(STAGES) else str) if name != "total"}

    @property
    def stage_peak_bytes(self) -> dict[str, float]:
        """Peak memory of the process until the end of each stage."""
        return self._numbers("stage_peak_bytes")

    @property
    def counts(self) -> dict[str, float]:
        """Numbers of components and boxes: found, dropped, split and so on."""
        return self._numbers("counts")

    @property
    def warnings(self) -> list[str]:
        """Warnings of the run, as sentences."""
        return [str(sentence) for sentence in self._entries("warnings")]

    @property
    def boxes(self) -> list[dict[str, Any]]:
        """Boxes as in the JSON."""
        return [entry for entry in self._entries("boxes") if isinstance(entry, dict)]

    @property
    def dropped(self) -> list[dict[str, Any]]:
        """Components without a box, as in the JSON."""
        return [entry for entry in self._entries("dropped") if isinstance(entry, dict)]

    def section(self, key: str) -> dict[str, Any]:
        """Section of the notes; empty if it is missing or of another type."""
        value = self.notes.get(key)
        return value if isinstance(value, dict) else {}

    def _entries(self, key: str) -> list[Any]:
        value = self.notes.get(key)
        return value if isinstance(value, list) else []

    def _numbers(self, key: str) -> dict[str, float]:
        found = {str(name): _number(value) for name, value in self.section(key).items()}
        return {name: value for name, value in found.items() if value is not None}


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
    records = _from_notes(out)
    _add_attempts(out, records)
    if not records:
        msg = f"{out}: folder must hold results of `stseg3d segment` (<case>{NOTES_SUFFIX} or {OUTCOMES}), got neither"
        raise FileNotFoundError(msg)
    elsewhere = {} if images is None else {case.id: case.images[0] for case in list_cases([images])}
    known = {} if labels is None else _labels(labels)
    for key, record in records.items():
        record.image = _image(out, record, elsewhere)
        record.truth, record.label_values = known.get(record.name, (None, record.label_values))
        if record.state != FAILED and not record.volumes_ml:
            record.state = EMPTY
        if known and record.truth is None:
            record.remarks.append("no label of this name: not scored")
        if record.name != key:
            record.remarks.append(f"in the folder {Path(key).parent}")
    return [records[key] for key in sorted(records)]


def _labels(path: Path) -> dict[str, tuple[Path, LabelValues]]:
    """Ground truth and its values by case."""
    if path.suffix == ".json":
        dataset = load_dataset(path)
        cases = dataset.training + dataset.validation + dataset.test
        return {case.id: (case.label, case.label_values) for case in cases if case.label is not None}
    return {case.id: (case.images[0], case.label_values) for case in find_cases([path])}


def _from_notes(out: Path) -> dict[str, CaseRecord]:
    records = {}
    for path in sorted(out.rglob(f"*{NOTES_SUFFIX}")):
        if path.name.startswith("."):
            continue  # still being written
        name = path.name.removesuffix(NOTES_SUFFIX)
        records[str(path.relative_to(out).with_name(name))] = _record(name, path)
    return records


def _record(name: str, path: Path) -> CaseRecord:
    try:
        notes = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        return CaseRecord(name, FAILED, f"{path}: file must be JSON, got: {error}")
    if not isinstance(notes, dict):
        return CaseRecord(name, FAILED, f"{path}: file must hold a JSON object, got {type(notes).__name__}")
    # Beside the JSON, since the folder may have been moved.
    labels = path.with_name(Path(str(notes.get("output", ""))).name or f"{name}_seg.nii.gz")
    rough = path.with_name(f"{name}_rough.nii.gz") if notes.get("rough") else None
    record = CaseRecord(name, notes=notes, labels=labels, rough=rough)
    if not labels.is_file():
        record.labels = None
        record.remarks.append(f"{labels.name} is missing: nothing can be drawn")
    if rough is not None and not rough.is_file():
        record.rough = None
        record.remarks.append(f"{rough.name} is missing: the rough mask is not drawn")
    record.seconds = _number(record.section("seconds").get("total"))
    peak = _number(notes.get("peak_memory_bytes"))
    record.peak_memory_bytes = None if peak is None else int(peak)
    return record


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _attempts(path: Path) -> Iterator[Mapping[str, Any]]:
    """Complete lines of the outcomes: the last one of a killed run may be incomplete."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("case"), str):
            yield entry


def _add_attempts(out: Path, records: dict[str, CaseRecord]) -> None:
    """Add failures and numbers of attempts to the records; skipped cases stay as they are."""
    for entry in _attempts(out / OUTCOMES):
        if entry.get("state") in (STARTED, DONE, FAILED):
            key = _key(entry, records)
            _add_attempt(entry, records.setdefault(key, CaseRecord(Path(key).name, attempts=0)))
    for record in records.values():
        if record.state == DONE and not record.notes.keys() - {"input"}:
            record.state, record.reason = FAILED, f"it was done, but <case>{NOTES_SUFFIX} is gone"
        if record.state == FAILED and record.labels is not None:
            record.remarks.append("the last attempt failed; what is shown is of an earlier one")


def _add_attempt(entry: Mapping[str, Any], record: CaseRecord) -> None:
    """Add an attempt to a record: the last one counts, and one without an end has failed."""
    begun = entry["state"] == STARTED
    record.attempts = max(record.attempts, int(_number(entry.get("attempt")) or 1))
    record.state = DONE if entry["state"] == DONE else FAILED
    reason = "it was begun, and nobody saw its end" if begun else str(entry.get("reason") or "no reason given")
    record.reason = reason if record.state == FAILED else ""
    record.notes.setdefault("input", _path(entry.get("input")))
    if begun:
        return
    record.seconds = _number(entry.get("seconds")) or record.seconds
    peak = _number(entry.get("peak_memory_bytes"))
    record.peak_memory_bytes = int(peak) if peak else record.peak_memory_bytes


def _path(value: Any) -> str:
    """Path from a string, or from a dictionary about a file."""
    return str((value.get("path") if isinstance(value, dict) else value) or "")


def _key(entry: Mapping[str, Any], records: Mapping[str, CaseRecord]) -> str:
    """Key of the record that an attempt belongs to: by the case's name, else by the file that it wrote."""
    case = str(entry["case"])
    name = Path(_path(entry.get("output")) or case).name.removesuffix(".nii.gz").removesuffix("_seg")
    same = [key for key, record in records.items() if record.name == name]
    return same[0] if case not in records and len(same) == 1 else case


def _image(out: Path, record: CaseRecord, elsewhere: Mapping[str, Path]) -> Path | None:
    """Path of the image: in the given folder, at its old place, or relative to the results."""
    if record.name in elsewhere:
        return elsewhere[record.name]
    stored = str(record.notes.get("input") or "")
    return next((path for path in (Path(stored), out / stored) if path.exists()), None) if stored else None
