"""``train.json`` and its overlays, made from a plan."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from stseg3d.plan.components import LOSSES, OPTIMIZERS, REGION_LOSSES
from stseg3d.plan.inference_config import DEVICE, Config, component, compose, inputs, made, mean_dice, networks, policy
from stseg3d.plan.json_values import dump
from stseg3d.plan.plan import Plan

TRAINING_IMPORT = "$from stseg3d.training import "


def train_config(plan: Plan) -> Config:
    """Config that trains the fine network, or the rough one with the overlay ``train_rough.json``."""
    return {
        "imports": [
            "$from importlib.util import find_spec",
            *(TRAINING_IMPORT + name for name in ("assemble", "load_predictions", "training_cases", "with_ids")),
            *(["$from stseg3d.synthesis import anatomy_cases"] if plan.training.synthesis else []),
            "$from stseg3d.volumes import load_dataset",
        ],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/data'",
        "dataset_json": "$@dataset_dir + '/dataset.json'",
        "stages_dir": "$@bundle_root + '/models/stages'",
        "log_dir": "$@bundle_root + '/logs'",
        "device": DEVICE,
        "stage": "fine",
        **_options(plan),
        "fold": None,
        "composite": True,
        "pretrained": "",
        "budget_s": 0,
        "tensorboard": "$find_spec('tensorboard') is not None",
        "val_interval": "$@validate_every[@stage]",
        "run_name": "$@stage if @fold is None else @stage + '_fold' + str(@fold) + 'of' + str(@folds)",
        "data": "$load_dataset(@dataset_json)",
        **networks(plan, active="@stage"),
        **inputs(plan),
        "policy": policy(plan),
        **_samples(plan),
        "loss": _loss(plan),
        "optimizer": component(
            plan.training.optimizer, OPTIMIZERS, params="$@network_def.active_parameters()", lr="$@learning_rate[@stage]"
        ),
        "lr_scheduler": made(
            "torch.optim.lr_scheduler.PolynomialLR", optimizer="@optimizer", total_iters="@train#trainer#max_epochs", power=0.9
        ),
        "average": made("stseg3d.training.WeightAverage", network="@network", decay="@ema_decay"),
        "keep_best": made("stseg3d.training.KeepBest", path="$@stages_dir + '/' + @run_name + '.pt'", network="$@average.network"),
        "budget": made("stseg3d.training.TimeBudget", seconds="@budget_s", lr_scheduler="@lr_scheduler"),
        "train": _train(plan),
        "validate": _validate(plan),
        "initialize": ["$monai.utils.set_determinism(seed=@seed)"],
        "run": [
            "$@train#trainer.run()",
            "$@validate#evaluator.run(@train#trainer.state.epoch)",
            "$assemble(@bundle_root) if @composite else None",
        ],
    }


def train_rough_config(plan: Plan) -> Config:
    """Overlay that trains the rough network in place of the fine one."""
    binary: Config = {"train#postprocessing#transforms#1#to_onehot": 2} if plan.kinds("rough") < len(plan.classes) else {}
    if binary and plan.regions:
        binary["loss"] = component(plan.training.loss, LOSSES)
    return {"stage": "rough", "train#preprocessing": "@rough_training", "validate#preprocessing": "@rough_validation", **binary}


def _loss(plan: Plan) -> Config:
    if plan.regions and plan.training.loss.name in REGION_LOSSES:
        return component(plan.training.loss, REGION_LOSSES, regions=plan.loss_regions)
    return component(plan.training.loss, LOSSES)


def multi_gpu_config() -> Config:
    """Overlay for several processes, started by ``torchrun``, that train together."""
    names = ("distribute", "join_processes", "leave_processes", "own_device", "rank")
    return {
        "+imports": [TRAINING_IMPORT + name for name in names],
        "device": "$own_device()",
        "tensorboard": "$rank() == 0 and find_spec('tensorboard') is not None",
        "network": "$distribute(@network_def, @device)",
        "train#sampler": made("DistributedSampler", dataset="@train#dataset", even_divisible=True, shuffle=True, seed="@seed"),
        "train#dataloader#sampler": "@train#sampler",
        "train#dataloader#shuffle": False,
        "train#dataloader#drop_last": "$len(@train#sampler) >= @cases_a_batch[@stage]",
        "validate#sampler": made(
            "DistributedSampler",
            dataset="@validate#dataset",
            even_divisible="$len(@validate#dataset) < torch.distributed.get_world_size()",
            shuffle=False,
        ),
        "validate#dataloader#sampler": "@validate#sampler",
        "initialize": ["$join_processes(@device)", "$monai.utils.set_determinism(seed=@seed + rank())"],
        "run": [
            "$@train#trainer.run()",
            "$@validate#evaluator.run(@train#trainer.state.epoch)",
            "$assemble(@bundle_root) if @composite and rank() == 0 else None",
        ],
        "finalize": ["$leave_processes()"],
    }


def _options(plan: Plan) -> Config:
    """Numbers of the recipe that other entries refer to."""
    recipe = dump(plan.training, whole=True)
    names = ("seed", "epochs", "learning_rate", "cases_a_batch", "validate_every", "target", "jitter", "negatives", "ema_decay")
    more = ("fine_from_rough", "folds", "predicted_boxes", "corruption", "num_workers", "precision")
    synthesis = recipe["synthesis"] or {}
    drawn = {"bodies": "bodies", "spacing_mm": "anatomy_spacing_mm", "partial": "partial"}
    return {name: recipe[name] for name in (*names, *more)} | {drawn[key]: synthesis[key] for key in drawn if key in synthesis}


def _samples(plan: Plan) -> Config:
    """Transforms from cases to samples."""
    kinds = len(plan.classes)
    classes = {} if kinds == 2 else {"out_channels": kinds}
    opened, drawn = ("@open_anatomy", ["@rand_scan"]) if plan.training.synthesis else ("@open_case", [])
    open_case = made("stseg3d.training.OpenCased", image="@image", **{"foreground": False} if classes else {}, **classes)
    shared = {
        "open_case": open_case,
        **_synthesis(plan),
        **(_rough_samples(plan, classes, opened, *drawn) if plan.rough else {}),
        "fine_augmentation": _augmentation(plan, "fine"),
    }
    if plan.training.crops == "patches":
        return shared | _patches(plan, classes)
    crops = made("stseg3d.training.RandFineCropsd", stage="@fine_stage", policy="@policy", **classes, target="@target")
    random = {
        "samples": plan.training.samples,
        "shift": "@jitter#shift",
        "scale": "@jitter#scale",
        "negatives": "@negatives",
        "predicted": "@predicted_boxes",
        **({"balance": plan.training.balance} if plan.training.balance else {}),
        "corruption": "@corruption",
    }
    boxes = made(
        "stseg3d.training.FineBoxesd",
        rough="@rough_stage" if plan.rough else None,
        fine="@fine_stage",
        policy="@policy",
        predictions="$load_predictions(@stages_dir)",
        **({"balance": True} if plan.training.balance else {}),
    )
    return shared | {
        "fine_boxes": boxes,
        "append_rough": made("stseg3d.training.AppendRoughd"),
        "fine_training": compose(opened, "@fine_boxes", *drawn, crops | random, "@fine_augmentation", "@append_rough"),
        "fine_validation": compose("@open_case", "@fine_boxes", crops | {"samples": None}, "@append_rough"),
    }


def _rough_samples(plan: Plan, classes: Config, *opened: Any) -> Config:
    """Samples of the rough network: each case as a whole."""
    share = plan.training.rough_share
    options = ({} if plan.kinds("rough") == 2 else classes) | ({} if share == 0.5 else {"least_share": share})
    return {
        "rough_sample": made("stseg3d.training.RoughSampled", stage="@rough_stage", **options),
        "rough_augmentation": _augmentation(plan, "rough"),
        "rough_training": compose(*opened, "@rough_sample", "@rough_augmentation"),
        "rough_validation": compose("@open_case", "@rough_sample"),
    }


def _patches(plan: Plan, classes: Config) -> Config:
    """Full-resolution patches, half of them on an object, for a sliding-window network."""
    whole = made("stseg3d.training.WholeCased", stage="@fine_stage", **classes)
    keys = ["image", "label"]
    pad = made("SpatialPadd", keys=keys, spatial_size="$@fine_stage.size")
    patches = made(
        "stseg3d.training.RandPatchesd",
        keys=keys,
        label_key="label",
        spatial_size="$@fine_stage.size",
        num_samples=plan.training.samples,
    )
    return {
        "fine_training": compose("@open_case", whole, pad, patches, "@fine_augmentation"),
        "fine_validation": compose("@open_case", whole),
    }


def _synthesis(plan: Plan) -> Config:
    synthesis = plan.training.synthesis
    if synthesis is None:
        return {}
    return {
        "open_anatomy": made(
            "stseg3d.synthesis.OpenAnatomyd", open_case="@open_case", target=synthesis.target, spacing_mm="$@anatomy_spacing_mm[@stage]"
        ),
        "rand_scan": made("stseg3d.synthesis.RandSyntheticCTd", partial="$@partial[@stage]", least=list(synthesis.least)),
    }


def _augmentation(plan: Plan, stage: str) -> Config:
    options = asdict(getattr(plan.training.augmentation, stage))
    options["mirror_axes"] = list(options["mirror_axes"])
    return made("stseg3d.training.augmentation", size=f"$@{stage}_stage.size", **options)


def _train(plan: Plan) -> Config:
    kinds = len(plan.classes)
    return {
        "cases": "$training_cases(@data, @folds, @fold)"
        + (" + anatomy_cases(@dataset_json, @bodies[@stage])" if plan.training.synthesis else ""),
        "preprocessing": "@fine_training",
        "dataset": made("CacheDataset", data="@train#cases", transform="@train#preprocessing", copy_cache=False, progress=False),
        "dataloader": made(
            "DataLoader",
            dataset="@train#dataset",
            batch_size="$@cases_a_batch[@stage]",
            shuffle=True,
            drop_last="$len(@train#dataset#data) >= @cases_a_batch[@stage]",
            num_workers="@num_workers",
        ),
        "inferer": made("stseg3d.training.PrecisionInferer", precision="@precision"),
        "loss": made("stseg3d.training.HeadsLoss", loss="@loss"),
        "postprocessing": compose(
            made("stseg3d.training.FullResolutiond"), made("AsDiscreted", keys=["pred", "label"], argmax=[True, False], to_onehot=kinds)
        ),
        "key_metric": {"train_mean_dice": mean_dice(include_background=False)},
        "handlers": _train_handlers(),
        "trainer": made(
            "SupervisedTrainer",
            max_epochs="$@epochs[@stage]",
            device="@device",
            train_data_loader="@train#dataloader",
            network="@network",
            loss_function="@train#loss",
            optimizer="@optimizer",
            inferer="@train#inferer",
            postprocessing="@train#postprocessing",
            key_train_metric="@train#key_metric",
            train_handlers="@train#handlers",
            amp=False,
        ),
    }


def _train_handlers() -> list[Any]:
    return [
        made(
            "monai.handlers.CheckpointLoader",
            _disabled_="$not @pretrained",
            load_path="@pretrained",
            load_dict={"model": "@network"},
            map_location="@device",
        ),
        made(
            "stseg3d.training.StartFromRough",
            _disabled_="$not (@fine_from_rough and @stage == 'fine')",
            network="@network_def",
            bundle="@bundle_root",
        ),
        made("stseg3d.training.shared_handler", handler="@average"),
        made("stseg3d.training.ClipGradients", parameters="$@network_def.active_parameters()", max_norm=5.0),
        made("stseg3d.training.shared_handler", handler="@budget"),
        made("LrScheduleHandler", lr_scheduler="@lr_scheduler", print_lr=False),
        made("ValidationHandler", validator="@validate#evaluator", epoch_level=True, interval="@val_interval"),
        made(
            "stseg3d.training.ResumeHandler",
            path="$@stages_dir + '/last_' + @run_name + '.pt'",
            objects={
                "model": "@network",
                "average": "@average",
                "optimizer": "@optimizer",
                "lr_scheduler": "@lr_scheduler",
                "best": "@keep_best",
                "budget": "@budget",
            },
            interval="@val_interval",
        ),
        made("stseg3d.training.History", path="$@log_dir + '/' + @run_name + '.jsonl'", evaluator="@validate#evaluator", budget="@budget"),
        made("stseg3d.training.EpochProgress", name="@run_name", best="@keep_best"),
        _tensorboard(tag_name="train_loss", output_transform="$monai.handlers.from_engine(['loss'], first=True)"),
    ]


def _validate(plan: Plan) -> Config:
    slid = made("stseg3d.training.SlidingWindow", stage="@fine_stage", precision="@precision")
    return {
        "preprocessing": "@fine_validation",
        "dataset": made(
            "CacheDataset", data="$with_ids(@data.validation)", transform="@validate#preprocessing", copy_cache=False, progress=False
        ),
        "dataloader": made("DataLoader", dataset="@validate#dataset", batch_size=1, shuffle=False, num_workers="@num_workers"),
        "inferer": slid if plan.training.crops == "patches" else "@train#inferer",
        "postprocessing": "@train#postprocessing",
        "key_metric": {"val_mean_dice": mean_dice(include_background=False)},
        "handlers": ["@keep_best", _tensorboard(iteration_log=False)],
        "evaluator": made(
            "SupervisedEvaluator",
            device="@device",
            val_data_loader="@validate#dataloader",
            network="$@average.network",
            inferer="@validate#inferer",
            postprocessing="@validate#postprocessing",
            key_val_metric="@validate#key_metric",
            val_handlers="@validate#handlers",
            amp=False,
        ),
    }


def _tensorboard(**more: Any) -> Config:
    path = "$@log_dir + '/' + @run_name"
    return made("TensorBoardStatsHandler", _disabled_="$not @tensorboard", log_dir=path, **more)
