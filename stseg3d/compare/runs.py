"""One trained bundle for each input size, in one folder, trained where it is missing."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod, sqrt
from pathlib import Path
from typing import Any

import numpy as np

from stseg3d.bundle import METADATA, PLAN, WEIGHTS, open_bundle, write_plan
from stseg3d.compare.plans import run_plan
from stseg3d.machine.files import atomic_write, atomic_write_text
from stseg3d.plan import Plan
from stseg3d.training.run import train_bundle
from stseg3d.training.stages import STAGES_DIR
from stseg3d.volumes import Dataset, open_volume

logger = logging.getLogger(__name__)

TWO_STAGE, SLIDING = "two_stage", "sliding_window"

# The bundles' networks halve an axis up to four times.
SIZE_MULTIPLE = 16


@dataclass(frozen=True)
class Run:
    """A copy of the bundle, with networks of one input size."""

    folder: Path  # folder of the copy, with its weights and logs
    nominal_size: int  # requested size
    size: tuple[int, ...]  # input of its networks, in voxels along each axis
    kind: str  # `"two_stage"` or `"sliding_window"`
    stages: tuple[str, ...]  # stages to train
    trust: bool = False  # whether it may be more than data, like the bundle that it copies

    def is_trained(self, stage: str) -> bool:
        """Whether this stage is completely trained, alone or as part of the composite."""
        stages = self.folder / STAGES_DIR
        return (self.folder / WEIGHTS).is_file() or ((stages / f"{stage}.pt").is_file() and not (stages / f"last_{stage}.pt").is_file())

    @property
    def is_begun(self) -> bool:
        """Whether the folder has any weights, including those of a killed training."""
        return any((self.folder / "models").rglob("*.pt"))

    @property
    def missing(self) -> list[str]:
        """Stages still to be trained."""
        return [stage for stage in self.stages if not self.is_trained(stage)]

    @property
    def effort(self) -> float:
        """Share of a time budget that a stage gets, relative to others; larger inputs get more, but not in proportion."""
        return sqrt(prod(self.size))


def input_size(nominal: int, shapes: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Network input for a nominal size: no axis gets more voxels than the images have there, by the median of their shapes.

    Returns:
        Size along each axis; 1 where the images are flat.

    Raises:
        ValueError: If ``nominal`` is no such multiple.

    Example:
        >>> input_size(128, [(77, 224, 224)])
        (80, 128, 128)
    """
    if nominal < SIZE_MULTIPLE or nominal % SIZE_MULTIPLE:
        msg = f"sizes must be multiples of {SIZE_MULTIPLE}, got {nominal}"
        raise ValueError(msg)
    native = np.median(np.array(shapes), axis=0)
    return tuple(1 if n <= 1 else min(nominal, int(-(-n // SIZE_MULTIPLE) * SIZE_MULTIPLE)) for n in native)


def prepare_runs(
    bundle: Path,
    dataset: Dataset,
    folder: Path,
    *,
    sizes: Sequence[int],
    rough_sizes: Sequence[int] = (),
    sliding_sizes: Sequence[int] | None = None,
    overrides: Mapping[str, Any] | None = None,
    trust: bool = False,
) -> list[Run]:
    """Prepare the folders of all runs with their plans; networks that are trained there stay.

    Arguments are those of :func:`stseg3d.compare.compare`; the shapes of the training images limit the sizes.

    Raises:
        UntrustedError: If the bundle is more than data, and ``trust`` is off.
        ValueError: If two sizes give the same input, the folder holds runs with other settings, or an entry to override does not exist.
    """
    if alien := sorted(set(sliding_sizes or ()) - set(sizes)):
        msg = f"sliding_sizes must be of the sizes {sorted(sizes)}, got {alien}"
        raise ValueError(msg)
    base = open_bundle(bundle, trust=trust).require_plan()
    grids = [open_volume(case.image, channels_last=True).grid for case in dataset.training]
    shapes = [grid.view(*grid.canonical(base.image.axcodes or grid.orientation)).shape for grid in grids]
    _ensure_distinct({*sizes, *rough_sizes}, shapes)
    runs = []
    for nominal in sorted({*sizes, *rough_sizes}):
        size = input_size(nominal, shapes)
        stages = ("rough", "fine") if nominal in sizes else ("rough",)
        runs.append(Run(folder / f"{nominal:03d}" / TWO_STAGE, nominal, size, TWO_STAGE, stages, trust))
        if nominal in (sizes if sliding_sizes is None else sliding_sizes):
            runs.append(Run(folder / f"{nominal:03d}" / SLIDING, nominal, size, SLIDING, ("fine",), trust))
    plans = [run_plan(base, run.size, overrides or {}, sliding=run.kind == SLIDING) for run in runs]
    for run, plan in zip(runs, plans, strict=True):
        _ensure_same(run, plan)
    for run, plan in zip(runs, plans, strict=True):
        _write(run, plan, bundle)
    return runs


def train_missing(
    runs: Iterable[Run], data: Path, *, budget_s: float | None = None, epochs: int | None = None, device: str = "auto", seed: int = 0
) -> dict[str, float]:
    """Train missing stages, small sizes first; a run that was killed is resumed.

    Options are those of :func:`stseg3d.compare.compare`. Of ``budget_s`` the share of stages trained earlier counts as spent, so that
    each gets the same whether or not the command was stopped in between.

    Returns:
        Training seconds of each stage by name, including those trained earlier.
    """
    runs = list(runs)
    todo = sorted(((run, stage) for run in runs for stage in run.missing), key=lambda part: prod(part[0].size))
    whole = sum(run.effort for run in runs for _ in run.stages)
    left = None if budget_s is None else budget_s * sum(run.effort for run, _ in todo) / whole
    for n, (run, stage) in enumerate(todo):
        share = None if left is None else left * run.effort / sum(r.effort for r, _ in todo[n:])
        logger.info("%s, %s at %s: training%s", run.kind, stage, run.size, "" if share is None else f" for {share:.0f} s")
        start = time.monotonic()
        try:
            train_bundle(run.folder, data, stage=stage, budget_s=share, epochs=epochs, device=device, seed=seed, trust=run.trust)
        finally:  # the time of a killed training counts as well
            _note(run, stage, time.monotonic() - start)
        left = None if left is None else max(left - _notes(run)[stage], 1.0)
    return {f"{run.nominal_size} {run.kind} {stage}": s for run in runs for stage, s in _notes(run).items()}


def _ensure_distinct(sizes: Iterable[int], shapes: Sequence[Sequence[int]]) -> None:
    """Refuse two nominal sizes with the same input, which would be trained twice and show noise as a gain."""
    seen: dict[tuple[int, ...], int] = {}
    for nominal in sorted(sizes):
        size = input_size(nominal, shapes)
        if size in seen:
            msg = f"sizes {seen[size]} and {nominal} give the same input, {size}, as the images are no larger; leave {nominal} out"
            raise ValueError(msg)
        seen[size] = nominal


def _ensure_same(run: Run, plan: Plan) -> None:
    """Refuse a folder whose run was begun with another plan."""
    path = run.folder / PLAN
    if run.is_begun and path.is_file() and Plan.parse(path.read_bytes(), str(path)) != plan:
        msg = f"{path}: the runs in this folder were trained with other settings; choose another folder, or remove {run.folder}"
        raise ValueError(msg)


def _write(run: Run, plan: Plan, bundle: Path) -> None:
    if run.is_begun and (run.folder / PLAN).is_file():
        return
    (run.folder / METADATA).parent.mkdir(parents=True, exist_ok=True)
    if (bundle / METADATA).is_file():
        with atomic_write(run.folder / METADATA) as temporary:
            temporary.write_bytes((bundle / METADATA).read_bytes())
    write_plan(run.folder, plan)


def _note(run: Run, stage: str, seconds: float) -> None:
    notes = _notes(run)
    notes[stage] = round(notes.get(stage, 0.0) + seconds, 1)
    atomic_write_text(run.folder / "training_seconds.json", json.dumps(notes) + "\n")


def _notes(run: Run) -> dict[str, float]:
    path = run.folder / "training_seconds.json"
    found: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found
