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

from stseg3d.bundle import METADATA, WEIGHTS, read_config, read_metadata
from stseg3d.training.run import train_bundle
from stseg3d.training.stages import STAGES_DIR
from stseg3d.volumes import Dataset, open_volume
from stseg3d.volumes.write import renamed

logger = logging.getLogger(__name__)

TWO_STAGE, SLIDING = "two_stage", "sliding_window"
CONFIGS = ("train.json", "inference.json")

# Voxels of a batch of rough images: as many as fit beside a laptop's other work.
BATCH_VOXELS = 1 << 20
LARGEST_BATCH = 8

# Epochs of a large input are long: a budget must not end before the first validation.
VALIDATE_EVERY = 5

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
        ValueError: If the folder holds runs of other settings, or an entry to override does not exist.
    """
    shapes = _shapes(bundle, dataset)
    runs = []
    for nominal in sorted({*sizes, *rough_sizes}):
        size = input_size(nominal, shapes)
        stages = ("rough", "fine") if nominal in sizes else ("rough",)
        runs.append(Run(folder / f"{nominal:03d}" / TWO_STAGE, nominal, size, TWO_STAGE, stages))
        if nominal in (sizes if sliding_sizes is None else sliding_sizes):
            runs.append(Run(folder / f"{nominal:03d}" / SLIDING, nominal, size, SLIDING, ("fine",)))
    for run in runs:
        _write_configs(bundle, run, overrides or {})
    return runs


def train_missing(runs: Iterable[Run], data: Path, *, budget_s: float | None, device: str = "auto", seed: int = 0) -> dict[str, float]:
    """Train what is missing, small sizes first; a run that was killed goes on.

    Args:
        runs: What is wanted.
        data: ``dataset.json``.
        budget_s: Wall seconds for all of it together; by default the epochs that the bundle says.
        device: As ``stseg3d train`` has it.
        seed: Of weights, order and augmentation.

    Returns:
        Seconds that each stage took, by name; of those trained earlier, too.
    """
    runs = list(runs)
    todo = sorted(((run, stage) for run in runs for stage in run.missing), key=lambda part: prod(part[0].size))
    left = budget_s
    for n, (run, stage) in enumerate(todo):
        share = None if left is None else left * run.effort / sum(r.effort for r, _ in todo[n:])
        logger.info("%s, %s at %s: training%s", run.kind, stage, run.size, "" if share is None else f" for {share:.0f} s")
        start = time.monotonic()
        train_bundle(run.folder, data, stage=stage, budget_s=share, device=device, seed=seed)
        spent = time.monotonic() - start
        left = None if left is None else max(left - spent, 1.0)
        _note(run, stage, spent)
    return {f"{run.nominal_size} {run.kind} {stage}": s for run in runs for stage, s in _notes(run).items()}


def _shapes(bundle: Path, dataset: Dataset) -> list[tuple[int, ...]]:
    parser = read_config(bundle)
    axcodes = parser.config["inferer"].get("axcodes", "RAS")
    grids = [open_volume(case.image, channels_last=True).grid for case in dataset.training]
    return [grid.view(*grid.canonical(axcodes or grid.orientation)).shape for grid in grids]


def _write_configs(bundle: Path, run: Run, overrides: Mapping[str, Any]) -> None:
    """The bundle's configs with the run's sizes; those of another comparison in the same folder are refused."""
    texts = {name: json.dumps(_changed(bundle, name, run, overrides), indent=1) for name in CONFIGS}
    texts[METADATA.name] = json.dumps(_metadata(bundle, run), indent=1)
    for path in sorted((bundle / "configs").iterdir()):
        if path.suffix in (".json", ".conf"):
            texts.setdefault(path.name, path.read_text(encoding="utf-8"))
    (run.folder / "configs").mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        path = run.folder / "configs" / name
        if path.is_file() and path.read_text(encoding="utf-8") != text and any(run.is_trained(stage) for stage in run.stages):
            msg = f"{path}: the runs in this folder were trained with other settings; choose another folder, or remove {run.folder}"
            raise ValueError(msg)
        with renamed(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _changed(bundle: Path, name: str, run: Run, overrides: Mapping[str, Any]) -> dict[str, Any]:
    parser = read_config(bundle, name)
    config: dict[str, Any] = json.loads((bundle / "configs" / name).read_text(encoding="utf-8"))
    config["rough_network_def"] = _without_rough_channel(config["fine_network_def"])  # one architecture in every role, as in the paper
    for stage in ("rough_stage", "fine_stage"):
        config[stage] = {k: v for k, v in config[stage].items() if k != "spacing_mm"} | {"size": list(run.size)}
        config[stage]["mirror_axes"] = [axis for axis in config[stage].get("mirror_axes", []) if run.size[axis] > 1]
    if name == "train.json":
        batch = min(max(BATCH_VOXELS // prod(run.size), 1), LARGEST_BATCH)
        config["cases_a_batch"] = {**config["cases_a_batch"], "rough": batch}
        config["validate_every"] = {stage: min(epochs, VALIDATE_EVERY) for stage, epochs in config["validate_every"].items()}
        if run.kind == SLIDING:
            config |= _sliding(config)
    for key, value in overrides.items():
        if key in parser:
            _set(config, key.split("#"), value)
        elif not any(key in read_config(bundle, other) for other in CONFIGS):
            msg = f"bundle {bundle} must have the entry {key!r} to override it"
            raise ValueError(msg)
    return config


def _without_rough_channel(network: Any) -> Any:
    """A network's definition as it is without ``rough_channel``: the rough network has none, whatever the fine one is given."""
    if isinstance(network, dict):
        return {key: _without_rough_channel(value) for key, value in network.items()}
    return network.replace("int(@rough_channel)", "0") if isinstance(network, str) else network


def _sliding(config: Mapping[str, Any]) -> dict[str, Any]:
    """Changes of a training config: full-resolution patches, half of them on the object, and a sliding window to validate."""
    crops = next(t for t in config["fine_training"]["transforms"] if isinstance(t, dict) and "RandFineCropsd" in t["_target_"])
    whole = {"_target_": "stseg3d.compare.WholeCased", "stage": "@fine_stage"}
    pad = {"_target_": "SpatialPadd", "keys": ["image", "label"], "spatial_size": "$@fine_stage.size"}
    patches = {
        "_target_": "RandCropByPosNegLabeld",
        "keys": ["image", "label"],
        "label_key": "label",
        "spatial_size": "$@fine_stage.size",
        "num_samples": crops["samples"],
    }
    training = {"_target_": "Compose", "transforms": ["@open_case", whole, pad, patches, "@fine_augmentation"]}
    validation = {"_target_": "Compose", "transforms": ["@open_case", whole]}
    slide = {"_target_": "stseg3d.compare.SlidingWindow", "stage": "@fine_stage", "precision": "@precision"}
    return {"fine_training": training, "fine_validation": validation, "validate": config["validate"] | {"inferer": slide}}


def _metadata(bundle: Path, run: Run) -> dict[str, Any]:
    metadata = read_metadata(bundle)
    for name in ("network_data_format", "rough_data_format"):
        for kind in ("inputs", "outputs"):
            for entry in metadata.get(name, {}).get(kind, {}).values():
                entry["spatial_shape"] = list(run.size)
    return metadata


def _set(config: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    for key in keys[:-1]:
        config = config[key]
    config[keys[-1]] = value


def _note(run: Run, stage: str, seconds: float) -> None:
    notes = _notes(run)
    notes[stage] = round(notes.get(stage, 0.0) + seconds, 1)
    with renamed(run.folder / "training_seconds.json") as temporary:
        temporary.write_text(json.dumps(notes) + "\n", encoding="utf-8")


def _notes(run: Run) -> dict[str, float]:
    path = run.folder / "training_seconds.json"
    found: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found
