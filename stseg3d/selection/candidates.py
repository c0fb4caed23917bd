"""Candidates: plans for one task that are trained on the same folds, as changes of the bundle's own plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from stseg3d.bundle import METADATA, WEIGHTS, read_metadata, select_device, write_plan
from stseg3d.bundle_folders import PLAN
from stseg3d.machine.files import atomic_write_text
from stseg3d.machine.json_files import read_json
from stseg3d.plan import Plan, json_text, set_entries
from stseg3d.planning.design import design
from stseg3d.planning.fingerprint import FILE as FINGERPRINT
from stseg3d.planning.fingerprint import Fingerprint
from stseg3d.planning.layouts import DataFound, as_dataset_json
from stseg3d.planning.new_bundle import DATASET
from stseg3d.planning.task_kind import MODALITIES
from stseg3d.planning.trial import fitted
from stseg3d.selection.splits import FILE as SPLITS
from stseg3d.selection.splits import Fold
from stseg3d.training.stages import STAGES_DIR
from stseg3d.volumes.names import ensure_file_name

FILE = Path("candidates.json")
STAGES_NAMES = ("one_stage", "two_stages")

Candidates = dict[str, dict[str, Any]]


def kept_candidates(bundle: Path, plan: Plan, device: str = "auto") -> Candidates:
    """Entries of the plan that each candidate changes, by its name.

    They stand in ``candidates.json`` of the bundle, which may be edited. If there is none, it is written: with the plan as it is, and if
    that has two stages and the bundle a fingerprint, with a plan of one stage.

    Args:
        bundle: Folder of the bundle.
        plan: Its plan.
        device: Device on which a new plan must fit into memory.

    Raises:
        ValueError: If the file names no candidate, or is not of this form.
    """
    path = bundle / FILE
    if not path.is_file():
        found: Candidates = {STAGES_NAMES[len(plan.stages) - 1]: {}}
        if plan.rough and (bundle / FINGERPRINT).is_file():
            found[STAGES_NAMES[0]] = _one_stage(bundle, plan, device)
        atomic_write_text(path, json_text(found))
    return read_candidates(bundle)


def read_candidates(bundle: Path) -> Candidates:
    """Candidates that are written down in a bundle.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it names no candidate, or is not of this form.
    """
    path = bundle / FILE
    found = read_json(path.read_bytes(), str(path))
    if not isinstance(found, dict) or not found or not all(isinstance(entries, dict) for entries in found.values()):
        msg = f'{path}: candidates must be entries of the plan by name, such as {{"two_stages": {{}}}}, got {found!s:.100}'
        raise ValueError(msg)
    for name in found:
        ensure_file_name(name)
    return found


def candidate_plans(plan: Plan, candidates: Candidates, overrides: Mapping[str, Any]) -> dict[str, Plan]:
    """Plan of each candidate, with further entries, and without rules for components: those are chosen afterwards.

    Raises:
        ValueError: If a candidate contradicts itself; the message names it.
    """
    out = {}
    for name, entries in candidates.items():
        try:
            made = set_entries(plan, {**entries, **overrides}) if entries or overrides else plan
        except ValueError as error:
            msg = f"{FILE}: {name}: {error}"
            raise ValueError(msg) from error
        out[name] = made.replace(output=replace(made.output, largest_only=(), min_volume_mm3={}))
    return out


def fold_folder(bundle: Path, candidate: str, fold: int) -> Path:
    """Folder of the bundle of one fold."""
    return bundle / SPLITS.parent / candidate / f"fold_{fold}"


def is_trained(folder: Path) -> bool:
    """Whether all stages of a fold's bundle are trained."""
    return (folder / WEIGHTS).is_file() and not (folder / STAGES_DIR).is_dir()


def write_fold(bundle: Path, folder: Path, plan: Plan, found: DataFound, fold: Fold) -> None:
    """Write the bundle of a fold, without weights; what was trained stays.

    Args:
        bundle: Folder of the whole bundle.
        folder: Folder of the fold's.
        plan: Its plan.
        found: Labelled data.
        fold: Its cases; those held out become the test list.

    Raises:
        ValueError: If its training has begun with another plan.
    """
    path = folder / PLAN
    begun = (folder / WEIGHTS).is_file() or (folder / STAGES_DIR).is_dir()
    if begun and path.is_file() and Plan.parse(path.read_bytes(), str(path)).as_json(whole=True) != _plain(plan):
        msg = f"{path}: plan and --set must be those that the fold was trained with; set them back, or remove {folder.parent} to train anew"
        raise ValueError(msg)
    for part in ("configs", "data", "models"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    parts = {"training": fold.training, "validation": fold.validation, "test": fold.held_out}
    lists: dict[str, Any] = {part: tuple(e for e in found.training if e.id in ids) for part, ids in parts.items()}
    content = as_dataset_json(replace(found, **lists), (folder / DATASET).parent)
    atomic_write_text(folder / DATASET, json_text(content))
    if (bundle / METADATA).is_file():
        metadata = read_metadata(bundle)
        if not plan.rough:
            metadata.pop("rough_data_format", None)
        atomic_write_text(folder / METADATA, json_text(metadata))
    write_plan(folder, plan)


def _plain(plan: Plan) -> dict[str, Any]:
    """The plan as JSON, as if read from a file."""
    return Plan.parse(json_text(plan.as_json()).encode()).as_json(whole=True)


def _one_stage(bundle: Path, plan: Plan, device: str) -> dict[str, Any]:
    """Entries that make a plan of one stage of a bundle's plan: those parts in which a design of one stage differs."""
    modality = _modality(bundle)
    made = design(Fingerprint.read(bundle / FINGERPRINT), modality=modality, stages=1).plan
    one, _, _ = fitted(made, select_device(device))
    short, whole, before = one.as_json(), one.as_json(whole=True), plan.as_json(whole=True)
    return {key: short.get(key, value) for key, value in whole.items() if value != before[key] and key != "overrides"}


def _modality(bundle: Path) -> str | None:
    """Modality in the metadata of a planned bundle."""
    found: Any = read_metadata(bundle) if (bundle / METADATA).is_file() else {}
    for key in ("network_data_format", "inputs", "image", "modality"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if found in MODALITIES else None
