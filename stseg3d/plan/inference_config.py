"""``inference.json`` and ``evaluate.json``, made from a plan."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from stseg3d.ops.policy import BoxPolicy
from stseg3d.plan.components import ENSEMBLE, NETWORKS, NORMALIZATIONS, Known, members
from stseg3d.plan.json_values import Component
from stseg3d.plan.plan import Plan, StagePlan

Config = dict[str, Any]

DEVICE = "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')"
# Numbers of the box policy that MONAI Label shows and lets its user change.
DISPLAYED_NUMBERS = ("threshold", "margin_mm", "min_volume_mm3", "max_components")


def inference_config(plan: Plan) -> Config:
    """Config of the whole pipeline, from a folder of images to a folder of label maps."""
    displayed = {name: getattr(plan.policy, name) for name in DISPLAYED_NUMBERS} | {"batch_size": plan.fine_policy.batch_size}
    return {
        "imports": ["$from pathlib import Path", "$from stseg3d.volumes import find_cases"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/data'",
        "output_dir": "$@bundle_root + '/eval'",
        "device": DEVICE,
        "displayable_configs": displayed,
        **networks(plan),
        **inputs(plan),
        "policy": policy(plan) | {name: f"@displayable_configs#{name}" for name in DISPLAYED_NUMBERS},
        "fine_policy": fine_policy(plan) | {"batch_size": "@displayable_configs#batch_size"},
        **inferer(plan),
        "preprocessing": compose(
            made("stseg3d.volumes.monai_io.LoadImageVolumed", keys="image"), made("EnsureChannelFirstd", keys="image")
        ),
        "dataset": made(
            "Dataset",
            data=f"$[case.as_dict() for case in {_found(plan)}] if Path(@dataset_dir).exists() else []",
            transform="@preprocessing",
        ),
        "dataloader": made(
            "DataLoader",
            dataset="@dataset",
            batch_size=1,
            shuffle=False,
            num_workers=0,
            collate_fn=made("stseg3d.volumes.monai_io.collate_alone", _mode_="callable"),
        ),
        "postprocessing": compose(made("stseg3d.volumes.monai_io.SaveImageLabelsd", keys="pred", output_dir="@output_dir")),
        "handlers": [load_weights(), made("StatsHandler", iteration_log=False)],
        "evaluator": made(
            "SupervisedEvaluator",
            device="@device",
            val_data_loader="@dataloader",
            network="@network",
            inferer="@inferer",
            postprocessing="@postprocessing",
            val_handlers="@handlers",
            amp=False,
            epoch_length="$len(@dataloader)",
        ),
        "initialize": ["$monai.utils.set_determinism(seed=0)"],
        "run": [f"${_found(plan)}", "$@evaluator.run()"],
    }


def evaluate_config(plan: Plan) -> Config:
    """Config that scores the whole pipeline on the validation cases; it overlays ``train.json``."""
    kinds = len(plan.classes)
    to_classes = {"threshold": 0.5} if kinds == 2 else {"to_onehot": kinds}
    classes = {} if kinds == 2 else {"foreground": False, "out_channels": kinds}
    return {
        "output_dir": "$@bundle_root + '/eval'",
        "fine_policy": fine_policy(plan),
        **inferer(plan),
        "validate#preprocessing": compose(
            made("stseg3d.volumes.monai_io.LoadImageVolumed", keys="image"), made("stseg3d.training.LoadLabeld", **classes)
        ),
        "validate#dataset": made("Dataset", data="$with_ids(@data.validation)", transform="@validate#preprocessing"),
        "validate#inferer": "@inferer",
        "validate#postprocessing": compose(
            made("stseg3d.training.FullResolutiond"), made("AsDiscreted", keys=["pred", "label"], **to_classes)
        ),
        "validate#key_metric": {"val_mean_dice": mean_dice(include_background=kinds == 2)},
        "validate#handlers": [
            load_weights(),
            made(
                "MetricsSaver",
                save_dir="@output_dir",
                metrics=["val_mean_dice"],
                metric_details=["val_mean_dice"],
                batch_transform="$lambda batch: [item['image'].meta for item in batch]",
                summary_ops="*",
            ),
        ],
        "run": ["$@validate#evaluator.run()"],
    }


def _found(plan: Plan) -> str:
    """Expression of the cases in the folder; of several channels each may be in its own file."""
    files = plan.image.channels_in_files
    return f"find_cases([@dataset_dir], channels={files})" if files > 1 else "find_cases([@dataset_dir])"


# --- parts that several configs have -----------------------------------------


def networks(plan: Plan, **more: str) -> Config:
    """Both networks and their composite."""
    own = {f"{name}_network_def": _network(plan, name) for name in plan.stages}
    composite = made("stseg3d.networks.RoughFineNet", rough="@rough_network_def" if plan.rough else None, fine="@fine_network_def")
    return {**own, "network_def": composite | more, "network": "$@network_def.to(@device)"}


def inputs(plan: Plan) -> Config:
    """How the networks see a scan."""
    steps = [component(step, NORMALIZATIONS) for step in plan.normalization]
    intensity = {"intensity": steps[0] if len(steps) == 1 else compose(*steps)} if steps else {}
    image = made("stseg3d.plan.ImageView", **asdict(plan.image))
    return {"image": image, **intensity, **{f"{name}_stage": _stage(plan, getattr(plan, name)) for name in plan.stages}}


def policy(plan: Plan) -> Config:
    """The whole box policy."""
    return made("stseg3d.ops.BoxPolicy", **{f.name: getattr(plan.policy, f.name) for f in fields(BoxPolicy)})


def fine_policy(plan: Plan) -> Config:
    """What is done with the crops."""
    return made("stseg3d.ops.FinePolicy", **asdict(plan.fine_policy))


def inferer(plan: Plan) -> Config:
    """The inferer and its outputs."""
    parts = ("policy", "fine_policy", "image", "output", "execution")
    output = asdict(plan.output)
    rules = {name: output.pop(name) for name in ("largest_only", "min_volume_mm3")}
    named = {"classes": list(plan.classes)} if plan.output.cleaned else {}
    return {
        "output": made("stseg3d.plan.Output", **output, **{name: rule for name, rule in rules.items() if rule}),
        "execution": made("stseg3d.plan.Execution", **asdict(plan.execution)),
        "inferer": made(
            "stseg3d.inference.SegmentThenSegmentInferer",
            rough="@rough_stage" if plan.rough else None,
            fine="@fine_stage",
            **{part: f"@{part}" for part in parts},
            out_channels=len(plan.classes),
            **named,
        ),
    }


def component(given: Component, known: dict[str, Known], **more: Any) -> Config:
    """A component in the form of a config; a full dotted name stays as it is."""
    entry = known.get(given.name, Known(given.name, frozenset()))
    return made(entry.target, **{**entry.always, **more, **given.arguments})


def made(target: str, /, **arguments: Any) -> Config:
    """Something that is made of its arguments, as a config has it."""
    return {"_target_": target, **arguments}


def compose(*steps: Any) -> Config:
    """Transforms, one after the other."""
    return made("Compose", transforms=list(steps))


def load_weights() -> Config:
    """Handler that loads the weights of both networks."""
    path = "$@bundle_root + '/models/model.pt'"
    return made("CheckpointLoader", load_path=path, load_dict={"model": "@network"}, map_location="@device")


def mean_dice(*, include_background: bool) -> Config:
    """Mean Dice of an engine's output."""
    outputs = "$monai.handlers.from_engine(['pred', 'label'])"
    return made("MeanDice", include_background=include_background, output_transform=outputs)


def _network(plan: Plan, name: str) -> Config:
    stage: StagePlan = getattr(plan, name)
    channels = {"in_channels": plan.image.channels + int(stage.rough_channel), "out_channels": plan.kinds(name)}
    networks = [_single(network, stage, channels) for network in members(stage.network)]
    # Written out for each member: references would all give the same network.
    return made("stseg3d.networks.MeanEnsemble", networks=networks) if stage.network.name == ENSEMBLE else networks[0]


def _single(network: Component, stage: StagePlan, channels: dict[str, int]) -> Config:
    dims = network.arguments.get("spatial_dims", len(stage.size))
    known = {"spatial_dims": dims} if network.name in NETWORKS else {}
    config = component(network, NETWORKS, **known, **channels)
    return made("stseg3d.networks.SqueezeDepth", network=config) if dims < len(stage.size) else config


def _stage(plan: Plan, stage: StagePlan) -> Config:
    by_spacing = {} if stage.spacing_mm is None else {"spacing_mm": stage.spacing_mm, "multiple": stage.multiple}
    return made(
        "stseg3d.inference.Stage",
        size=list(stage.size),
        **by_spacing,
        **{"transform": "@intensity"} if plan.normalization else {},
        mirror_axes=list(stage.mirror_axes),
        rough_channel=stage.rough_channel,
    )
