"""`stseg3d train`: the bundle's own training configs, rough first, then fine. No more than a caller of ``monai.bundle``."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle import run as run_bundle
from torch import nn

from stseg3d.bundle import WEIGHTS, load_network, read_config, read_weights, select_device
from stseg3d.inference.propose import NetworkProposer
from stseg3d.networks import check_same_size
from stseg3d.networks.composite import STAGES
from stseg3d.training.folds import check_folds, check_ids, fold_name, held_out, predictions_path, save_predictions, with_ids
from stseg3d.training.options import check_agreement, network_channels, remember_options, shared_options, write_channels, write_shared
from stseg3d.training.stages import STAGES_DIR, assemble, trained_stage
from stseg3d.volumes import Case, Dataset, load_dataset

logger = logging.getLogger(__name__)

CONFIGS = {"rough": ("train.json", "train_rough.json"), "fine": ("train.json",)}

# Share of a time budget: the rough network is small and so is its input.
SHARE = {"rough": 0.25, "fine": 0.75}

# Of what the fine stage may take, the part for all folds of the rough network together; and of the rough stage's epochs, those of each
# fold: its predictions need not be the best, only of the kind that inference will bring.
FOLDS_SHARE, FOLD_EPOCHS = 0.25, 0.5


@dataclass(frozen=True)
class _Plan:
    """What one call trains: the bundle as its configs and the caller's options make it."""

    bundle: Path
    dataset: Dataset
    parser: ConfigParser
    options: dict[str, Any]
    chosen: dict[str, Any]
    epochs: int | None = None
    budget_s: dict[str, float] = field(default_factory=dict)

    @property
    def folds(self) -> int:
        folds: int = self.option("folds")
        return folds

    def option(self, name: str) -> Any:
        """An option of the recipe; off in configs that do not know it."""
        return self.parser.get_parsed_content(name) if name in self.parser else 0

    @property
    def stages(self) -> Path:
        return self.bundle / STAGES_DIR


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
    folds: int | None = None,
    overrides: Mapping[str, Any] | None = None,
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
        folds: Before the fine stage, train the rough network so many times, each time without a part of the cases, and let the fine one
            see what it predicts for them; by default what the configs say.
        overrides: Entries of ``train.json`` to set, by id, such as ``{"ema_decay": 0.99}``. What makes the networks and their inputs is
            written into the bundle's configs when all is trained, so that inference agrees with it.

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
    chosen = dict(overrides or {}) | ({} if folds is None else {"folds": folds})
    options: dict[str, Any] = {
        "bundle_root": str(bundle),
        "dataset_dir": str(json_path.parent),
        "dataset_json": str(json_path),
        "device": f"$torch.device({str(select_device(device))!r})",
        "composite": False,  # made below, when all stages are there: never half of this task and half of another
        **chosen,
    }
    if seed is not None:
        options["seed"] = seed
    if weights is not None:
        read_weights(weights)
        options["pretrained"] = str(weights)
    names = STAGES if stage == "all" else (stage,)
    budgets = {} if budget_s is None else {name: budget_s * (SHARE[name] if stage == "all" else 1) for name in names}
    shared = shared_options(bundle, chosen)
    plan = _Plan(bundle, dataset, _checked_config(bundle, options, shared), options, chosen, epochs, budgets)
    _check_recipe(plan)
    for name in names:
        if name == "fine":
            _predict_for_fine(plan)
        _train_stage(plan, name, again=stage != "all")
    return _finish(plan, names[-1], shared)


def _finish(plan: _Plan, stage: str, shared: Mapping[str, Any]) -> Path:
    """The composite, and configs that agree with it; the stage's own weights where the other one is still to be trained."""
    # Both files or none: weights of another shape than inference.json says could not be loaded.
    missing = [name for name in STAGES if trained_stage(plan.bundle, name) is None]
    if missing:
        logger.warning("%s: the %s stage is still to be trained, before %s can be made", plan.bundle, missing[0], WEIGHTS)
        return plan.stages / f"{stage}.pt"
    write_shared(plan.bundle, shared)
    write_channels(plan.bundle, plan.parser.get_parsed_content("fine_stage"), plan.parser.get_parsed_content("open_case").in_channels)
    composite = assemble(plan.bundle)
    assert composite is not None
    load_network(plan.bundle)  # strict: what was written is what inference will load
    shutil.rmtree(plan.stages)
    return composite


# --- stages ------------------------------------------------------------------


def _train_stage(plan: _Plan, name: str, *, again: bool) -> None:
    """Train one stage; one that an earlier call has finished only if asked for ``again``."""
    best, last = plan.stages / f"{name}.pt", plan.stages / f"last_{name}.pt"
    if best.is_file() and not last.is_file():
        if not again:
            logger.warning("%s: the %s stage is complete and is not trained again; delete the file to begin anew", best, name)
            _load_stage(plan, name, best)  # it must fit before the next one is trained
            return
        best.unlink()
    changed = dict(plan.options)
    if plan.epochs is not None:
        changed[f"epochs#{name}"] = plan.epochs
    if name in plan.budget_s:
        changed["budget_s"] = plan.budget_s[name] * (1 - FOLDS_SHARE if name == "fine" and plan.folds else 1)
    _run_to_score(plan, CONFIGS[name], changed, name)


def _run_to_score(plan: _Plan, configs: Iterable[str], options: Mapping[str, Any], run_name: str) -> None:
    last = plan.stages / f"last_{run_name}.pt"
    remember_options(plan.chosen, plan.bundle / "logs" / f"{run_name}.json", going_on=last.is_file())
    _run(plan.bundle, configs, options)
    if not (plan.stages / f"{run_name}.pt").is_file():
        msg = f"{plan.bundle}: the {run_name} stage must reach a validation score, got none"
        raise ValueError(msg)


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


# --- what the fine stage is told by the rough one ----------------------------


def _predict_for_fine(plan: _Plan) -> None:
    """Predictions of rough networks for cases that they have not learned from, where the recipe uses them."""
    for fold in range(plan.folds):
        path = predictions_path(plan.stages, fold_name(fold, plan.folds))
        if not path.is_file():
            weights = _train_fold(plan, fold)
            _predict(plan, weights, held_out(plan.dataset, plan.folds, fold), path)
            weights.unlink()
    if plan.option("rough_channel"):
        rough = trained_stage(plan.bundle, "rough")
        if rough is None:
            msg = f"rough_channel needs a trained rough stage, {plan.bundle} has none: train it with --stage rough"
            raise FileNotFoundError(msg)
        _predict(plan, rough, plan.dataset.validation, predictions_path(plan.stages, "validation"))


def _train_fold(plan: _Plan, fold: int) -> Path:
    """Weights of a rough network that has not seen the cases of a fold."""
    run_name = f"rough_{fold_name(fold, plan.folds)}"
    best = plan.stages / f"{run_name}.pt"
    if best.is_file() and not (plan.stages / f"last_{run_name}.pt").is_file():
        return best
    epochs = plan.epochs or plan.parser.get_parsed_content("epochs")["rough"]
    changed = plan.options | {"fold": fold, "epochs#rough": max(round(FOLD_EPOCHS * epochs), 1)}
    if "fine" in plan.budget_s:
        changed["budget_s"] = plan.budget_s["fine"] * FOLDS_SHARE / plan.folds
    _run_to_score(plan, CONFIGS["rough"], changed, run_name)
    return best


def _predict(plan: _Plan, weights: Path, cases: Iterable[Case], path: Path) -> None:
    """Foreground probabilities on the rough grid, of each case, into a file."""
    parser = plan.parser
    network = _load_stage(plan, "rough", weights).to(parser.get_parsed_content("device"))
    stages, open_case = [parser.get_parsed_content(f"{name}_stage") for name in STAGES], parser.get_parsed_content("open_case")
    proposer = NetworkProposer(network, stages[0], parser.get_parsed_content("policy"), stages[1].size)
    save_predictions({case["id"]: proposer.classes(open_case(case)["case"].image) for case in with_ids(cases)}, path)


def _load_stage(plan: _Plan, name: str, path: Path) -> nn.Module:
    """The network of a stage with its weights from a file of a composite's."""
    network: nn.Module = getattr(plan.parser.get_parsed_content("network_def"), name)
    own = {key.removeprefix(f"{name}."): tensor for key, tensor in read_weights(path).items() if key.startswith(f"{name}.")}
    try:
        network.load_state_dict(own)
    except RuntimeError as error:
        msg = f"{path}: weights must fit {name}_network_def; train the {name} stage anew, or delete the file"
        raise ValueError(msg) from error
    return network


# --- checks, before hours are spent ------------------------------------------


def _checked_config(bundle: Path, options: Mapping[str, Any], shared: Mapping[str, Any]) -> ConfigParser:
    """The training config with its options: each network returns the size it is given, and inference will load what is trained."""
    parser = read_config(bundle, "train.json", overrides=options)
    network = parser.get_parsed_content("network_def")
    channels: int = parser.get_parsed_content("open_case").in_channels
    for name in STAGES:
        stage = parser.get_parsed_content(f"{name}_stage")
        check_same_size(getattr(network, name), stage.size, network_channels(stage, channels), f"{bundle}: {name} network")
    check_agreement(bundle, parser, shared)
    return parser


def _check_recipe(plan: _Plan) -> None:
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
