"""`stseg3d train`: the bundle's own training configs, rough first, then fine. No more than a caller of ``monai.bundle``."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from monai.bundle import run as run_bundle

from stseg3d.bundle import WEIGHTS, load_network, read_weights, select_device
from stseg3d.inference.propose import NetworkProposer
from stseg3d.networks.composite import STAGES
from stseg3d.training.folds import (
    fold_name,
    held_out,
    is_predicted,
    predictions_path,
    remove_predictions,
    save_predictions,
    with_ids,
)
from stseg3d.training.options import remember_options, shared_options, write_channels, write_shared
from stseg3d.training.plan import Plan, check_recipe, checked_config, find_cause, load_stage
from stseg3d.training.processes import by_first, launched, own_device, together
from stseg3d.training.stages import assemble, trained_stage
from stseg3d.volumes import Case, load_dataset

logger = logging.getLogger(__name__)

CONFIGS = {"rough": ("train.json", "train_rough.json"), "fine": ("train.json",)}
SEVERAL = "multi_gpu_train.json"  # over these, where torchrun has started several processes

# Share of a time budget: the rough network is small and so is its input.
SHARE = {"rough": 0.25, "fine": 0.75}

# Of what the fine stage may take, the part for all folds of the rough network together; and of the rough stage's epochs, those of each
# fold: its predictions need not be the best, only of the kind that inference will bring.
FOLDS_SHARE, FOLD_EPOCHS = 0.25, 0.5


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
    Processes that ``torchrun`` started train together, each on a part of every batch.

    Args:
        bundle: Folder with ``configs/train.json`` and ``train_rough.json``.
        data: ``dataset.json`` with ``training`` and ``validation`` lists.
        stage: ``"rough"``, ``"fine"`` or ``"all"``.
        epochs: Epochs of each stage; by default what the configs say.
        budget_s: Wall seconds for all stages together; training ends early, its learning rate brought down, to keep to it.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        seed: By default what the configs say.
        weights: Composite ``model.pt`` to start from; folds start without it, for it may have seen their cases.
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
    if launched() and not (bundle / "configs" / SEVERAL).is_file():
        msg = f"{bundle}: bundle must have configs/{SEVERAL} to be trained by torchrun"
        raise FileNotFoundError(msg)
    own = own_device(select_device(device))
    json_path = data / "dataset.json" if data.is_dir() else data
    chosen = dict(overrides or {}) | ({} if folds is None else {"folds": folds})
    options: dict[str, Any] = {
        "bundle_root": str(bundle),
        "dataset_dir": str(json_path.parent),
        "dataset_json": str(json_path),
        "device": f"$torch.device({str(own)!r})",
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
    plan = Plan(bundle, dataset, checked_config(bundle, options, shared), options, chosen, epochs, budgets)
    check_recipe(plan)
    with together(own):
        for name in names:
            if name == "fine":
                _predict_for_fine(plan)
            _train_stage(plan, name, again=stage != "all")
        return by_first(lambda: _finish(plan, names[-1], shared))


def _finish(plan: Plan, stage: str, shared: Mapping[str, Any]) -> Path:
    """The composite, and configs that agree with it; the stage's own weights where the other one is still to be trained."""
    # Both files or none: weights of another shape than inference.json says could not be loaded.
    for name in STAGES:
        last = plan.stages / f"last_{name}.pt"
        if last.is_file():  # by another process, or one that was stopped: what it can go on from must not be swept away
            logger.warning("%s: the %s stage is not finished; finish it, or delete the file, before %s is made", last, name, WEIGHTS)
            return plan.stages / f"{stage}.pt"
        if trained_stage(plan.bundle, name) is None:
            logger.warning("%s: the %s stage is still to be trained, before %s can be made", plan.bundle, name, WEIGHTS)
            return plan.stages / f"{stage}.pt"
    write_shared(plan.bundle, shared)
    write_channels(plan.bundle, plan.parser.get_parsed_content("fine_stage"), plan.parser.get_parsed_content("open_case").in_channels)
    composite = assemble(plan.bundle)
    assert composite is not None
    load_network(plan.bundle, trust=True)  # it was trained; strict: what was written is what inference will load
    shutil.rmtree(plan.stages)
    return composite


# --- stages ------------------------------------------------------------------


def _train_stage(plan: Plan, name: str, *, again: bool) -> None:
    """Train one stage; one that an earlier call has finished only if asked for ``again``."""
    best, last = plan.stages / f"{name}.pt", plan.stages / f"last_{name}.pt"
    if by_first(lambda: best.is_file() and not last.is_file()):
        if not again:
            logger.warning("%s: the %s stage is complete and is not trained again; delete the file to begin anew", best, name)
            load_stage(plan, name, best)  # it must fit before the next one is trained
            return
        by_first(best.unlink)
    changed = dict(plan.options)
    if plan.epochs is not None:
        changed[f"epochs#{name}"] = plan.epochs
    if name in plan.budget_s:
        changed["budget_s"] = plan.budget_s[name] * (1 - FOLDS_SHARE if name == "fine" and plan.folds else 1)
    _run_to_score(plan, CONFIGS[name], changed, name)


def _run_to_score(plan: Plan, configs: Iterable[str], options: Mapping[str, Any], run_name: str) -> None:
    last = plan.stages / f"last_{run_name}.pt"
    by_first(lambda: remember_options(plan.chosen, plan.bundle / "logs" / f"{run_name}.json", going_on=last.is_file()))
    if launched():  # the processes have met, and do not part between stages
        configs, options = (*configs, SEVERAL), {**options, "finalize": []}
    _run(plan.bundle, configs, options)
    if not by_first((plan.stages / f"{run_name}.pt").is_file):
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
            raise find_cause(error) from error


# --- what the fine stage is told by the rough one ----------------------------


def _predict_for_fine(plan: Plan) -> None:
    """Predictions of rough networks for cases that they have not learned from, where the recipe uses them."""
    paths = [predictions_path(plan.stages, fold_name(fold, plan.folds)) for fold in range(plan.folds)]
    by_first(lambda: remove_predictions(plan.stages, but=paths))
    for fold, path in enumerate(paths):
        if not by_first(partial(is_predicted, held_out(plan.dataset, plan.folds, fold), path)):
            by_first(partial(_predict_fold, plan, fold, _train_fold(plan, fold), path))
    if plan.option("rough_channel"):
        rough = trained_stage(plan.bundle, "rough")
        if rough is None:
            msg = f"rough_channel needs a trained rough stage, {plan.bundle} has none: train it with --stage rough"
            raise FileNotFoundError(msg)
        by_first(lambda: _predict(plan, rough, plan.dataset.validation, predictions_path(plan.stages, "validation")))


def _train_fold(plan: Plan, fold: int) -> Path:
    """Weights of a rough network that has not seen the cases of a fold."""
    run_name = f"rough_{fold_name(fold, plan.folds)}"
    best = plan.stages / f"{run_name}.pt"
    if by_first(lambda: best.is_file() and not (plan.stages / f"last_{run_name}.pt").is_file()):
        return best
    epochs = plan.epochs or plan.parser.get_parsed_content("epochs")["rough"]
    # Weights to start from may have seen the cases that are held out here.
    changed = plan.options | {"fold": fold, "epochs#rough": max(round(FOLD_EPOCHS * epochs), 1), "pretrained": ""}
    if "fine" in plan.budget_s:
        changed["budget_s"] = plan.budget_s["fine"] * FOLDS_SHARE / plan.folds
    _run_to_score(plan, CONFIGS["rough"], changed, run_name)
    return best


def _predict_fold(plan: Plan, fold: int, weights: Path, path: Path) -> None:
    """Predictions for the cases of a fold, by weights that are then of no more use."""
    _predict(plan, weights, held_out(plan.dataset, plan.folds, fold), path)
    weights.unlink()


def _predict(plan: Plan, weights: Path, cases: Iterable[Case], path: Path) -> None:
    """Foreground probabilities on the rough grid, of each case, into a file."""
    parser = plan.parser
    network = load_stage(plan, "rough", weights).to(parser.get_parsed_content("device"))
    stages, open_case = [parser.get_parsed_content(f"{name}_stage") for name in STAGES], parser.get_parsed_content("open_case")
    proposer = NetworkProposer(network, stages[0], parser.get_parsed_content("policy"), stages[1].size)
    save_predictions({case["id"]: proposer.classes(open_case(case)["case"].image) for case in with_ids(cases)}, path)
