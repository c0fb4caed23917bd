"""Checks of the cases of any layout: files exist, ids are names of their own, and nothing is there twice."""

from __future__ import annotations

import filecmp
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from stseg3d.planning.findings import Finding
from stseg3d.planning.layouts.found import PARTS, DataFound, Entry
from stseg3d.volumes.listing import is_output
from stseg3d.volumes.names import ensure_file_name
from stseg3d.volumes.open import volume_suffix

EXISTS = "files exist"
KNOWN_SUFFIX = "a file is of a kind that stseg3d reads"
UNIQUE_ID = "ids are unique, whatever their case"
PLAIN_ID = "an id can name a file"
SAME_COUNT = "all cases have a file for each channel, or all one file for all"
COUNT_OF_NAMES = "there are as many files for channels as names of channels"
NO_COPY = "a label is no copy of an image"
ONCE = "a file belongs to one case"
DIFFERENT = "images of two cases differ"
NO_PREDICTION = "a label is no output of stseg3d segment"
SOME = "there is a case to train on"
# Large files of equal size are compared whole only if these pieces of them are equal.
PIECES, PIECE_BYTES = 16, 1 << 16


def checked(found: DataFound) -> DataFound:
    """The data with all findings, and with ``twins``; cases whose files are missing are left out."""
    findings = [*found.findings, *_wrong_ids(found.entries), *_twice(found.entries), *_predictions(found.entries)]
    lists: dict[str, Any] = {}
    for part in PARTS:
        wrong = [(entry, _wrong_files(entry)) for entry in getattr(found, part)]
        findings += [finding for _, of_case in wrong for finding in of_case]
        lists[part] = tuple(entry for entry, of_case in wrong if not of_case)
    found = replace(found, **lists)
    findings += [*_wrong_counts(found), *(Finding("error", e.id, NO_COPY, e.label.name) for e in found.entries if e.label and _is_copy(e))]
    twins = _twins(found.entries)
    findings += [_twin_finding(found, ids) for ids in twins]
    if not found.training and not any(finding.level == "error" for finding in findings):
        findings.append(Finding("error", "", SOME, "none"))
    return replace(found, findings=tuple(findings), twins=tuple(twins))


def _files(entry: Entry) -> list[Path]:
    return [*entry.images, *([] if entry.label is None else [entry.label])]


def _wrong_files(entry: Entry) -> list[Finding]:
    missing = [Finding("error", entry.id, EXISTS, f"no {path}") for path in _files(entry) if not path.exists()]
    strange = [path for path in _files(entry) if path.is_file() and not volume_suffix(path)]
    return missing + [Finding("error", entry.id, KNOWN_SUFFIX, path.name) for path in strange]


def _wrong_counts(found: DataFound) -> list[Finding]:
    """Cases with another number of files than most, and names of channels that do not fit; channels in one file are counted later."""
    counts = Counter(len(entry.images) for entry in found.entries)
    usual = max(counts, key=lambda count: (counts[count], count), default=1)
    odd = [Finding("error", e.id, SAME_COUNT, f"{len(e.images)}, not {usual}") for e in found.entries if len(e.images) != usual]
    if usual > 1 and found.channels and len(found.channels) != usual:
        odd.append(Finding("error", "", COUNT_OF_NAMES, f"{usual} files for {', '.join(found.channels)}"))
    return odd


def _is_copy(entry: Entry) -> bool:
    label = entry.label
    return label is not None and label.is_file() and label.stat().st_size > 0 and any(_equal(label, i) for i in entry.images if i.is_file())


def _wrong_ids(entries: Iterable[Entry]) -> list[Finding]:
    findings = []
    seen: dict[str, Entry] = {}
    for entry in entries:
        try:
            ensure_file_name(entry.id)
        except ValueError as error:
            findings.append(Finding("error", entry.id, PLAIN_ID, str(error)))
        other = seen.setdefault(entry.id.casefold(), entry)
        if other is not entry:
            findings.append(Finding("error", entry.id, UNIQUE_ID, f"{entry.images[0]} and {other.images[0]}"))
    return findings


def _twice(entries: Iterable[Entry]) -> list[Finding]:
    """Files that two cases, or two places of one case, name; links are followed."""
    findings = []
    seen: dict[Path, str] = {}
    for entry in entries:
        for path in _files(entry):
            real = path.resolve()
            if real in seen:
                findings.append(Finding("error", entry.id, ONCE, f"{path.name}, also of {seen[real]}"))
            seen.setdefault(real, entry.id)
    return findings


def _predictions(entries: Iterable[Entry]) -> list[Finding]:
    labels = [(entry.id, entry.label) for entry in entries if entry.label is not None]
    return [Finding("warning", name, NO_PREDICTION, label.name) for name, label in labels if is_output(label)]


def _twin_finding(found: DataFound, ids: tuple[str, ...]) -> Finding:
    parts = {part for part in PARTS if any(entry.id in ids for entry in getattr(found, part))}
    where = "" if len(parts) == 1 else f", in {' and '.join(sorted(parts, key=PARTS.index))}"
    return Finding("error" if len(parts) > 1 else "warning", ids[0], DIFFERENT, f"{', '.join(ids)} equal{where}")


def _twins(entries: Iterable[Entry]) -> list[tuple[str, ...]]:
    """Ids of cases whose first images are different files of equal content; empty files and series of DICOM files are not compared."""
    by_size: dict[int, list[Entry]] = defaultdict(list)
    for entry in entries:
        image = entry.images[0]
        if image.is_file() and (size := image.stat().st_size):
            by_size[size].append(entry)
    by_content: dict[tuple[int, bytes], list[Entry]] = defaultdict(list)
    for size, alike in by_size.items():
        for entry in alike if len(alike) > 1 else ():
            by_content[size, _pieces_digest(entry.images[0], size)].append(entry)
    sets = ([first, *(e for e in others if _equal(first.images[0], e.images[0]))] for first, *others in by_content.values())
    return [tuple(entry.id for entry in alike) for alike in sets if len(alike) > 1]


def _equal(a: Path, b: Path) -> bool:
    """Whether two different files are equal; a file that is named twice is another finding."""
    return a.resolve() != b.resolve() and filecmp.cmp(a, b, shallow=False)


def _pieces_digest(path: Path, size: int) -> bytes:
    """Hash of pieces spread over the file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for n in range(PIECES):
            file.seek(n * max(size - PIECE_BYTES, 0) // (PIECES - 1))
            digest.update(file.read(PIECE_BYTES))
    return digest.digest()
