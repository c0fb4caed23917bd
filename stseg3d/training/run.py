"""`stseg3d train`: the bundle's own training configs, rough first, then fine. No more than a caller of ``monai.bundle``."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from monai.bundle import run as run_bundle

from stseg3d.bundle import WEIGHTS, load_network, read_config, read_metadata, read_weights, select_device
from stseg3d.networks import check_same_size
from stseg3d.networks.composite import STAGES
from stseg3d.training.stages import STAGES_DIR, assemble
from stseg3d.volumes import load_dataset

logger = logging.getLogger(__name__)

CONFIGS = {"rough": ("train.json", "train_rough.json"), "fine": ("train.json",)}

# Share of a time budget: the rough network is small and so is its input.
SHARE = {"rough": 0.25, "fine": 0.75}


def train_bundle(
    bundle: Path,
    data: Path,
    *,
    stage: str = "all",
    epochs: int | None = None,
    budget_s: float | None = None,
    device: str = "auto",
    seed: int | None = None,
    weights: Path | None = None,
) -> Path:
    """Train a bundle on one's own labels and write its ``models/model.pt``.

    A stage that was killed goes on where it was when the same command is given again, and one that was complete is not trained again.

    Args:
        bundle: Folder with ``configs/train.json`` and ``train_rough.json``.
        data: ``dataset.json`` with ``training`` and ``validation`` lists.
        stage: ``"rough"``, ``"fine"`` or ``"all"``.
        epochs: Epochs of each stage; by default what the configs say.
        budget_s: Wall seconds for all stages together; training ends early, its learning rate brought down, to keep to it.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        seed: By default what the configs say.
        weights: Composite ``model.pt`` to start from.

    Returns:
        Path of the composite weights; of the stage's own where the other one is still to be trained.

    Raises:
        OSError: If a file is missing.
        ValueError: If the data set or an option breaks a rule, or a stage reaches no validation score.
    """
    if stage not in (*STAGES, "all"):
        msg = f"stage must be one of {(*STAGES, 'all')}, got {stage!r}"
        raise ValueError(msg)
    dataset = load_dataset(data)
    if not dataset.validation:
        msg = f'{data}: file must list cases under "validation" too: the best weights are chosen on them'
        raise ValueError(msg)
    json_path = data / "dataset.json" if data.is_dir() else data
    options: dict[str, Any] = {
        "bundle_root": str(bundle),
        "dataset_dir": str(json_path.parent),
        "dataset_json": str(json_path),
        "device": f"$torch.device({str(select_device(device))!r})",
        "composite": False,  # made below, when all stages are there: never half of this task and half of another
    }
    if seed is not None:
        options["seed"] = seed
    if weights is not None:
        read_weights(weights)
        options["pretrained"] = str(weights)
    _check_networks(bundle)
    for name in STAGES if stage == "all" else (stage,):
        changed = dict(options)
        if epochs is not None:
            changed[f"epochs#{name}"] = epochs
        if budget_s is not None:
            changed["budget_s"] = budget_s * (SHARE[name] if stage == "all" else 1)
        _train_stage(bundle, name, changed, again=stage != "all")
    composite = assemble(bundle)
    if composite is None:
        logger.warning("%s: the other stage is still to be trained, before %s can be made", bundle, WEIGHTS)
        return bundle / STAGES_DIR / f"{stage}.pt"
    load_network(bundle)  # strict: what was written is what inference will load
    shutil.rmtree(bundle / STAGES_DIR)
    return composite


def _train_stage(bundle: Path, name: str, options: Mapping[str, Any], *, again: bool) -> None:
    """Train one stage; one that an earlier call has finished only if asked for ``again``."""
    best, last = bundle / STAGES_DIR / f"{name}.pt", bundle / STAGES_DIR / f"last_{name}.pt"
    if best.is_file() and not last.is_file():
        if not again:
            logger.warning("%s: the %s stage is complete and is not trained again; delete the file to begin anew", best, name)
            return
        best.unlink()
    _run(bundle, CONFIGS[name], options)
    if not best.is_file():
        msg = f"{bundle}: the {name} stage must reach a validation score, got none"
        raise ValueError(msg)


def _check_networks(bundle: Path) -> None:
    """Each network returns the size it is given, before hours are spent on it."""
    parser = read_config(bundle, "train.json")
    network = parser.get_parsed_content("network_def")
    channels = read_metadata(bundle).get("network_data_format", {}).get("inputs", {}).get("image", {}).get("num_channels", 1)
    for name in STAGES:
        size = parser.get_parsed_content(f"{name}_stage").size
        check_same_size(getattr(network, name), size, int(channels), f"{bundle}: {name} network")


def _run(bundle: Path, configs: Iterable[str], options: Mapping[str, Any]) -> None:
    files = [str(bundle / "configs" / name) for name in configs]
    logging.getLogger("monai.bundle.scripts").setLevel(logging.WARNING)  # its summary of our own arguments
    with warnings.catch_warnings():
        # MONAI says each time that a config may execute code; the README says it once.
        warnings.filterwarnings("ignore", message="parsing config_file", category=UserWarning)
        try:
            run_bundle(config_file=files, workflow_type="train", logging_file=str(bundle / "configs" / "logging.conf"), **options)
        except RuntimeError as error:
            raise _cause(error) from error


def _cause(error: BaseException) -> BaseException:
    """What MONAI's parser and transforms wrapped: a sentence about the user's data, if there is one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (ValueError, OSError)):
            return cause
        cause = cause.__cause__
    return error
