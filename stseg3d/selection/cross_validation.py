"""Cross-validation of a candidate: each case segmented by the networks of the fold that held it out, kept on disk, and scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stseg3d.batch import InProcess, run_batch
from stseg3d.evaluate import Interval, bootstrap_interval
from stseg3d.inference import Request
from stseg3d.plan import Output, Plan
from stseg3d.planning.new_bundle import DATASET
from stseg3d.results.notes import NOTES_SUFFIX, read_notes
from stseg3d.selection.candidates import fold_folder
from stseg3d.selection.pieces import Pieces
from stseg3d.selection.rules import case_means, class_means
from stseg3d.selection.splits import FILE as SPLITS
from stseg3d.selection.splits import Splits
from stseg3d.volumes import Case, load_dataset, open_volume, output_name, read_classes, read_label

PREDICTIONS = {False: "predictions", True: "predictions_mirrored"}  # folder, by whether inputs were mirrored


@dataclass(frozen=True)
class Validated:
    """A candidate's segmentations of all cases, each by networks that have not seen it.

    Attributes:
        name: Name of the candidate.
        plan: Its plan.
        cases: Ids of the cases.
        folds: Fold of each.
        pieces: Components of each prediction against its label.
        seconds: Mean wall time of a case.
    """

    name: str
    plan: Plan
    cases: tuple[str, ...]
    folds: tuple[int, ...]
    pieces: tuple[Pieces, ...]
    seconds: float

    def values(self, rules: Output | None = None) -> NDArray[np.float64]:
        """Mean Dice of each case over its classes or regions, under rules for components; NaN for one without an object."""
        return case_means(self.pieces, rules or Output())

    def interval(self, rules: Output | None = None) -> Interval:
        """Mean Dice over the cases, with its interval."""
        return bootstrap_interval(self.values(rules))

    def by_class(self, rules: Output | None = None) -> dict[str, float]:
        """Mean Dice of each class, and of each region."""
        return dict(zip(self.pieces[0].names, class_means(self.pieces, rules or Output()).tolist(), strict=True))

    def by_fold(self, rules: Output | None = None) -> list[float]:
        """Mean Dice of each fold over the cases that it held out; NaN if none of them has an object."""
        values, folds = self.values(rules), np.array(self.folds)
        found = [values[(folds == n) & ~np.isnan(values)] for n in range(max(self.folds) + 1)]
        return [float(one.mean()) if len(one) else float("nan") for one in found]


def cross_validate(
    bundle: Path,
    name: str,
    plan: Plan,
    splits: Splits,
    *,
    mirrored: bool = False,
    device: str = "auto",
    trust: bool = False,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Validated:
    """Segment all cases with the networks of the folds that held them out, and score them; a second call finds what is there.

    Args:
        bundle: Folder of the whole bundle, whose folds are trained.
        name: Name of the candidate.
        plan: Its plan.
        splits: The folds.
        mirrored: Whether inputs are mirrored as the plan says, or not at all.
        device: Device of the networks.
        trust: Run a bundle that is more than data.
        progress: Wrapper of the folds, such as a progress bar.

    Raises:
        OSError: If a file cannot be read or written.
        ValueError: If a case cannot be segmented, or its label does not fit.
    """
    out = bundle / SPLITS.parent / name / PREDICTIONS[mirrored]
    off: dict[str, Any] = {f"{stage}_stage#mirror_axes": [] for stage in plan.stages if getattr(plan, stage).mirror_axes and not mirrored}
    found: list[tuple[str, int, Pieces, float]] = []
    for n in progress(range(len(splits.folds))):
        folder = fold_folder(bundle, name, n)
        cases = load_dataset(folder / DATASET).test
        request = Request(folder, out, device=device, output="labels", trust=trust, overrides=off)
        failed = run_batch(cases, request, InProcess(request), overwrite=True).failed
        if failed:
            msg = f"{failed[0].case}: {failed[0].reason}"
            raise ValueError(msg)
        found += [(case.id, n, _pieces(case, out, plan), read_notes(out / f"{case.id}{NOTES_SUFFIX}").seconds["total"]) for case in cases]
    ids, folds, pieces, seconds = zip(*found, strict=True)
    return Validated(name, plan, ids, folds, pieces, float(np.mean(seconds)))


def _pieces(case: Case, folder: Path, plan: Plan) -> Pieces:
    """Components of a case's prediction against its label; with two classes every label above 0 is the second."""
    prediction = open_volume(folder / output_name(case.id))
    several = len(plan.classes) > 2
    meaning: Any = {"meaning": "classes", "out_channels": len(plan.classes)} if several else {}
    truth = read_label(case.label, prediction, case.label_values, **meaning)
    labels = read_classes(prediction)
    predicted, true = (labels, truth.classes) if several else ((part > 0).astype(np.uint8) for part in (labels, truth.classes))
    voxel_mm3 = 1.0 if plan.image.colour else prediction.grid.voxel_mm3
    return Pieces.of(predicted, true, plan.classes, regions=plan.regions, ignored=truth.ignored, voxel_mm3=voxel_mm3)
