"""`stseg3d train`: the training configs that the plan renders to, rough first, then fine, run by ``monai.bundle``."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from monai.bundle import run as run_bundle

from stseg3d.bundle import (
    METADATA,
    PLAN,
    WEIGHTS,
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
from stseg3d.training.folds import (
    fold_name,
    held_out,
    is_predicted,
    predictions_path,
    remove_predictions,
    save_predictions,
    with_ids,
)
from stseg3d.training.options import ensure_same, remember
from stseg3d.training.processes import by_first, launched, own_device, together
from stseg3d.training.stages import assemble, trained_stage
from stseg3d.training.task import TrainingTask, check_task, find_cause, load_stage
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
    trust: bool = False,
) -> Path:
    """Train a bundle on one's own labels and write its ``models/model.pt``.

    A stage that was killed goes on where it was when the same command is given again, and one that was complete is not trained again.
    Processes that ``torchrun`` started train together, each on a part of every batch.

    Args:
        bundle: Folder with ``configs/plan.json``.
        data: ``dataset.json`` with ``training`` and ``validation`` lists.
        stage: ``"rough"``, ``"fine"`` or ``"all"``.
        epochs: Epochs of each stage; by default what the configs say.
        budget_s: Wall seconds for all stages together; training ends early, its learning rate brought down, to keep to it.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        seed: By default what the plan says.
        weights: Composite ``model.pt`` to start from; folds start without it, for it may have seen their cases.
        folds: Before the fine stage, train the rough network so many times, each time without a part of the cases, and let the fine one
            see what it predicts for them; by default what the plan says.
        overrides: Entries of the plan to set, such as ``{"training#ema_decay": 0.99}``, see :func:`stseg3d.plan.set_entries`. What
            inference must know as well is written into ``plan.json`` when all is trained.
        trust: Train a bundle that is more than data, see :func:`stseg3d.bundle.read_bundle`.

    Returns:
        Path of the composite weights; of the stage's own where the other one is still to be trained.

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
    chosen = dict(overrides or {}) | ({} if folds is None else {"folds": folds})
    options: dict[str, Any] = {  # of this call alone
        "bundle_root": str(bundle),
        "dataset_dir": str(json_path.parent),
        "dataset_json": str(json_path),
        "device": f"$torch.device({str(own)!r})",
        "composite": False,  # made below, when all stages are there: never half of this task and half of another
    }
    if seed is not None:
        options["seed"] = seed
    if weights is not None:
        read_weights(weights)
        options["pretrained"] = str(weights)
    names = STAGES if stage == "all" else (stage,)
    budgets = {} if budget_s is None else {name: budget_s * (SHARE[name] if stage == "all" else 1) for name in names}
    plan = set_entries(open_bundle(bundle, trust=trust).require_plan(), chosen, files=("train.json",))
    task = TrainingTask(bundle, plan, dataset, options, chosen, epochs, budgets, trust)
    check_task(task)
    with together(own):
        for name in names:
            if name == "fine":
                _predict_for_fine(task)
            _train_stage(task, name, again=stage != "all")
        return by_first(lambda: _finish(task, names[-1]))


def _finish(task: TrainingTask, stage: str) -> Path:
    """The composite, and a plan that agrees with it; the stage's own weights where the other one is still to be trained."""
    # Both files or none: weights of another shape than inference.json says could not be loaded.
    for name in STAGES:
        last = task.stages / f"last_{name}.pt"
        if last.is_file():  # by another process, or one that was stopped: what it can go on from must not be swept away
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
    remember_trained(task.bundle, base.set(known) if known else base)
    load_network(task.bundle, trust=task.trust)  # strict: what was written is what inference will load
    shutil.rmtree(task.stages)
    return composite


# --- stages ------------------------------------------------------------------


def _train_stage(task: TrainingTask, name: str, *, again: bool) -> None:
    """Train one stage; one that an earlier call has finished only if asked for ``again``."""
    best, last = task.stages / f"{name}.pt", task.stages / f"last_{name}.pt"
    if by_first(lambda: best.is_file() and not last.is_file()):
        if not again:
            logger.warning("%s: the %s stage is complete and is not trained again; delete the file to begin anew", best, name)
            load_stage(task, name, best)  # it must fit before the next one is trained
            ensure_same(task.plan, _record(task, name))
            return
        by_first(best.unlink)
    changed = dict(task.options)
    if task.epochs is not None:
        changed[f"epochs#{name}"] = task.epochs
    if name in task.budget_s:
        changed["budget_s"] = task.budget_s[name] * (1 - FOLDS_SHARE if name == "fine" and task.folds else 1)
    _run_to_score(task, CONFIGS[name], changed, name)


def _run_to_score(task: TrainingTask, configs: Iterable[str], options: Mapping[str, Any], run_name: str) -> None:
    last = task.stages / f"last_{run_name}.pt"
    by_first(lambda: remember(task.plan, task.chosen, _record(task, run_name), going_on=last.is_file()))
    if launched():  # the processes have met, and do not part between stages
        configs, options = (*configs, SEVERAL), {**options, "finalize": []}
    _run(task, configs, options)
    if not by_first((task.stages / f"{run_name}.pt").is_file):
        msg = f"{task.bundle}: the {run_name} stage must reach a validation score, got none"
        raise ValueError(msg)


def _run(task: TrainingTask, configs: Iterable[str], options: Mapping[str, Any]) -> None:
    logging.getLogger("monai.bundle.scripts").setLevel(logging.WARNING)  # its summary of our own arguments
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # What the plan of this call renders to, whatever becomes of the bundle's files meanwhile.
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
    """File that says what a training was begun with."""
    return task.bundle / "logs" / f"{run_name}.json"


# --- what the fine stage is told by the rough one ----------------------------


def _predict_for_fine(task: TrainingTask) -> None:
    """Predictions of rough networks for cases that they have not learned from, where the recipe uses them."""
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
    """Predictions for the cases of a fold, by weights that are then of no more use."""
    _predict(task, weights, held_out(task.dataset, task.folds, fold), path)
    weights.unlink()


def _predict(task: TrainingTask, weights: Path, cases: Iterable[Case], path: Path) -> None:
    """Foreground probabilities on the rough grid, of each case, into a file."""
    parser = task.parser()
    network = load_stage(task, "rough", weights).to(parser.get_parsed_content("device"))
    stages, open_case = [parser.get_parsed_content(f"{name}_stage") for name in STAGES], parser.get_parsed_content("open_case")
    proposer = NetworkProposer(network, stages[0], parser.get_parsed_content("policy"), stages[1].size)
    save_predictions({case["id"]: proposer.classes(open_case(case)["case"].image) for case in with_ids(cases)}, path)
