"""Survey: all training cases examined, several at once, and their facts put together as a fingerprint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stseg3d.machine.tables import abbreviated
from stseg3d.machine.threads import cores
from stseg3d.planning.examine import Examined, examine, is_picture
from stseg3d.planning.findings import Finding
from stseg3d.planning.fingerprint import CaseFingerprint, Fingerprint, Intensity
from stseg3d.volumes import Case, Dataset

Progress = Callable[[Iterable[Examined], int], Iterable[Examined]]
MANY = 16  # cases from which on the start of further processes, which load numpy and scipy, pays
FEW = 3  # cases of a class with which little can be learned; values that may be ids
UNEVEN = 1.5  # ratio of the numbers of values in two cases
MANY_CLASSES = "values without names are classes; if they are objects, name one class in a dataset.json"
MOST_UNUSED = 32  # values between those of classes: a network has an output for each


@dataclass(frozen=True)
class Survey:
    """What is known of a data set.

    Attributes:
        fingerprint: Facts of all cases that can be used; None if there is none.
        findings: What is wrong or doubtful.
    """

    fingerprint: Fingerprint | None
    findings: tuple[Finding, ...]


def survey(
    dataset: Dataset,
    channels: Sequence[str] = (),
    *,
    processes: int | None = None,
    progress: Progress | None = None,
) -> Survey:
    """Examine the training and validation cases of a data set; the fingerprint is that of the training cases.

    Args:
        dataset: The data set.
        channels: Names of the channels, if they have any.
        processes: Processes that read cases; by default one a core.
        progress: Wrapper of the cases as they come, such as a progress bar; it is told how many they are.
    """
    cases = [case for case in (*dataset.training, *dataset.validation) if case.label is not None]
    coming = _examined(cases, processes)
    found = list(coming if progress is None else progress(coming, len(cases)))
    findings = [finding for one in found for finding in one.findings]
    usable = [one for case, one in zip(cases, found, strict=True) if one.facts and case in dataset.training]
    if not usable:
        return Survey(None, (*findings, Finding("error", "", "a training case can be used", f"none of {len(dataset.training)}")))
    pictures = all(map(is_picture, cases))
    findings += _channel_findings([one for one in found if one.facts], () if pictures else channels)
    if any(finding.level == "error" for finding in findings):
        return Survey(None, tuple(findings))
    fingerprint = Fingerprint(
        labels=_names(dataset, usable),
        channels=tuple(channels) or tuple(f"channel {n}" for n in range(len(usable[0].intensity))),
        pictures=pictures,
        intensity=_pooled([one.intensity for one in usable]),
        foreground=_pooled([one.foreground for one in usable]),
        cases=tuple(one.facts for one in usable if one.facts),
        ignore=dataset.labels.ignore,
        regions=dataset.labels.regions,
    )
    return Survey(fingerprint, (*findings, *_class_findings(fingerprint)))


def _examined(cases: Sequence[Case], processes: int | None) -> Iterator[Examined]:
    count = min(processes or cores(), len(cases))
    if count < 2 or (processes is None and len(cases) < MANY):
        yield from map(examine, cases)
        return
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        yield from pool.map(examine, cases)


def _pooled(samples: Sequence[NDArray[Any]]) -> tuple[Intensity, ...]:
    """Intensities of all cases together, by channel; each case counts by the size of its sample."""
    return tuple(Intensity.of(np.concatenate([sample[channel] for sample in samples])) for channel in range(len(samples[0])))


def _names(dataset: Dataset, usable: Sequence[Examined]) -> dict[str, str]:
    """Names of the classes in the order of their values: those of ``dataset.json``, else numbers; a value that is ignored is none."""
    values = dataset.labels
    named = {str(value): name for value, name in sorted(values.names.items()) if value not in (0, values.ignore)}
    if named:
        return named
    cases = [one.facts for one in usable if one.facts]
    seen = sorted({int(value) for case in cases for value in case.classes})
    if len(seen) == 1 or _are_ids(cases, pictures=all(map(is_picture, dataset.training))):
        return {str(seen[0]): "object"}
    return {str(value): f"class {value}" for value in seen}


def _are_ids(cases: Sequence[CaseFingerprint], *, pictures: bool) -> bool:
    """Whether values without names are ids of objects.

    They are where many of them are not all in one case, or run from 1 to another number in each; and where each marks one object, in
    pictures or in cases that differ much in their number.
    """
    values_of = [{int(value) for value in case.classes} for case in cases]
    seen, counts = set().union(*values_of), [len(values) for values in values_of]
    counted = all(values == {*range(1, len(values) + 1)} for values in values_of)
    if len(seen) > MANY and (max(counts) < len(seen) or (counted and len({*counts}) > 1)):
        return True
    alone = all(found.count == 1 for case in cases for found in case.classes.values())
    return alone and len(seen) >= FEW and (pictures or max(counts) > UNEVEN * max(min(counts), 1))


def _channel_findings(found: Sequence[Examined], names: Sequence[str]) -> Iterator[Finding]:
    counts = [len(one.facts.intensity) for one in found if one.facts]
    usual = max(set(counts), key=counts.count)
    for one, count in zip(found, counts, strict=True):
        if one.facts and count != usual:
            yield Finding("error", one.facts.id, "all images have as many channels", f"{count} where most have {usual}")
    if names and len(names) != usual:
        yield Finding("error", "", "an image has as many channels as are named", f"{usual} for {', '.join(names)}")


def _class_findings(fingerprint: Fingerprint) -> Iterator[Finding]:
    if not any(case.classes for case in fingerprint.cases):
        yield Finding("error", "", "a training case has an object", f"none in {len(fingerprint.cases)}")
        return
    if len(fingerprint.labels) < 2 or fingerprint.whole:
        return
    if len(fingerprint.labels) > MANY and all(name == f"class {value}" for value, name in fingerprint.labels.items()):
        yield Finding("warning", "", MANY_CLASSES, f"{len(fingerprint.labels)} values")
    unused = max(map(int, fingerprint.labels)) - len(fingerprint.labels)
    if unused > MOST_UNUSED:
        values = abbreviated(fingerprint.labels, 6)
        yield Finding("error", "", f"values of classes leave out at most {MOST_UNUSED} numbers", f"{unused} left out by {values}")
    for value, name in fingerprint.labels.items():
        count = sum(value in case.classes for case in fingerprint.cases)
        if not count:
            yield Finding("error", "", f"a class occurs in a training case: {name}", f"none of {len(fingerprint.cases)}")
        elif count < FEW < len(fingerprint.cases):
            yield Finding("warning", "", f"a class occurs in {FEW} training cases or more: {name}", str(count))
