"""`stseg3d compare`: train what is missing, score every way at every size, draw and advise."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from stseg3d.bundle import INFERENCE, find_bundle, open_bundle
from stseg3d.compare.checks import are_pictures, check_cases, check_runs
from stseg3d.compare.comparison import WAYS, Comparison
from stseg3d.compare.measure import Measured, Task, measure, measure_alone
from stseg3d.compare.runs import SLIDING, Run, prepare_runs, train_missing
from stseg3d.geometry import Box
from stseg3d.machine.files import atomic_write_text
from stseg3d.planning import labelled_cases
from stseg3d.training.folds import check_ids
from stseg3d.training.stages import trained_stage
from stseg3d.volumes import Case, Dataset, load_dataset, output_name

logger = logging.getLogger(__name__)

RESULTS = "results.json"
PART_NOTES = {
    "validation": "The checkpoints were chosen on these cases: these are validation scores, not test scores.",
    "training": "The networks were trained on these cases: these scores say how well they were learned by heart.",
}
PICTURE_NOTE = "The images are pictures without a scale: what is given in mm are pixels."
BOXED_WAYS = {"two_stage", "true_boxes"}


def compare(
    bundle: str | Path,
    data: Path,
    folder: Path,
    *,
    sizes: Sequence[int],
    rough_sizes: Sequence[int] = (),
    sliding_sizes: Sequence[int] | None = None,
    ways: Sequence[str] = WAYS,
    part: str = "validation",
    budget_s: float | None = None,
    epochs: int | None = None,
    device: str = "auto",
    seed: int = 0,
    threads: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    alone: bool = True,
    trust: bool = False,
) -> Comparison:
    """Segment the same cases in several ways at several input sizes.

    Networks and scores that exist in the folder are not made again, and a training that was killed is resumed.

    Args:
        bundle: Bundle whose fine network, box policy and recipe are used: folder or name.
        data: ``dataset.json``.
        folder: Folder of runs, predictions and results.
        sizes: Input sizes, in voxels along each axis.
        rough_sizes: Further sizes, of the rough network alone.
        sliding_sizes: Sizes of the sliding window; by default all of ``sizes``.
        ways: Some of :data:`WAYS`.
        part: Cases to score: ``validation``, ``test`` or ``training``.
        budget_s: Wall seconds for all training together, including earlier training.
        epochs: Epochs of each stage; by default what the bundle says.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        seed: Seed of weights, order and augmentation.
        threads: CPU threads.
        overrides: Entries of the plan to change in every run, see :func:`stseg3d.plan.set_entries`.
        trust: Take a bundle that is more than data, see :func:`stseg3d.bundle.read_bundle`.
        alone: Whether each way is measured in its own process; otherwise peak memory is that of all ways together.

    Returns:
        The comparison, which is also in ``folder / "results.json"``.

    Raises:
        UntrustedError: If the bundle is more than data, and ``trust`` is off.
        ValueError: If a way or a size is unknown, the part has no labelled case, a case cannot be read or its label lies on another grid,
            a network cannot take a size, or the folder holds runs with other settings; nothing is trained then.
    """
    if unknown := sorted(set(ways) - set(WAYS)):
        msg = f"ways must be of {', '.join(WAYS)}, got {', '.join(unknown)}"
        raise ValueError(msg)
    root, dataset = find_bundle(bundle), load_dataset(data)
    cases = labelled_cases(data, part)
    check_ids(getattr(dataset, part))
    plan = open_bundle(root, trust=trust).require_plan()
    check_cases(root, plan, [*dataset.training, *dataset.validation, *cases], overrides or {})
    chosen: dict[str, Any] = {"rough_sizes": rough_sizes, "sliding_sizes": sliding_sizes, "overrides": overrides, "trust": trust}
    runs = prepare_runs(root, dataset, folder, sizes=sizes, **chosen)
    runs = [needed(run, ways) for run in runs if ways_of(run, ways)]
    check_runs(runs, dataset, data)
    seconds = train_missing(runs, data, budget_s=budget_s, epochs=epochs, device=device, seed=seed)
    found = [
        (run, way, _measured(Task(run, way, cases, run.folder / "predictions" / way, device, threads), alone=alone))
        for run in runs
        for way in ways_of(run, ways)
    ]
    comparison = _comparison(root.name, dataset, part, found, seconds)
    comparison.notes.extend(_notes(dataset, part, cases))
    comparison.save(folder / RESULTS)
    return comparison


def ways_of(run: Run, ways: Iterable[str]) -> list[str]:
    """Ways that use the networks of a run."""
    if run.kind == SLIDING:
        return [way for way in ways if way == "sliding_window"]
    return [way for way in ways if way == "rough_only" or (way != "sliding_window" and "fine" in run.stages)]


def needed(run: Run, ways: Iterable[str]) -> Run:
    """The run with the stages that the ways need: no fine network for the rough one alone."""
    return run if run.kind == SLIDING or BOXED_WAYS & set(ways) else replace(run, stages=("rough",))


def kept_boxes(run_folder: Path, way: str, case: str) -> list[Box]:
    """Boxes of a way, on the image's grid; empty for ways without boxes."""
    kept = json.loads(_kept_path(run_folder, way).read_text(encoding="utf-8"))
    return Measured.from_dict(kept["measured"]).boxes[case]


def _kept_path(run_folder: Path, way: str) -> Path:
    return run_folder / f"measured_{way}.json"


def _measured(task: Task, *, alone: bool) -> Measured:
    """Measurements of a task, those of an earlier call if weights and cases are the same."""
    path, key = _kept_path(task.run.folder, task.way), _key(task)
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if kept.get("key") == key and all((task.predictions / output_name(case.id)).is_file() for case in task.cases):
        logger.info("%s at %s: scored before", task.way, task.run.size)
        return Measured.from_dict(kept["measured"])
    found = measure_alone(task) if alone else measure(task)
    atomic_write_text(path, json.dumps({"key": key, "measured": found.as_dict()}, indent=1) + "\n")
    return found


def _key(task: Task) -> str:
    """Digest of all that a score depends on: weights, configs, cases and their files."""
    weights = trained_stage(task.run.folder, task.run.stages[-1])
    assert weights is not None
    digest = sha256(weights.read_bytes() + (task.run.folder / INFERENCE).read_bytes() + f"{task.device} {task.threads}".encode())
    for case in task.cases:
        if case.label_values.ignore is not None:
            digest.update(f"ignore {case.label_values.ignore}".encode())
        for path in (*case.images, case.label):
            if path is not None:
                digest.update(f"{path} {path.stat().st_mtime_ns}".encode())
    return digest.hexdigest()


def _comparison(
    bundle: str, dataset: Dataset, part: str, found: Sequence[tuple[Run, str, Measured]], seconds: Mapping[str, float]
) -> Comparison:
    shares = [s for _, way, m in found if way == "true_boxes" for s in m.box_share.values()]
    return Comparison(
        bundle=bundle,
        data=dataset.name,
        part=part,
        scores=[replace(score, peak_memory_bytes=m.peak_memory_bytes) for _, _, m in found for score in m.scores],
        parameters={way: m.parameters for _, way, m in found},
        downscaling={run.nominal_size: float(np.median(list(m.downscaling.values()))) for run, _, m in found},
        object_share=float(np.median(shares)) if shares else float("nan"),
        training_seconds=dict(seconds),
    )


def _notes(dataset: Dataset, part: str, cases: Sequence[Case]) -> list[str]:
    """Notes for readers of the tables."""
    whole = len(getattr(dataset, part))
    notes = [PART_NOTES[part]] if part in PART_NOTES else []
    notes += [f"Without a label, and not scored: {whole - len(cases)} of {whole} {part} cases."] * (whole > len(cases))
    return notes + [PICTURE_NOTE] * are_pictures(cases)
