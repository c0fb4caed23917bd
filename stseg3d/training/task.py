"""Task of one training call, checked before hours are spent on it: each entry is made once, and each network run once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from torch import nn

from stseg3d.bundle import OpenBundle, config_parser
from stseg3d.networks import check_same_size
from stseg3d.plan import Plan, render
from stseg3d.plan.components import ENSEMBLE
from stseg3d.training.folds import check_folds, check_ids
from stseg3d.training.stages import STAGES_DIR, stage_weights
from stseg3d.volumes import Dataset

# Entries of train.json that refuse options out of range when they are made.
CHECKED_ENTRIES = {"rough_training", "fine_training", "average"}


@dataclass(frozen=True)
class TrainingTask:
    """Task of one training call."""

    bundle: Path  # folder of the bundle
    plan: Plan  # the bundle's plan, with the caller's entries
    dataset: Dataset  # cases for training and validation
    options: dict[str, Any]  # entries of the configs that are set for this call alone, such as paths
    chosen: dict[str, Any]  # entries that the caller set in the plan
    epochs: int | None = None  # epochs of each stage; by default what the plan says
    budget_s: dict[str, float] = field(default_factory=dict)  # wall seconds of each stage; empty without a limit
    trust: bool = False  # whether the bundle may be more than data

    @property
    def folds(self) -> int:
        """Number of rough networks that are trained for the fine stage, 0 for none."""
        return self.plan.training.folds

    @property
    def stages(self) -> Path:
        """Folder of the stages' files."""
        return self.bundle / STAGES_DIR

    def parser(self) -> ConfigParser:
        """Parser of ``train.json``, rendered from the plan, with the call's options."""
        return config_parser(OpenBundle(self.bundle, self.plan, render(self.plan)), ["train.json"], overrides=self.options)


def check_task(task: TrainingTask) -> None:
    """Refuse a task that could not be trained to its end.

    Raises:
        ValueError: If a network returns another size than that of its input, an entry refuses its options, or the folds are impossible.
    """
    for name in task.plan.stages:
        if getattr(task.plan, name).network.name == ENSEMBLE:
            msg = f"{task.bundle}: {name} network must be a single one to be trained, got an ensemble: train its members"
            raise ValueError(msg)
    parser = task.parser()
    check_networks(task.plan, parser, f"{task.bundle}: ", task.plan.stages)
    try:
        for entry in CHECKED_ENTRIES & set(parser.get()):
            parser.get_parsed_content(entry)
    except RuntimeError as error:
        raise find_cause(error) from error
    if task.folds:
        check_folds(task.dataset, task.folds)
    elif task.plan.fine.rough_channel:
        check_ids([*task.dataset.training, *task.dataset.validation])


def check_networks(plan: Plan, parser: ConfigParser, where: str, stages: tuple[str, ...]) -> None:
    """Run each network once on an input of its size.

    Raises:
        ValueError: If a network fails, or returns another size.
    """
    network = parser.get_parsed_content("network_def")
    for name in stages:
        stage = getattr(plan, name)
        channels = plan.image.channels + int(stage.rough_channel)
        check_same_size(getattr(network, name), stage.size, channels, f"{where}{name} network")


def load_stage(task: TrainingTask, name: str, path: Path) -> nn.Module:
    """The network of a stage, with weights from a composite state dict.

    Raises:
        ValueError: If the weights do not fit the network.
    """
    network: nn.Module = getattr(task.parser().get_parsed_content("network_def"), name)
    try:
        network.load_state_dict(stage_weights(path, name))
    except RuntimeError as error:
        msg = f"{path}: weights must fit {name}_network_def; train the {name} stage anew, or delete the file"
        raise ValueError(msg) from error
    return network


def find_cause(error: BaseException) -> BaseException:
    """The error that MONAI's parser and transforms have wrapped: a sentence about the user's data, if there is one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (ValueError, OSError)):
            return cause
        cause = cause.__cause__
    return error
