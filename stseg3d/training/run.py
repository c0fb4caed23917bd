"""`stseg3d train`: the training configs that the plan renders to, rough first, then fine, run by ``monai.bundle``."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from monai.bundle import run as run_bundle

from stseg3d.bundle import (
    METADATA,
    PLAN,
    WEIGHTS,
    ensure_trained_for,
    load_network,
    open_bundle,
    read_metadata,
    read_weights,
    remember_trained,
    select_device,
    write_plan,
)
from stseg3d.inference.propose import NetworkProposer
from stseg3d.plan import STAGES, render, set_entries, task_entries
from stseg3d.training.box_check import check_policy, check_rough
from stseg3d.training.engine import UNLIMITED
from stseg3d.training.folds import fold_name, held_out, is_predicted, predictions_path, remove_predictions, save_predictions, with_ids
from stseg3d.training.options import ensure_same, remember
from stseg3d.training.processes import by_first, from_first, launched, own_device, together
from stseg3d.training.stages import assemble, trained_stage
from stseg3d.training.task import TrainingTask, check_task, find_cause, load_stage
from stseg3d.volumes import Case, load_dataset

logger = logging.getLogger(__name__)

CONFIGS = {"rough": ("train.json", "train_rough.json"), "fine": ("train.json",)}
MULTI_GPU_CONFIG = "multi_gpu_train.json"  # overlays these if torchrun has started several processes

# Share of a time budget for the rough stage, whose network and input are small; the fine stage gets all that is left.
ROUGH_SHARE = 0.25

# All folds together get this share of the fine stage's budget, and each fold this share of the rough stage's epochs: predictions for the
# fine stage need not be the best, only like those of inference.
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
    overrides: Mapping[str, Any] | None = None,
    trust: bool = False,
) -> Path:
    """Train a bundle on one's own labels and write its ``models/model.pt``.

    The same command resumes a stage that was killed, and does not repeat one that is complete.
    Processes that ``torchrun`` started train together, each on a part of every batch.

    Args:
        bundle: Folder with ``configs/plan.json``.
        data: ``dataset.json`` with ``training`` and ``validation`` lists.
        stage: ``"rough"``, ``"fine"`` or ``"all"``.
        epochs: Epochs of each stage; by default what the configs say.
        budget_s: Wall seconds for all stages together; to keep to it, training may end early, with its learning rate brought down.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        seed: Seed; by default that of the plan.
        weights: Composite ``model.pt`` to start from; folds start without it, as it may have seen their cases.
        overrides: Entries of the plan to set, such as ``{"training#ema_decay": 0.99}``, see :func:`stseg3d.plan.set_entries`. Entries
            that inference must know as well are written into ``plan.json`` when all stages are trained.
        trust: Train a bundle that is more than data, see :func:`stseg3d.bundle.read_bundle`.

    Returns:
        Path of the composite weights, or of the stage's own if the other one is still to be trained.

    Raises:
        OSError: If a file is missing.
        UntrustedError: If the bundle is more than data, and ``trust`` is off.
        ValueError: If the data set or an option breaks a rule, or a stage reaches no validation score.
    """
    if stage not in (*STAGES, "all"):
        msg = f"stage must be one of {(*STAGES, 'all')}, got {stage!r}"
        raise ValueError(msg)
    dataset = load_dataset(data)
    if not dataset.validation:
        msg = f'{data}: file must list cases under "validation" too: the best weights are chosen on them'
        raise ValueError(msg)
    own = own_device(select_device(device))
    json_path = data / "dataset.json" if data.is_dir() else data
    chosen = dict(overrides or {})
    options: dict[str, Any] = {
        "bundle_root": str(bundle),
        "dataset_dir": str(json_path.parent),
        "dataset_json": str(json_path),
        "device": f"$torch.device({str(own)!r})",
        "composite": False,  # made below, when all stages are trained, so that it never mixes two tasks
    }
    if seed is not None:
        options["seed"] = seed
    if weights is not None:
        read_weights(weights)
        options["pretrained"] = str(weights)
    plan = set_entries(open_bundle(bundle, trust=trust).require_plan(), chosen, files=("train.json",))
    names = plan.stages if stage == "all" else (stage,)
    if stage not in (*plan.stages, "all"):
        msg = f"stage must be one that the plan has, {plan.stages}, got {stage!r}"
        raise ValueError(msg)
    shares = {"rough": ROUGH_SHARE, "fine": 1 - ROUGH_SHARE} if len(names) > 1 else dict.fromkeys(names, 1.0)
    budgets = {} if budget_s is None else {name: budget_s * shares[name] for name in names}
    task = TrainingTask(bundle, plan, dataset, options, chosen, epochs, budgets, trust)
    check_task(task)
    by_first(lambda: check_policy(task))
    for name in (name for name in plan.stages if name not in names):
        _check_other(task, name)
    with together(own):
        for name in names:
            start = time.monotonic()
            if name == "fine":
                _predict_for_fine(task)
            trained = _train_stage(task, name, again=stage != "all")
            if name == "rough" and trained:
                by_first(partial(check_rough, task))
                task = _with_rest(task, from_first(time.monotonic() - start))  # processes with other budgets would wait for each other
        return by_first(lambda: _finish(task, names[-1]))


def _check_other(task: TrainingTask, name: str) -> None:
    """Refuse to train a stage beside one that was trained to see images in another way."""
    if (task.stages / f"{name}.pt").is_file():
        ensure_same(task.plan, name, _record(task, name))
    else:
        ensure_trained_for(task.bundle, task.plan, name)


def _finish(task: TrainingTask, stage: str) -> Path:
    """Write the composite and a plan that agrees with it; its path, or that of the stage if the other one is still to be trained."""
    # Both files or none: weights that do not match inference.json could not be loaded.
    for name in task.plan.stages:
        last = task.stages / f"last_{name}.pt"
        if last.is_file():  # another process is at it, or can resume from it
            logger.warning("%s: the %s stage is not finished; finish it, or delete the file, before %s is made", last, name, WEIGHTS)
            return task.stages / f"{stage}.pt"
        if trained_stage(task.bundle, name) is None:
            logger.warning("%s: the %s stage is still to be trained, before %s can be made", task.bundle, name, WEIGHTS)
            return task.stages / f"{stage}.pt"
    base = open_bundle(task.bundle, trust=task.trust).require_plan()
    known = {key: value for key, value in task_entries(base, task.chosen).items() if base.get(key) != value}
    if known:
        write_plan(task.bundle, base.set(known))
        told = ", ".join(f"{key}={json.dumps(value)}" for key, value in known.items())
        logger.warning("%s: as trained, %s", task.bundle / PLAN, told)
    composite = assemble(task.bundle)
    assert composite is not None
    remember_trained(task.bundle, task.plan)
    load_network(task.bundle, trust=task.trust)  # strict, as inference will load it
    shutil.rmtree(task.stages)
    return composite


# --- stages ------------------------------------------------------------------


def _with_rest(task: TrainingTask, spent_s: float) -> TrainingTask:
    """The task with what the rough stage has left of the budget, or has taken beyond its share, counted to the fine stage."""
    if "fine" not in task.budget_s:
        return task
    fine = max(task.budget_s["fine"] + task.budget_s["rough"] - spent_s, 1.0)
    return replace(task, budget_s={**task.budget_s, "fine": fine})


def _train_stage(task: TrainingTask, name: str, *, again: bool) -> bool:
    """Train one stage, if an earlier call has finished it only with ``again``; whether it was trained."""
    best, last = task.stages / f"{name}.pt", task.stages / f"last_{name}.pt"
    if by_first(lambda: best.is_file() and not last.is_file()):
        if not again:
            logger.warning("%s: the %s stage is complete and is not trained again; delete the file to begin anew", best, name)
            load_stage(task, name, best)  # it must fit before the next one is trained
            ensure_same(task.plan, name, _record(task, name))
            return False
        by_first(best.unlink)
    changed = dict(task.options)
    if task.epochs is not None or name in task.budget_s:
        changed[f"epochs#{name}"] = task.epochs or UNLIMITED
    if name in task.budget_s:
        changed["budget_s"] = task.budget_s[name] * (1 - FOLDS_SHARE if name == "fine" and task.folds else 1)
    _run_to_score(task, CONFIGS[name], changed, name)
    return True


def _run_to_score(task: TrainingTask, configs: Iterable[str], options: Mapping[str, Any], run_name: str) -> None:
    last = task.stages / f"last_{run_name}.pt"
    by_first(lambda: remember(task.plan, run_name.split("_", maxsplit=1)[0], task.chosen, _record(task, run_name), going_on=last.is_file()))
    if launched():  # the processes have met, and do not part between stages
        configs, options = (*configs, MULTI_GPU_CONFIG), {**options, "finalize": []}
    _run(task, configs, options)
    if not by_first((task.stages / f"{run_name}.pt").is_file):
        msg = f"{task.bundle}: the {run_name} stage must reach a validation score, got none"
        raise ValueError(msg)


def _run(task: TrainingTask, configs: Iterable[str], options: Mapping[str, Any]) -> None:
    for module in ("scripts", "workflows"):  # a summary of our own arguments, and where the logging is configured
        logging.getLogger(f"monai.bundle.{module}").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # The configs of this call's plan, even if the bundle's files change meanwhile.
        rendered = Path(folder, "configs")
        rendered.mkdir()
        metadata = json.dumps(read_metadata(task.bundle)) if (task.bundle / METADATA).is_file() else "{}"
        for name, text in {**render(task.plan), METADATA.name: metadata}.items():
            (rendered / name).write_text(text, encoding="utf-8")
        files = [str(rendered / name) for name in configs]
        # MONAI says each time that a config may execute code; the README says it once.
        warnings.filterwarnings("ignore", message="parsing config_file", category=UserWarning)
        try:
            run_bundle(config_file=files, workflow_type="train", **options)
        except RuntimeError as error:
            raise find_cause(error) from error


def _record(task: TrainingTask, run_name: str) -> Path:
    """File with the options of a training."""
    return task.bundle / "logs" / f"{run_name}.json"


# --- predictions of the rough stage for the fine one -------------------------


def _predict_for_fine(task: TrainingTask) -> None:
    """Write predictions of rough networks for cases that they were not trained on, if the recipe uses them."""
    paths = [predictions_path(task.stages, fold_name(fold, task.folds)) for fold in range(task.folds)]
    by_first(lambda: remove_predictions(task.stages, but=paths))
    for fold, path in enumerate(paths):
        if not by_first(partial(is_predicted, held_out(task.dataset, task.folds, fold), path)):
            by_first(partial(_predict_fold, task, fold, _train_fold(task, fold), path))
    if task.plan.fine.rough_channel:
        rough = trained_stage(task.bundle, "rough")
        if rough is None:
            msg = f"rough_channel needs a trained rough stage, {task.bundle} has none: train it with --stage rough"
            raise FileNotFoundError(msg)
        by_first(lambda: _predict(task, rough, task.dataset.validation, predictions_path(task.stages, "validation")))


def _train_fold(task: TrainingTask, fold: int) -> Path:
    """Weights of a rough network that has not seen the cases of a fold."""
    run_name = f"rough_{fold_name(fold, task.folds)}"
    best = task.stages / f"{run_name}.pt"
    if by_first(lambda: best.is_file() and not (task.stages / f"last_{run_name}.pt").is_file()):
        return best
    epochs = task.epochs or task.plan.training.epochs.rough
    # Weights to start from may have seen the cases that are held out here.
    changed = task.options | {"fold": fold, "epochs#rough": max(round(FOLD_EPOCHS * epochs), 1), "pretrained": ""}
    if "fine" in task.budget_s:
        changed["budget_s"] = task.budget_s["fine"] * FOLDS_SHARE / task.folds
    _run_to_score(task, CONFIGS["rough"], changed, run_name)
    return best


def _predict_fold(task: TrainingTask, fold: int, weights: Path, path: Path) -> None:
    """Write predictions for the cases of a fold, and remove its weights."""
    _predict(task, weights, held_out(task.dataset, task.folds, fold), path)
    weights.unlink()


def _predict(task: TrainingTask, weights: Path, cases: Iterable[Case], path: Path) -> None:
    """Write foreground probabilities of each case on the rough grid."""
    parser = task.parser()
    network = load_stage(task, "rough", weights).to(parser.get_parsed_content("device"))
    stages, open_case = [parser.get_parsed_content(f"{name}_stage") for name in STAGES], parser.get_parsed_content("open_case")
    proposer = NetworkProposer(network, stages[0], parser.get_parsed_content("policy"), stages[1].size)
    save_predictions({case["id"]: proposer.classes(open_case(case)["case"].image) for case in with_ids(cases)}, path)
