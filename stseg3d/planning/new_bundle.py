"""A new bundle for a user's data: found, examined, designed, tried, and written as one folder."""

from __future__ import annotations

import shutil
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stseg3d.bundle import METADATA, select_device, write_plan
from stseg3d.machine.files import atomic_write_text
from stseg3d.machine.tables import Table
from stseg3d.plan import Plan, json_text, set_entries, with_formats
from stseg3d.plan.entries import has_entry
from stseg3d.planning.design import Decision, Design, decided, design
from stseg3d.planning.findings import WIDTH, Finding, findings_table, has_errors
from stseg3d.planning.fingerprint import FILE, Fingerprint
from stseg3d.planning.layouts import DataFound, as_dataset_json, find_data, split
from stseg3d.planning.survey import Progress, survey
from stseg3d.planning.trial import StepCost, fitted
from stseg3d.volumes import load_dataset

DATASET = Path("data", "dataset.json")
DESCRIPTION = Path("docs", "README.md")
SCHEMA = "https://project-monai.github.io/schema/meta_schema_20240725.json"
PACKAGES = {"monai_version": "monai", "pytorch_version": "torch", "numpy_version": "numpy"}
REQUIRED = ("stseg3d", "nibabel", "SimpleITK", "scipy", "pytorch-ignite", "fire")

USE = """```bash
stseg3d train . --budget 30min
stseg3d segment SCANS --bundle . -o OUT
```"""
EDIT = """To change a decision, edit `configs/plan.json`, or plan again with `--set KEY=JSON`. `fingerprint.json` has the
facts on which the decisions rest, and `data/dataset.json` the lists of cases."""


@dataclass(frozen=True)
class Wishes:
    """What a user decides instead of the planner.

    Args:
        modality: ``"CT"``, ``"MR"`` or ``"microscopy"``.
        stages: 1 or 2.
        memory_bytes: Memory that training may take.
        group: Regular expression that names the patient in a case's id or path.
        validation: Share of the cases for validation, where the data have no such list.
        test: Share for a test list.
        seed: Seed of the split.
        device: Device of the training.
        entries: Entries of the plan.
    """

    modality: str | None = None
    stages: int | None = None
    memory_bytes: int | None = None
    group: str | None = None
    validation: float = 0.2
    test: float = 0.0
    seed: int = 0
    device: str = "auto"
    entries: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Planned:
    """Outcome of planning.

    Attributes:
        findings: What is wrong or doubtful; with an error there is no bundle.
        decisions: What was decided, with reasons.
        bundle: Folder of the bundle, None if there is an error.
    """

    findings: tuple[Finding, ...]
    decisions: tuple[Decision, ...] = ()
    bundle: Path | None = None

    def table(self) -> Table:
        """The decisions as a table."""
        rows = [[d.entry, str(d.value), d.reason] for d in self.decisions]
        return Table(["entry", "value", "reason"], rows, words=3, title="Plan")


def plan_bundle(
    out: Path,
    data: Path | None = None,
    *,
    images: Path | None = None,
    labels: Path | None = None,
    channels: Sequence[str] = (),
    wishes: Wishes | None = None,
    progress: Progress | None = None,
) -> Planned:
    """Plan a bundle for labelled data, and write it, whole or not at all.

    Args:
        out: Folder of the bundle, which must not hold anything yet.
        data: Data in any layout that :func:`stseg3d.planning.layouts.find_data` knows.
        images: Folder of images, instead of ``data``.
        labels: Folder of their labels.
        channels: Channels to take, see :func:`stseg3d.planning.layouts.find_data`.
        wishes: What is decided already.
        progress: Wrapper of the cases as they are examined, such as a progress bar; it is told how many they are.

    Returns:
        The findings; without an error among them, the decisions and the folder as well.

    Raises:
        FileExistsError: If ``out`` holds something.
        OSError: If a path does not exist, or ``out`` cannot be written.
        ValueError: If the data are in no known layout, or a wish cannot be fulfilled.
    """
    wishes = wishes or Wishes()
    if out.resolve() == Path.cwd():  # the shell would be left in a folder that is gone
        msg = f"{out}: folder of the new bundle must be another than the current one, name a folder in it"
        raise FileExistsError(msg)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        msg = f"{out}: folder of the new bundle must be empty or not exist, got one with files"
        raise FileExistsError(msg)
    found = find_data(data, images=images, labels=labels, group=wishes.group, channels=channels)
    if has_errors(found.findings):
        return Planned(found.findings)
    found = split(found, validation=wishes.validation, test=wishes.test, seed=wishes.seed)
    with _folder(out) as folder:
        _write_dataset(folder, found)
        seen = survey(load_dataset(folder / DATASET), found.channels, progress=progress)
        findings = (*found.findings, *seen.findings)
        if seen.fingerprint is None or has_errors(findings):
            return Planned(findings)
        made = design(seen.fingerprint, modality=wishes.modality, stages=wishes.stages)
        plan = set_entries(made.plan, wishes.entries) if wishes.entries else made.plan
        plan, costs, memory = fitted(plan, select_device(wishes.device), wishes.memory_bytes)
        decisions = _decisions(made, plan, costs, memory, found, wishes)
        planned = Planned(findings, decisions, out)
        _write(folder, plan, seen.fingerprint, planned, found.name)
        folder.replace(out)
    return planned


@contextmanager
def _folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside ``out``, removed in the end if it is still there."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        folder.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_dataset(folder: Path, found: DataFound) -> None:
    (folder / DATASET).parent.mkdir()
    atomic_write_text(folder / DATASET, json_text(as_dataset_json(found, folder / DATASET.parent)))


def _write(folder: Path, plan: Plan, fingerprint: Fingerprint, planned: Planned, name: str) -> None:
    for part in ("configs", "docs", "models"):
        (folder / part).mkdir()
    fingerprint.write(folder / FILE)
    metadata = with_formats(_metadata(plan, name, next(str(d.value) for d in planned.decisions if d.entry == "modality")), plan)
    atomic_write_text(folder / METADATA, json_text(metadata))
    atomic_write_text(folder / DESCRIPTION, _description(plan, planned, name))
    write_plan(folder, plan)


def _decisions(
    made: Design, plan: Plan, costs: Mapping[str, StepCost], memory: int, found: DataFound, wishes: Wishes
) -> tuple[Decision, ...]:
    """Decisions of the design, those that memory changed, and those about the data."""
    lists = f"{len(found.training)} training, {len(found.validation)} validation" + (f", {len(found.test)} test" if found.test else "")
    out = [Decision("data", lists, found.layout)]
    given = [decided(plan, entry, "given with --set") for entry in wishes.entries if has_entry(plan, entry)]
    told = {decision.entry: decision for decision in (*made.decisions, *given)}
    if plan.fine.size != made.plan.fine.size and "fine#size" not in wishes.entries:
        told["fine#size"] = decided(plan, "fine#size", "made smaller, so that a training step fits into memory")
    out += told.values()
    for stage, cost in costs.items():
        batch = getattr(plan.training.cases_a_batch, stage)
        crops = f", {plan.training.samples} crop{'s' * (plan.training.samples > 1)} each" if stage == "fine" else ""
        value = f"{batch} case{'s' * (batch > 1)}{crops}"
        reason = f"a step takes {cost.seconds:.2g} s here, and {cost.peak_bytes / 2**30:.1f} of {memory / 2**30:.1f} GiB"
        out.append(Decision(f"training batch, {stage}", value, reason))
    return tuple(out)


def _metadata(plan: Plan, name: str, modality: str) -> dict[str, Any]:
    """What MONAI's schema asks of a bundle; the networks' formats are filled in from the plan."""
    classes = {str(n): label for n, label in enumerate(plan.classes)}

    def tensors(kind: str, **entries: Any) -> dict[str, Any]:
        return {"type": "image", "format": kind, "dtype": "float32", "value_range": [], "channel_def": {}, **entries}

    def formats(is_patch: bool) -> dict[str, Any]:
        image = tensors("magnitude", modality=modality, num_channels=0, spatial_shape=[], is_patch_data=is_patch)
        pred = tensors("segmentation", num_channels=0, spatial_shape=[], is_patch_data=is_patch, channel_def=classes)
        return {"inputs": {"image": image}, "outputs": {"pred": pred}}

    return {
        "schema": SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": "planned from labelled data"},
        **{key: version(package) for key, package in PACKAGES.items()},
        "required_packages_version": {package: version(package) for package in REQUIRED},
        "supported_apps": {},
        "name": name,
        "task": f"Segment {', '.join(plan.classes[1:])} in {modality}",
        "description": "Planned by stseg3d from labelled data.",
        "authors": "",
        "copyright": "",
        "intended_use": "Research; not a medical device",
        "network_data_format": formats(True),
        **({"rough_data_format": formats(False)} if plan.rough else {}),
    }


def _description(plan: Plan, planned: Planned, name: str) -> str:
    """``docs/README.md`` of the bundle: how it is used, what was decided, and why."""
    classes = ", ".join(plan.classes[1:])
    stages = (
        "a rough network finds the objects, and a fine one looks at each"
        if plan.rough
        else "one network sees the image, in tiles if it is large"
    )
    about = f"This bundle segments {classes}: {stages}. `stseg3d plan` made it from labelled data."
    parts = [
        f"# {name}",
        "",
        *textwrap.wrap(about, WIDTH),
        "",
        "Train it, and segment scans, from the bundle's folder:",
        "",
        USE,
        "",
        EDIT,
        "",
    ]
    warnings = [finding for finding in planned.findings if finding.level == "warning"]
    tables = [planned.table(), *([findings_table(warnings)] if warnings else [])]
    return "\n".join(parts) + "\n" + "\n".join(table.markdown() for table in tables)
