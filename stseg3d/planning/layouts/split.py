"""Splits: which cases train, which choose the checkpoint, and which are kept for the last score; never a patient on two sides."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from stseg3d.planning.findings import Finding
from stseg3d.planning.layouts.bids import SUBJECT
from stseg3d.planning.layouts.found import PARTS, DataFound, Entry

NAMES_GROUP = "--group finds a patient in each case's id or path"
ONE_SIDE = "a patient's cases are in one part"
SCANS = "ids name patients; if several are scans of one, tell it with --group"
TWO_PATIENTS = "a validation list needs cases of two patients; all cases train, and none judges"
TEST_PATIENT = "a test list needs cases of one patient more than training and validation"
ENOUGH = "a score needs more than a few cases"
FEW = 5
# `p0001_2CH`, `case-12-001`: a number, and more.
_NUMBER = re.compile(r"(?P<patient>.*?\d)[-_. ]+.+")
# `p1_2`, `p1-t2`, `p1__scan`, `p1_slice12`, `p1_left`: what may distinguish scans of one patient.
_SCAN = re.compile(
    r"(?P<patient>.*[^-_. ])(?:__.+|[-_. ]+(?:(?P<word>t|tp|time|f|frame|slice|sl|z|visit|ses|scan|v)[-_]?)?\d+"
    r"|[-_. ]+(?P<side>left|right|l|r|pre|post|baseline|followup))",
    re.IGNORECASE,
)


def with_groups(found: DataFound, pattern: str | None) -> DataFound:
    """The data with the patient of each case, as a regular expression finds it in its id, else in the path of its first image.

    Args:
        found: Data.
        pattern: Regular expression; its first group names the patient, or all of it if it has none. None leaves the groups that are there.

    Raises:
        ValueError: If it is no regular expression.
    """
    if pattern is None:
        return found
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        msg = f"group must be a regular expression such as 'p(\\d+)', got {pattern!r}: {error}"
        raise ValueError(msg) from error
    lists: dict[str, Any] = {
        part: tuple(replace(entry, group=_searched(compiled, entry)) for entry in getattr(found, part)) for part in PARTS
    }
    missing = [entry for entries in lists.values() for entry in entries if entry.label and not entry.group]
    return replace(
        found, **lists, findings=found.findings + tuple(Finding("error", e.id, NAMES_GROUP, f"{pattern} finds none") for e in missing)
    )


def split(found: DataFound, group: str | None = None, *, validation: float = 0.2, test: float = 0.0, seed: int = 0) -> DataFound:
    """The data with a validation list, and a test list if asked for; lists with labelled cases that are there already stay.

    A patient's cases stay together, as do cases with equal images. Which patients are drawn depends on their names and the seed alone, so
    most stay where they are when others are added. With two patients or more, one at least validates; with one, none does.

    Args:
        found: Data.
        group: Regular expression for :func:`with_groups`; by default the groups of the data, else BIDS's ``sub-...``, else
            each case itself.
        validation: Share of the training cases for validation, 0 to below 1.
        test: Share for the test list.
        seed: Another seed draws other patients.

    Raises:
        ValueError: If a share is out of range, or ``group`` is no regular expression.
    """
    for name, share in (("validation", validation), ("test", test)):
        if not 0 <= share < 1 or validation + test >= 1:
            msg = f"{name} must be a share from 0 to below 1, below 1 together with the other, got {share}"
            raise ValueError(msg)
    found = with_groups(found, group)
    named = any(entry.group for entry in found.entries)
    patients = patients_of(found)
    findings = [*_astray(found, patients, named=named), *([] if named else _scans(found.entries))]
    due = len(found.training)
    tested = (
        set()
        if any(e.label for e in found.test)
        else drawn(found.training, patients, due=test * due, seed=seed, least=3 if validation else 2)
    )
    rest = [entry for entry in found.training if entry.id not in tested]
    validating = set() if found.validation else drawn(rest, patients, due=validation * due, seed=seed, least=2)
    lists: dict[str, Any] = {
        "training": tuple(entry for entry in rest if entry.id not in validating),
        "validation": (*found.validation, *(entry for entry in rest if entry.id in validating)),
        "test": (*found.test, *(entry for entry in found.training if entry.id in tested)),
    }
    lists = {part: tuple(_grouped(entry, patients) for entry in entries) for part, entries in lists.items()}
    found = replace(found, **lists)
    return replace(found, findings=(*found.findings, *findings, *_few(found, validation=validation, test=test)))


def _searched(pattern: re.Pattern[str], entry: Entry) -> str:
    match = pattern.search(entry.id) or pattern.search(entry.images[0].as_posix())
    return "" if match is None else (match[1] or "") if pattern.groups else match[0]


def patients_of(found: DataFound) -> dict[str, str]:
    """Patient of each case by its id; those of cases with equal images are one."""
    patients = {entry.id: entry.group or _of_bids(entry) or entry.id for entry in found.entries}
    for first, *others in found.twins:
        same = {patients[other] for other in others}
        patients = {case: patients[first] if patient in same else patient for case, patient in patients.items()}
    return patients


def _of_bids(entry: Entry) -> str:
    match = SUBJECT.search(entry.id)
    return match[0] if match else ""


def _grouped(entry: Entry, patients: dict[str, str]) -> Entry:
    return entry if patients[entry.id] == entry.id else replace(entry, group=patients[entry.id])


def drawn(entries: Sequence[Entry], patients: dict[str, str], *, due: float, seed: int, least: int) -> set[str]:
    """Ids of cases of patients in the order of a hash, as many as are due.

    It is one patient at least, none of fewer than ``least``, and never so many that fewer than ``least - 1`` are left.
    """
    sizes = Counter(patients[entry.id] for entry in entries)
    if not due or len(sizes) < least:
        return set()
    order = sorted(sizes, key=lambda patient: hashlib.sha256(f"{seed}/{patient}".encode()).digest())
    drawn: set[str] = set()
    left = round(due)
    for patient in order:
        if sizes[patient] <= left and len(drawn) <= len(sizes) - least:
            drawn.add(patient)
            left -= sizes[patient]
    drawn = drawn or {min(order, key=lambda patient: sizes[patient])}
    return {entry.id for entry in entries if patients[entry.id] in drawn}


# --- findings ----------------------------------------------------------------


def _astray(found: DataFound, patients: dict[str, str], *, named: bool) -> list[Finding]:
    """Patients on two sides in lists that were given."""
    parts: dict[str, list[str]] = {}
    for part in PARTS:
        for entry in getattr(found, part):
            parts.setdefault(patients[entry.id], []).append(part)
    astray = {patient: dict.fromkeys(of) for patient, of in parts.items() if len(set(of)) > 1}
    return [Finding("error" if named else "warning", patient, ONE_SIDE, " and ".join(of)) for patient, of in astray.items()]


def _scans(entries: Sequence[Entry]) -> list[Finding]:
    """A warning if ids look as several scans of one patient: of several prefixes, or with words such as ``slice`` before a number."""
    ids = [entry.id for entry in entries if not _of_bids(entry)]
    matches = [match for case in ids if (match := _NUMBER.fullmatch(case) or _SCAN.fullmatch(case))]
    prefixes = Counter(match["patient"] for match in matches)
    often = [prefix for prefix, count in prefixes.items() if count > 1]
    if not often or (len(prefixes) == 1 and not any(match and (match["word"] or match["side"]) for match in map(_SCAN.fullmatch, ids))):
        return []
    alike = [match[0] for match in matches if match["patient"] == often[0]]
    return [Finding("warning", "", SCANS, f"{', '.join(alike[:2])}, perhaps of one patient {often[0]}")]


def _few(found: DataFound, *, validation: float, test: float) -> list[Finding]:
    findings = []
    if validation and found.training and not found.validation:
        findings.append(Finding("warning", "", TWO_PATIENTS, _counted(found.training)))
    if test and not any(entry.label for entry in found.test):
        findings.append(Finding("warning", "", TEST_PATIENT, _counted(found.training)))
    for part in ("validation", "test"):
        cases = [entry for entry in getattr(found, part) if entry.label]
        if 0 < len(cases) < FEW:
            findings.append(Finding("warning", "", ENOUGH, f"{len(cases)} for {part}, beside {len(found.training)} that train"))
    return findings


def _counted(entries: Sequence[Entry]) -> str:
    patients = len({entry.group or entry.id for entry in entries})
    return f"{len(entries)} case{'s' * (len(entries) != 1)} of {patients} patient{'s' * (patients != 1)} for training"
