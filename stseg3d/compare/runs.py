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

from stseg3d.bundle import METADATA, WEIGHTS, read_config
from stseg3d.compare.configs import CONFIGS, ensure_known, run_config, run_metadata
from stseg3d.training.run import train_bundle
from stseg3d.training.stages import STAGES_DIR
from stseg3d.volumes import Dataset, open_volume
from stseg3d.volumes.write import renamed

logger = logging.getLogger(__name__)

TWO_STAGE, SLIDING = "two_stage", "sliding_window"

# The bundles' networks halve an axis up to four times.
MULTIPLE = 16


@dataclass(frozen=True)
class Run:
    """A copy of the bundle, with networks of one input size.

    Attributes:
        folder: The copy; its weights and logs lie in it.
        nominal_size: Size that was asked for.
        size: Input of its networks, in voxels along each axis.
        kind: ``"two_stage"`` or ``"sliding_window"``.
        stages: Which of its stages are wanted.
    """

    folder: Path
    nominal_size: int
    size: tuple[int, ...]
    kind: str
    stages: tuple[str, ...]

    def is_trained(self, stage: str) -> bool:
        """Whether this stage was trained to its end: it alone, or all stages, which are one file then."""
        stages = self.folder / STAGES_DIR
        return (self.folder / WEIGHTS).is_file() or ((stages / f"{stage}.pt").is_file() and not (stages / f"last_{stage}.pt").is_file())

    @property
    def is_begun(self) -> bool:
        """Whether any weights lie in the folder, those of a training that was killed included."""
        return any((self.folder / "models").rglob("*.pt"))

    @property
    def missing(self) -> list[str]:
        """Stages still to be trained."""
        return [stage for stage in self.stages if not self.is_trained(stage)]

    @property
    def effort(self) -> float:
        """Share of a time budget that a stage gets, relative to others: larger inputs learn longer, but not in proportion."""
        return sqrt(prod(self.size))


def input_size(nominal: int, shapes: Sequence[Sequence[int]], multiple: int = MULTIPLE) -> tuple[int, ...]:
    """Network input for a nominal size: no axis gets more voxels than the images have there.

    Args:
        nominal: Wanted voxels along each axis.
        shapes: Shapes of the images, along the networks' axes; their median counts.
        multiple: Each axis longer than 1 is a multiple of it.

    Returns:
        Size along each axis; 1 where the images are flat.

    Raises:
        ValueError: If ``nominal`` is no multiple of ``multiple``.

    Example:
        >>> input_size(128, [(77, 224, 224)])
        (80, 128, 128)
    """
    if nominal < multiple or nominal % multiple:
        msg = f"sizes must be multiples of {multiple}, got {nominal}"
        raise ValueError(msg)
    native = np.median(np.array(shapes), axis=0)
    return tuple(1 if n <= 1 else min(nominal, int(-(-n // multiple) * multiple)) for n in native)


def prepare_runs(
    bundle: Path,
    dataset: Dataset,
    folder: Path,
    *,
    sizes: Sequence[int],
    rough_sizes: Sequence[int] = (),
    sliding_sizes: Sequence[int] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> list[Run]:
    """Folders of all runs, their configs written; what is trained there stays.

    Args:
        bundle: Bundle whose fine network, policy and recipe are used at every size and in every role.
        dataset: Its training images' shapes limit the sizes.
        folder: Where the runs lie.
        sizes: Nominal sizes of all ways.
        rough_sizes: Further ones, of the rough network alone.
        sliding_sizes: Those of ``sizes`` at which a sliding window is trained, too; by default all.
        overrides: Config entries to change, by id.

    Raises:
        ValueError: If two sizes give one input, the folder holds runs of other settings, or an entry to override does not exist.
    """
    if alien := sorted(set(sliding_sizes or ()) - set(sizes)):
        msg = f"sliding_sizes must be of the sizes {sorted(sizes)}, got {alien}"
        raise ValueError(msg)
    ensure_known(bundle, overrides or {})
    shapes = _shapes(bundle, dataset)
    _ensure_distinct({*sizes, *rough_sizes}, shapes)
    runs = []
    for nominal in sorted({*sizes, *rough_sizes}):
        size = input_size(nominal, shapes)
        stages = ("rough", "fine") if nominal in sizes else ("rough",)
        runs.append(Run(folder / f"{nominal:03d}" / TWO_STAGE, nominal, size, TWO_STAGE, stages))
        if nominal in (sizes if sliding_sizes is None else sliding_sizes):
            runs.append(Run(folder / f"{nominal:03d}" / SLIDING, nominal, size, SLIDING, ("fine",)))
    texts = [_config_texts(bundle, run, overrides or {}) for run in runs]
    for run, own in zip(runs, texts, strict=True):
        _ensure_same(run, own)
    for run, own in zip(runs, texts, strict=True):
        _write_configs(run, own)
    return runs


def train_missing(
    runs: Iterable[Run], data: Path, *, budget_s: float | None = None, epochs: int | None = None, device: str = "auto", seed: int = 0
) -> dict[str, float]:
    """Train what is missing, small sizes first; a run that was killed goes on.

    Args:
        runs: What is wanted.
        data: ``dataset.json``.
        budget_s: Wall seconds for all of ``runs`` together: of what is trained already, the share is taken as spent, so that each gets
            the same whether or not the command was stopped between. By default the epochs that the bundle says.
        epochs: Of each stage; by default what the bundle says.
        device: As ``stseg3d train`` has it.
        seed: Of weights, order and augmentation.

    Returns:
        Seconds that each stage took, by name; of those trained earlier, too.
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
            train_bundle(run.folder, data, stage=stage, budget_s=share, epochs=epochs, device=device, seed=seed)
        finally:  # what a killed training spent counts as well, in its own budget too
            _note(run, stage, time.monotonic() - start)
        left = None if left is None else max(left - _notes(run)[stage], 1.0)
    return {f"{run.nominal_size} {run.kind} {stage}": s for run in runs for stage, s in _notes(run).items()}


def _shapes(bundle: Path, dataset: Dataset) -> list[tuple[int, ...]]:
    parser = read_config(bundle)
    axcodes = parser.config.get("image", {}).get("axcodes", "RAS")
    grids = [open_volume(case.image, channels_last=True).grid for case in dataset.training]
    return [grid.view(*grid.canonical(axcodes or grid.orientation)).shape for grid in grids]


def _ensure_distinct(sizes: Iterable[int], shapes: Sequence[Sequence[int]]) -> None:
    """Two nominal sizes must not give one input: it would be trained twice, and its noise be shown as a gain."""
    seen: dict[tuple[int, ...], int] = {}
    for nominal in sorted(sizes):
        size = input_size(nominal, shapes)
        if size in seen:
            msg = f"sizes {seen[size]} and {nominal} give the same input, {size}, as the images are no larger; leave {nominal} out"
            raise ValueError(msg)
        seen[size] = nominal


def _config_texts(bundle: Path, run: Run, overrides: Mapping[str, Any]) -> dict[str, str]:
    """The bundle's configs with the run's sizes, by file name."""
    sliding = run.kind == SLIDING
    texts = {name: json.dumps(run_config(bundle, name, run.size, overrides, sliding=sliding), indent=1) for name in CONFIGS}
    texts[METADATA.name] = json.dumps(run_metadata(bundle, run.size), indent=1)
    for path in sorted((bundle / "configs").iterdir()):
        if path.suffix in (".json", ".conf"):
            texts.setdefault(path.name, path.read_text(encoding="utf-8"))
    return texts


def _ensure_same(run: Run, texts: Mapping[str, str]) -> None:
    """What was begun in this folder was begun with these configs; training itself may have written the metadata."""
    for name, text in texts.items():
        path = run.folder / "configs" / name
        if run.is_begun and path != run.folder / METADATA and path.is_file() and path.read_text(encoding="utf-8") != text:
            msg = f"{path}: the runs in this folder were trained with other settings; choose another folder, or remove {run.folder}"
            raise ValueError(msg)


def _write_configs(run: Run, texts: Mapping[str, str]) -> None:
    (run.folder / "configs").mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        path = run.folder / "configs" / name
        if run.is_begun and path.is_file():
            continue
        with renamed(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _note(run: Run, stage: str, seconds: float) -> None:
    notes = _notes(run)
    notes[stage] = round(notes.get(stage, 0.0) + seconds, 1)
    with renamed(run.folder / "training_seconds.json") as temporary:
        temporary.write_text(json.dumps(notes) + "\n", encoding="utf-8")


def _notes(run: Run) -> dict[str, float]:
    path = run.folder / "training_seconds.json"
    found: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found
