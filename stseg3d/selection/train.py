"""Training of all folds of all candidates, each a small bundle of its own; what is finished is not trained again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stseg3d.bundle import open_bundle
from stseg3d.planning.new_bundle import DATASET
from stseg3d.selection.candidates import candidate_plans, fold_folder, is_trained, kept_candidates, write_fold
from stseg3d.selection.splits import kept_splits, labelled_data
from stseg3d.training.processes import launched
from stseg3d.training.run import train_bundle

logger = logging.getLogger(__name__)


def train_folds(
    bundle: Path,
    data: Path,
    folds: int,
    *,
    epochs: int | None = None,
    budget_s: float | None = None,
    device: str = "auto",
    seed: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    trust: bool = False,
    tell: Callable[[Path, int, int], None] = lambda *_: None,
) -> list[Path]:
    """Train each candidate of a bundle once for each fold, without the fold's cases; the bundle's own weights are left alone.

    The same call resumes: finished folds are not trained again, and one that was killed goes on.

    Args:
        bundle: Folder of the bundle.
        data: Its ``dataset.json``; cases for training and for validation are divided together, by patient.
        folds: Number of folds.
        epochs: Epochs of each stage; by default what the plans say.
        budget_s: Wall seconds for all trainings together, shared equally; with some of them finished before, the others have their shares.
        device: Device of the networks.
        seed: Seed of the split, if it is new, and of the trainings.
        overrides: Entries of the plan to set in all candidates.
        trust: Train a bundle that is more than data.
        tell: Called before each training with its folder, its number from 1, and the number of all that are left.

    Returns:
        Folder of each fold's bundle.

    Raises:
        OSError: If a file cannot be read or written.
        ValueError: If folds are impossible, or the call contradicts what was begun, or a training fails.
    """
    if launched():
        msg = (
            "folds must be trained by one process, got several of torchrun: train the bundles in its folder folds with torchrun, one by one"
        )
        raise ValueError(msg)
    plan = open_bundle(bundle, trust=trust).require_plan()
    found = labelled_data(data)
    for finding in found.findings:
        logger.warning("%s: %s, got %s", finding.case or data, finding.rule, finding.value)
    splits = kept_splits(bundle, found, folds, seed=seed or 0)
    folders = []
    for name, candidate in candidate_plans(plan, kept_candidates(bundle, plan, device), overrides or {}).items():
        for n, fold in enumerate(splits.folds):
            folders.append(fold_folder(bundle, name, n))
            write_fold(bundle, folders[-1], candidate, found, fold)
    left = [folder for folder in folders if not is_trained(folder)]
    end = time.monotonic() + (budget_s or 0.0) * len(left) / len(folders)
    for n, folder in enumerate(left):
        tell(folder, n + 1, len(left))
        share = None if budget_s is None else max((end - time.monotonic()) / (len(left) - n), 1.0)
        try:
            train_bundle(folder, folder / DATASET, epochs=epochs, budget_s=share, device=device, seed=seed, trust=trust)
        except ValueError as error:
            msg = f"{folder.parent.name}, {folder.name}: {error}"
            raise ValueError(msg) from error
    return folders
