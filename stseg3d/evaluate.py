"""Predictions against labels: pair the files by name, count, tabulate."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stseg3d.metrics import METRICS, Confusion, confusion, confusion_per_class
from stseg3d.volumes import Volume, find_cases, load_dataset, open_volume

logger = logging.getLogger(__name__)

PREDICTION_SUFFIX = "_seg"
FOREGROUND = "foreground"
MEAN = "mean"


@dataclass(frozen=True, slots=True)
class Pair:
    """A prediction and the label it is compared with."""

    case: str
    prediction: Path
    label: Path


@dataclass(frozen=True, slots=True)
class Row:
    """Metrics of one class in one case, or their mean over cases.

    Args:
        case: Id of the case; ``mean`` for a mean.
        name: ``foreground``, or the class as a number.
        values: By name, as in :data:`stseg3d.metrics.METRICS`.
        counts: Voxels; of a mean the sum over cases.
    """

    case: str
    name: str
    values: dict[str, float]
    counts: Confusion

    def as_dict(self) -> dict[str, Any]:
        """Flat, as it stands in CSV and JSON."""
        voxels = {"prediction_voxels": self.counts.prediction_voxels, "label_voxels": self.counts.label_voxels}
        return {"case": self.case, "class": self.name, **self.values, **voxels}


def pair_cases(predictions: Path, labels: Path, *, part: str = "validation") -> list[Pair]:
    """Predictions with their labels, by name: ``<id>_seg.nii.gz`` or ``<id>.nii.gz`` goes with the label ``<id>.nii.gz``.

    Labels of a folder without a prediction are left out, and named in a warning: a folder of all labels serves for some predictions. A
    ``dataset.json`` says what is due.

    Args:
        predictions: File or folder.
        labels: File, folder or ``dataset.json``. Where both are files, their names do not matter.
        part: Which cases of a ``dataset.json``: ``training``, ``validation`` or ``test``.

    Raises:
        ValueError: If a prediction has no label, or a case of a ``dataset.json`` no prediction; the message lists all.
    """
    found = {case.id: case.image for case in find_cases([predictions])}
    if labels.suffix == ".json":
        due = {case.id: case.label for case in getattr(load_dataset(labels), part) if case.label is not None}
    else:
        due = {case.id: case.image for case in find_cases([labels])}
        if predictions.is_file() and labels.is_file():
            return [Pair(next(iter(due)), predictions, labels)]
    names = {name: name if name in due else name.removesuffix(PREDICTION_SUFFIX) for name in found}
    pairs = [Pair(names[name], path, due[names[name]]) for name, path in found.items() if names[name] in due]
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


def evaluate_case(pair: Pair, *, per_class: bool = False) -> list[Row]:
    """Metrics of one case: of the foreground (label above 0) and, if asked, of each class that occurs in either file.

    Raises:
        ValueError: If the two are not on the same grid, or either is not a label map.
    """
    prediction, label = open_volume(pair.prediction), open_volume(pair.label)
    if not prediction.grid.is_close(label.grid):
        ours, theirs = prediction.grid, label.grid
        what = f"shape {ours.shape} and {theirs.shape}"
        if ours.shape == theirs.shape:
            what = f"affine {np.round(ours.affine, 4).tolist()} and {np.round(theirs.affine, 4).tolist()}"
        msg = f"prediction {pair.prediction} and label {pair.label} must be on the same grid, got {what}"
        raise ValueError(msg)
    classes = read_classes(prediction), read_classes(label)
    counts = {FOREGROUND: confusion(*classes)}
    if per_class:
        counts |= {str(c): found for c, found in confusion_per_class(*classes).items()}
    return [_row(pair.case, name, found) for name, found in counts.items()]


def read_classes(volume: Volume) -> NDArray[np.integer]:
    """The label map in a file, of shape ``(*S)``.

    Raises:
        ValueError: If it has several channels, or a value that is negative or not whole.
    """
    if volume.channels != 1:
        msg = f"{volume.name}: a label map must have one channel, got {volume.channels}"
        raise ValueError(msg)
    array: NDArray[Any] = volume.read()[0]
    if array.dtype.kind == "f":
        whole = array.astype(np.int32)
        if not np.array_equal(whole, array):
            msg = f"{volume.name}: a label map must hold whole numbers, got {array[whole != array][0]}"
            raise ValueError(msg)
        array = whole
    if array.min(initial=0) < 0:
        msg = f"{volume.name}: a label map must not be negative, got {array.min()}"
        raise ValueError(msg)
    return array


def mean_rows(rows: Iterable[Row]) -> list[Row]:
    """For each class the mean over the cases that have a row of it."""
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        by_name.setdefault(row.name, []).append(row)
    return [_mean(name, by_name[name]) for name in sorted(by_name, key=lambda n: -1 if n == FOREGROUND else int(n))]


def _mean(name: str, rows: Sequence[Row]) -> Row:
    values = {metric: float(np.mean([row.values[metric] for row in rows])) for metric in METRICS}
    return Row(MEAN, name, values, reduce(add, (row.counts for row in rows)))


def _row(case: str, name: str, counts: Confusion) -> Row:
    return Row(case, name, {metric: function(counts) for metric, function in METRICS.items()}, counts)


def table(rows: Sequence[Row]) -> str:
    """Rows as text in aligned columns, values with four decimals, under one line of names."""
    cells = [["case", "class", *METRICS]]
    cells += [[row.case, row.name, *(f"{row.values[metric]:.4f}" for metric in METRICS)] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    # Names to the left, numbers to the right.
    return "\n".join(
        "  ".join(cell.ljust(width) if i < 2 else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths, strict=True)))
        for line in cells
    )


def dump(rows: Sequence[Row], suffix: str) -> str:
    """Rows as ``.csv`` or ``.json``."""
    records = [row.as_dict() for row in rows]
    if suffix == ".json":
        return json.dumps(records, indent=2) + "\n"
    if suffix != ".csv":
        msg = f"tables are written as .csv or .json, got {suffix!r}"
        raise ValueError(msg)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()
