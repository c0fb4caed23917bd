"""Which prediction belongs to which label."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from stseg3d.volumes import LabelValues, find_cases, load_dataset
from stseg3d.volumes.listing import is_output
from stseg3d.volumes.names import shortened, stem

logger = logging.getLogger(__name__)

PREDICTION_SUFFIX = "_seg"


@dataclass(frozen=True, slots=True)
class Pair:
    """A prediction and the label it is compared with, whose values a ``dataset.json`` may name."""

    case: str
    prediction: Path
    label: Path
    label_values: LabelValues = field(default=LabelValues(), compare=False, repr=False)


def pair_cases(predictions: Path, labels: Path, *, part: str = "validation") -> list[Pair]:
    """Predictions with their labels, by the name of the case: ``<id>_seg.nii.gz`` or ``<id>.nii.gz`` goes with the label of ``<id>``.

    Labels of a folder that have no prediction are left out, with a warning, and so are predictions of other parts of a ``dataset.json``.
    Every labelled case of the part needs a prediction.

    Args:
        predictions: File or folder.
        labels: File, folder or ``dataset.json``, whose cases have the names that ``stseg3d segment`` gives them. Where both are files,
            their names do not matter.
        part: Which cases of a ``dataset.json``: ``training``, ``validation`` or ``test``.

    Raises:
        ValueError: If a prediction has no label or may belong to two cases, or a case of a ``dataset.json`` has no prediction; the message
            lists all.
    """
    due, known, values = _labels(labels, part)
    if predictions.is_file() and labels.is_file() and not _is_dataset(labels):
        return [Pair(next(iter(due)), predictions, labels)]
    files = [case.images[0] for case in find_cases([predictions])]
    found = {path: _owners(path, known, of_images=_is_dataset(labels)) for path in files}
    pairs = [Pair(names[0], path, due[names[0]], values) for path, names in found.items() if len(names) == 1 and names[0] in due]
    elsewhere = [path.name for path, names in found.items() if len(names) == 1 and names[0] not in due]
    unpredicted = sorted(due.keys() - {name for names in found.values() for name in names})
    lone = {
        "no label for": [path.name for path, names in found.items() if not names],
        "no prediction for": unpredicted,
        "several cases for": [f"{path.name} ({' or '.join(names)})" for path, names in found.items() if len(names) > 1],
    }
    if labels.is_dir() and pairs and unpredicted and not lone["no label for"]:
        logger.warning("%s: %d labels have no prediction and are not scored: %s", labels, len(unpredicted), ", ".join(unpredicted))
        del lone["no prediction for"]
    if any(lone.values()):
        lists = "; ".join(f"{what} {', '.join(names)}" for what, names in lone.items() if names)
        msg = f"predictions {predictions} and labels {labels} must pair by name, <id>{PREDICTION_SUFFIX} with <id>: {lists}"
        raise ValueError(msg)
    if twice := sorted(name for name, n in Counter(pair.case for pair in pairs).items() if n > 1):
        msg = f"predictions {predictions} must hold one file a case, got several of {', '.join(twice)}"
        raise ValueError(msg)
    if elsewhere:
        logger.warning(
            "%s: %d predictions are of cases that %s does not score: %s", predictions, len(elsewhere), part, ", ".join(elsewhere)
        )
    return pairs


def _is_dataset(labels: Path) -> bool:
    return labels.suffix.lower() == ".json"


def _labels(labels: Path, part: str) -> tuple[dict[str, Path], Collection[str], LabelValues]:
    """Labels to be scored by case, the names of all cases, and the values that labels may have."""
    if not _is_dataset(labels):
        due = {case.id: case.images[0] for case in find_cases([labels])}
        return due, due.keys(), LabelValues()
    dataset = load_dataset(labels)
    scored = {case.id: case.label for case in getattr(dataset, part) if case.label is not None}
    return scored, {case.id for case in (*dataset.training, *dataset.validation, *dataset.test)}, dataset.labels


def _owners(prediction: Path, known: Collection[str], *, of_images: bool) -> list[str]:
    """Cases that a prediction may belong to. If ``known`` names images, an output of ``stseg3d segment`` belongs to one at most."""
    name = stem(prediction)
    stripped = name.removesuffix(PREDICTION_SUFFIX)
    names = dict.fromkeys(shortened(n) for n in ((stripped,) if of_images and is_output(prediction) else (name, stripped)))
    return [n for n in names if n in known]
