"""What a training is to do, checked before hours are spent on it: each entry made once, each network run once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from torch import nn

from stseg3d.bundle import read_config, read_weights
from stseg3d.networks import check_same_size
from stseg3d.networks.composite import STAGES
from stseg3d.training.folds import check_folds, check_ids
from stseg3d.training.options import check_agreement, network_channels
from stseg3d.training.stages import STAGES_DIR
from stseg3d.volumes import Dataset

# Entries of train.json that refuse options out of range when they are made.
MADE_BEFORE = {"rough_training", "fine_training", "average"}


@dataclass(frozen=True)
class Plan:
    """What one call trains: the bundle as its configs and the caller's options make it.

    Attributes:
        bundle: Its folder.
        dataset: Cases to learn from and to validate on.
        parser: ``train.json`` with the options, see :func:`checked_config`.
        options: All entries that are set from outside, paths among them.
        chosen: Those of them that the caller set.
        epochs: Epochs of each stage; by default what the configs say.
        budget_s: Wall seconds by stage; empty without a limit.
    """

    bundle: Path
    dataset: Dataset
    parser: ConfigParser
    options: dict[str, Any]
    chosen: dict[str, Any]
    epochs: int | None = None
    budget_s: dict[str, float] = field(default_factory=dict)

    @property
    def folds(self) -> int:
        """How many rough networks are trained for the fine stage, 0 for none."""
        folds: int = self.option("folds")
        return folds

    def option(self, name: str) -> Any:
        """An option of the recipe; off in configs that do not know it."""
        return self.parser.get_parsed_content(name) if name in self.parser else 0

    @property
    def stages(self) -> Path:
        """Folder of what is left between stages."""
        return self.bundle / STAGES_DIR


def checked_config(bundle: Path, options: Mapping[str, Any], shared: Mapping[str, Any]) -> ConfigParser:
    """Parser of ``train.json`` with its options.

    Raises:
        ValueError: If an entry does not exist or refuses its options, a network returns another size than it is given, or inference would
            not load what is trained.
    """
    parser = read_config(bundle, "train.json", overrides=options)
    network = parser.get_parsed_content("network_def")
    channels: int = parser.get_parsed_content("open_case").in_channels
    for name in STAGES:
        stage = parser.get_parsed_content(f"{name}_stage")
        check_same_size(getattr(network, name), stage.size, network_channels(stage, channels), f"{bundle}: {name} network")
    check_agreement(bundle, parser, shared)
    try:
        for entry in MADE_BEFORE & set(parser.get()):
            parser.get_parsed_content(entry)
    except RuntimeError as error:
        raise find_cause(error) from error
    return parser


def check_recipe(plan: Plan) -> None:
    """Refuse folds that cannot be made or serve nothing, and options that need what is not there.

    Raises:
        ValueError: See above, or if predictions could not be kept apart by the cases' ids.
    """
    wanted = {name: plan.option(name) for name in ("predicted_boxes", "rough_channel")}
    if plan.folds:
        check_folds(plan.dataset, plan.folds)
        if not any(wanted.values()):
            msg = f"folds={plan.folds} must serve predicted_boxes or rough_channel, both are off"
            raise ValueError(msg)
    elif wanted["predicted_boxes"]:
        msg = f"predicted_boxes={wanted['predicted_boxes']} must have folds, at least 2, to predict each case without having seen it; got 0"
        raise ValueError(msg)
    elif wanted["rough_channel"]:
        check_ids([*plan.dataset.training, *plan.dataset.validation])


def load_stage(plan: Plan, name: str, path: Path) -> nn.Module:
    """The network of a stage with its weights from a file of a composite's.

    Raises:
        ValueError: If they are of another network.
    """
    network: nn.Module = getattr(plan.parser.get_parsed_content("network_def"), name)
    own = {key.removeprefix(f"{name}."): tensor for key, tensor in read_weights(path).items() if key.startswith(f"{name}.")}
    try:
        network.load_state_dict(own)
    except RuntimeError as error:
        msg = f"{path}: weights must fit {name}_network_def; train the {name} stage anew, or delete the file"
        raise ValueError(msg) from error
    return network


def find_cause(error: BaseException) -> BaseException:
    """What MONAI's parser and transforms wrapped: a sentence about the user's data, if there is one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (ValueError, OSError)):
            return cause
        cause = cause.__cause__
    return error
