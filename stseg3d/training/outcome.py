"""Outcome of a training: the whole pipeline scored on the validation cases, as a user will run it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stseg3d.bundle import open_bundle
from stseg3d.evaluate import FOREGROUND, classes_in
from stseg3d.inference.segment import Segmenter
from stseg3d.machine.files import atomic_write_text
from stseg3d.machine.tables import Table, json_text
from stseg3d.metrics import confusion, dice
from stseg3d.ops import box_coverage
from stseg3d.volumes import Case, load_dataset, open_volume, read_label

FILE = Path("eval", "validation.json")
Progress = Callable[[Iterable[Case]], Iterable[Case]]


@dataclass(frozen=True)
class CaseOutcome:
    """Scores of one case.

    Attributes:
        case: Its id.
        dice: Dice by class and by region; none where it is in neither the prediction nor the label.
        coverage: Share of the labelled voxels in boxes.
        boxes: Number of boxes.
        seconds: Wall time.
    """

    case: str
    dice: dict[str, float]
    coverage: float
    boxes: int
    seconds: float


def score_trained(bundle: Path, data: Path, *, device: str = "auto", trust: bool = False, progress: Progress = iter) -> Table:
    """Scores of a trained bundle on the validation cases of a data set, as a table; ``eval/validation.json`` has each case.

    Args:
        bundle: Folder of the bundle.
        data: The ``dataset.json``.
        device: Device of the networks.
        trust: Run a bundle that is more than data.
        progress: Wrapper of the cases, such as a progress bar.

    Raises:
        OSError: If a file cannot be read or written.
        ValueError: If the bundle has no weights, or a case does not fit it.
    """
    outcomes = validate(bundle, load_dataset(data).validation, device=device, trust=trust, progress=progress)
    (bundle / FILE).parent.mkdir(exist_ok=True)
    content: dict[str, Any] = {"part": "validation", "mean": summary(outcomes), "cases": [vars(one) for one in outcomes]}
    atomic_write_text(bundle / FILE, json_text(content))
    return outcome_table(outcomes)


def validate(
    bundle: Path,
    cases: Iterable[Case],
    *,
    device: str = "auto",
    trust: bool = False,
    progress: Progress = iter,
) -> list[CaseOutcome]:
    """Scores of a trained bundle on labelled cases.

    Args:
        bundle: Folder of the bundle.
        cases: The cases.
        device: Device of the networks.
        trust: Run a bundle that is more than data.
        progress: Wrapper of the cases, such as a progress bar.

    Raises:
        OSError: If a file cannot be read.
        ValueError: If the bundle has no weights, or a case does not fit it.
    """
    plan = open_bundle(bundle, trust=trust).require_plan()
    segmenter = Segmenter(bundle, device=device, trust=trust)
    binary = len(plan.classes) == 2 or plan.output.kind == "instances"
    out = []
    for case in progress(cases):
        image = open_volume(case.image, channels_last=True)
        truth = read_label(case.label, image, case.label_values, meaning="foreground" if binary else "classes")  # as in training
        start = time.perf_counter()
        found = segmenter.inferer.segment(image, segmenter.network)
        seconds = time.perf_counter() - start
        labels = found.labels if found.probabilities is None else (found.probabilities.sum(axis=0) > 0.5).astype(np.uint8)
        ours, theirs = truth.clear(labels), truth.classes
        scores = {FOREGROUND: dice(confusion(ours, theirs))} if binary else {}
        for value in () if binary else classes_in(ours, theirs):
            name = plan.classes[value] if value < len(plan.classes) else str(value)
            scores[name] = dice(confusion(ours == value, theirs == value))
        for name, values in plan.regions.items():
            of_region = confusion(np.isin(ours, values), np.isin(theirs, values))
            scores |= {name: dice(of_region)} if of_region.prediction_voxels or of_region.label_voxels else {}
        boxes = [b.box for b in found.boxes]
        out.append(CaseOutcome(case.id, scores, box_coverage(truth.classes, boxes), len(boxes), seconds))
    return out


def summary(outcomes: list[CaseOutcome]) -> dict[str, float]:
    """Mean Dice of each class, and mean coverage of the boxes."""
    classes = dict.fromkeys(name for one in outcomes for name in one.dice)
    means = {name: float(np.mean([one.dice[name] for one in outcomes if name in one.dice])) for name in classes}
    return {**means, "coverage": float(np.mean([one.coverage for one in outcomes]))}


def outcome_table(outcomes: list[CaseOutcome]) -> Table:
    """Mean, lowest and highest Dice of each class over the cases."""
    classes = dict.fromkeys(name for one in outcomes for name in one.dice)
    rows = []
    for name in classes:
        values = [one.dice[name] for one in outcomes if name in one.dice]
        rows.append([name, f"{np.mean(values):.3f}", f"{min(values):.3f}", f"{max(values):.3f}", str(len(values))])
    covered = [one.coverage for one in outcomes]
    rows.append(["labelled voxels in boxes", f"{np.mean(covered):.3f}", f"{min(covered):.3f}", f"{max(covered):.3f}", str(len(covered))])
    return Table(["Dice of the pipeline, validation", "mean", "lowest", "highest", "cases"], rows, words=1)
