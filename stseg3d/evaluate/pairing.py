"""Which prediction belongs to which label."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from stseg3d.volumes import LabelValues, find_cases, load_dataset

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
    """Predictions with their labels, by name: ``<id>_seg.nii.gz`` or ``<id>.nii.gz`` goes with the label ``<id>.nii.gz``.

    Labels of a folder that have no prediction are left out, with a warning. Every case in a ``dataset.json`` needs a prediction.

    Args:
        predictions: File or folder.
        labels: File, folder or ``dataset.json``. Where both are files, their names do not matter.
        part: Which cases of a ``dataset.json``: ``training``, ``validation`` or ``test``.

    Raises:
        ValueError: If a prediction has no label, or a case of a ``dataset.json`` has no prediction; the message lists all.
    """
    found = {case.id: case.image for case in find_cases([predictions])}
    values = LabelValues()
    if labels.suffix == ".json":
        dataset = load_dataset(labels)
        values = dataset.labels
        due = {case.id: case.label for case in getattr(dataset, part) if case.label is not None}
    else:
        due = {case.id: case.image for case in find_cases([labels])}
        if predictions.is_file() and labels.is_file():
            return [Pair(next(iter(due)), predictions, labels)]
    names = {name: name if name in due else name.removesuffix(PREDICTION_SUFFIX) for name in found}
    pairs = [Pair(names[name], path, due[names[name]], values) for name, path in found.items() if names[name] in due]
    lone = {
        "no label": [path for name, path in found.items() if names[name] not in due],
        "no prediction": [path for name, path in due.items() if name not in names.values()],
    }
    if labels.is_dir() and pairs and lone["no prediction"] and not lone["no label"]:
        names_of = ", ".join(p.name for p in lone["no prediction"])
        logger.warning("%s: %d labels have no prediction and are not scored: %s", labels, len(lone.pop("no prediction")), names_of)
    if any(lone.values()):
        lists = "; ".join(f"{what} for {', '.join(p.name for p in paths)}" for what, paths in lone.items() if paths)
        msg = f"predictions {predictions} and labels {labels} must pair by name, <id>{PREDICTION_SUFFIX} with <id>: {lists}"
        raise ValueError(msg)
    if twice := sorted({pair.case for pair in pairs if sum(p.case == pair.case for p in pairs) > 1}):
        msg = f"predictions {predictions} must hold one file a case, got several of {', '.join(twice)}"
        raise ValueError(msg)
    return pairs
