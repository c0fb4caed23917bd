"""Checks before hours of training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stseg3d.bundle import OpenBundle, config_parser, open_bundle
from stseg3d.compare.runs import SLIDING, Run
from stseg3d.plan import Plan, render, set_entries
from stseg3d.training.folds import with_ids
from stseg3d.training.samples import OpenCased
from stseg3d.training.task import check_networks
from stseg3d.volumes import Case, Dataset, open_volume


def check_cases(bundle: Path, plan: Plan, cases: Iterable[Case], overrides: Mapping[str, Any]) -> None:
    """Open each image, and read each label as training and scoring do, with a plan whose entries are overridden.

    Raises:
        ValueError: If a file cannot be read, or a label lies on another grid than its image; the message names the case.
    """
    changed = set_entries(plan, overrides)
    parser = config_parser(OpenBundle(bundle, changed, render(changed)), ["train.json"])
    open_case: OpenCased = parser.get_parsed_content("open_case")
    for case in tqdm(with_ids({case.image: case for case in cases}.values()), desc="checking", unit="case", disable=None):
        try:
            open_case(case)
        except (ValueError, OSError) as error:
            msg = f"{case['id']}: {error}"
            raise ValueError(msg) from error


def check_runs(runs: Iterable[Run], dataset: Dataset, data: Path) -> None:
    """Check that networks to be trained accept their input, that inference can load them, and that there are validation cases.

    Raises:
        ValueError: If one of these fails.
    """
    untrained = [run for run in runs if run.missing]
    if untrained and not dataset.validation:
        msg = f'{data}: file must list cases under "validation" too: the best weights are chosen on them'
        raise ValueError(msg)
    for run in untrained:
        _check_networks(run)


def _check_networks(run: Run) -> None:
    opened = open_bundle(run.folder, trust=run.trust)
    stages = run.stages if run.kind != SLIDING else ("fine",)
    check_networks(opened.require_plan(), config_parser(opened, ["train.json"]), f"size {run.nominal_size}: ", stages)


def are_pictures(cases: Sequence[Case]) -> bool:
    """Whether all images are flat and have 1 mm along each axis, as pictures without a scale."""
    grids = [open_volume(case.image, channels_last=True).grid for case in cases]
    return all(1 in grid.shape and set(grid.spacing_mm) == {1.0} for grid in grids)
