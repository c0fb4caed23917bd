"""Design: from the fingerprint of a data set to a plan, with a reason for each decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from stseg3d.ops.policy import BoxPolicy, FinePolicy
from stseg3d.plan import Plan, StagePlan
from stseg3d.plan.json_values import Both, Component
from stseg3d.plan.training import Augmentation, Jitter, Training
from stseg3d.plan.values import ImageView, Output
from stseg3d.planning.architecture import network_for
from stseg3d.planning.fingerprint import Fingerprint
from stseg3d.planning.sizes import Sizes, sizes_for
from stseg3d.planning.task_kind import TaskKind, is_instance_map, kind_of, merged

WIDTHS = {"rough": 12, "fine": 24}  # channels of a first level, for two CPU cores
STEPS = {"rough": 4000, "fine": 3000}  # of training, where no budget is given
VALIDATIONS = 20  # of a stage
FEW_CASES = 8  # fewer are drawn several times in an epoch, so that it is worth one
SMALL_SHARE = 0.05  # of a crop's voxels: an object that fills no more says little about the crop's contrast
FEW_CELLS = 8  # rough voxels of a small object
SMALL_THRESHOLD = 0.3  # of the rough probability, and share of a rough voxel that counts, where objects are that small
STEP_VOXELS = 600_000  # of all crops of a step, as in the recipes of the shipped bundles
MAX_CROPS = 16
FEW_OBJECTS = 8  # more are a number by chance, such as that of lesions
CONSTANT_COUNT = 1.25  # ratio of the largest and the median number of objects up to which the number is a rule
SLICE_ANISOTROPY = 3.0  # thick slices, between which nothing is turned (nnU-Net's threshold)


@dataclass(frozen=True)
class Decision:
    """One decision of the planner.

    Attributes:
        entry: Entry of the plan.
        value: What stands there.
        reason: Reason, in a few words.
    """

    entry: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Design:
    """A plan and how it came about."""

    plan: Plan
    decisions: tuple[Decision, ...]


def design(fingerprint: Fingerprint, *, modality: str | None = None, stages: int | None = None) -> Design:
    """Plan for a data set, by rules alone.

    Args:
        fingerprint: Facts of its training cases, of which there is one at least with an object.
        modality: ``"CT"``, ``"MR"`` or ``"microscopy"``, if it is known.
        stages: 1 or 2, if it is known.

    Raises:
        ValueError: If no case has an object, or ``modality`` is unknown.
    """
    if not any(case.classes for case in fingerprint.cases):
        msg = f"labels must hold an object in one training case at least, got none in {len(fingerprint.cases)}"
        raise ValueError(msg)
    kind = kind_of(fingerprint, modality=modality)
    if is_instance_map(fingerprint):
        fingerprint = merged(fingerprint)
    sizes = sizes_for(fingerprint, kind, stages=stages)
    image, image_reason = _image(fingerprint, kind, sizes)
    normalization, normalization_reason = _normalization(fingerprint, kind, image)
    policy, policy_reasons = _policy(fingerprint, kind, sizes)
    mirror = [axis for axis in kind.mirror_axes if sizes.fine[axis] > 1]
    plan = Plan(
        classes=kind.classes,
        regions=kind.regions,
        image=image,
        normalization=normalization,
        rough=_rough_stage(sizes, mirror),
        fine=StagePlan(size=sizes.fine, mirror_axes=tuple(mirror), network=network_for(sizes.fine, sizes.fine_spacing_mm, WIDTHS["fine"])),
        policy=policy,
        fine_policy=_fine_policy(kind, sizes),
        output=_output(fingerprint, kind),
        training=_training(fingerprint, kind, sizes),
    )
    told = {"image#standardize": image_reason, "normalization": normalization_reason, **policy_reasons}
    return Design(plan, tuple(_decisions(plan, kind, sizes, told)))


def _rough_stage(sizes: Sizes, mirror: Sequence[int]) -> StagePlan | None:
    """The rough stage; None for one stage."""
    if sizes.rough is None:
        return None
    by_spacing: dict[str, Any] = {"spacing_mm": sizes.rough_spacing_mm, "multiple": 16} if sizes.rough_spacing_mm else {}
    unit, spacing = ([16] * 3, [1.0] * 3) if by_spacing else (sizes.rough, sizes.cell_mm)
    network = network_for(unit, spacing, WIDTHS["rough"])
    return StagePlan(size=sizes.rough, mirror_axes=tuple(a for a in mirror if sizes.rough[a] > 1), network=network, **by_spacing)


def _image(fingerprint: Fingerprint, kind: TaskKind, sizes: Sizes) -> tuple[ImageView, str]:
    if fingerprint.pictures:
        return ImageView(3, colour=True, standardize=True), "pictures differ in brightness, and empty crops must stay dark"
    channels = len(fingerprint.intensity)
    if kind.modality == "CT":
        return ImageView(channels), "Hounsfield units are absolute" if channels == 1 else "channels have units of their own"
    crop_mm3 = prod(n * mm for n, mm in zip(sizes.fine, sizes.fine_spacing_mm, strict=True))
    small = float(np.median(fingerprint.volumes_mm3(together=not kind.instances))) < SMALL_SHARE * crop_mm3
    if small or sizes.rough is None:
        why = "objects are small in their crops" if small else "one stage"
        return ImageView(channels, standardize=True), f"{why}: the whole image sets the contrast"
    return ImageView(channels), "objects fill their crops, whose contrast counts"


def _normalization(fingerprint: Fingerprint, kind: TaskKind, image: ImageView) -> tuple[tuple[Component, ...], str]:
    if image.standardize:
        return (), "the whole image has mean 0 and deviation 1 already"
    found = fingerprint.foreground[0]
    if kind.modality == "CT" and len(fingerprint.foreground) == 1 and found.low < found.high:
        ends = {"b_min": round((found.low - found.mean) / found.sd, 4), "b_max": round((found.high - found.mean) / found.sd, 4)}
        window = {"a_min": found.low, "a_max": found.high, **ends, "clip": True}
        return (Component("ScaleIntensityRange", window),), "99 % of the objects' values, by their mean and deviation (nnU-Net)"
    return (Component("NormalizeIntensity", {"channel_wise": True}),), "mean 0 and deviation 1 of each input"


def _policy(fingerprint: Fingerprint, kind: TaskKind, sizes: Sizes) -> tuple[BoxPolicy, dict[str, str]]:
    limits: dict[str, Any] = {"max_downscale": sizes.max_downscale, "min_downscale": sizes.min_downscale}
    reasons = {f"policy#{name}": sizes.reasons[name] for name in limits if name in sizes.reasons}
    if sizes.rough is None:
        return BoxPolicy(**limits, tile_overlap=0.5), reasons
    volumes = fingerprint.volumes_mm3(together=not kind.instances)
    cell_mm3, small = prod(sizes.cell_mm), _are_small(fingerprint, kind, sizes)
    least = _rounded_down(0.25 * float(np.percentile(volumes, 1)))
    least = least if least >= cell_mm3 else 0.0
    counts = fingerprint.counts(together=not kind.instances)
    usual = max(int(np.percentile(counts, 95)), 1)  # a fault in one label is no rule
    most = usual if usual <= min(max(CONSTANT_COUNT * np.median(counts), 1), FEW_OBJECTS) else None
    reasons |= {
        "policy#threshold": "many objects hold few rough voxels: a low one misses fewer" if small else "objects hold many rough voxels",
        "policy#min_volume_mm3": "a quarter of the smallest objects" if least else "objects may be as small as a rough voxel",
        "policy#max_components": f"95 % of the cases have at most {usual}"
        if most
        else f"the number is no rule: median {np.median(counts):g}, 95 % have at most {usual}",
        "policy#merge": "objects are told apart" if kind.number_from else "overlapping boxes become one, which is seen once",
    }
    policy = BoxPolicy(
        threshold=SMALL_THRESHOLD if small else 0.5,
        connectivity=6 if kind.number_from else 26,
        min_volume_mm3=least,
        max_components=most,
        margin_fraction=0.1,
        margin_rough_voxels=1.0 if small else 0.5,
        merge=not kind.number_from,
        **limits,
    )
    return policy, reasons


def _are_small(fingerprint: Fingerprint, kind: TaskKind, sizes: Sizes) -> bool:
    """Whether a quarter of the objects holds only a few rough voxels each."""
    volumes = fingerprint.volumes_mm3(together=not kind.instances)
    return sizes.rough is not None and float(np.percentile(volumes, 25)) < FEW_CELLS * prod(sizes.cell_mm)


def _fine_policy(kind: TaskKind, sizes: Sizes) -> FinePolicy:
    if sizes.rough is None:
        return FinePolicy(border_growth=0.0)
    if kind.number_from:
        return FinePolicy(fusion="max", only_proposed=True)
    return FinePolicy(batch_size=16 if sizes.fine[-1] == 1 else 4, border_growth=0.0 if sizes.fine[-1] == 1 else 0.25)


def _output(fingerprint: Fingerprint, kind: TaskKind) -> Output:
    if not kind.instances:
        return Output()
    if kind.number_from:
        return Output(kind="instances", number_from=kind.number_from)
    touching = fingerprint.counts().sum() > 1.02 * fingerprint.counts(together=True).sum()
    return Output(kind="instances", neck_depth_mm=0.75 * _unit_mm(fingerprint) if touching else None)


def _unit_mm(fingerprint: Fingerprint) -> float:
    """Length of a voxel; pictures count in pixels."""
    return 1.0 if fingerprint.pictures else float(np.median([min(case.spacing_mm) for case in fingerprint.cases]))


def _training(fingerprint: Fingerprint, kind: TaskKind, sizes: Sizes) -> Training:
    cases, small = len(fingerprint.cases), _are_small(fingerprint, kind, sizes)
    rough_batch = 1 if sizes.rough_spacing_mm or cases < FEW_CASES else 4
    crops = int(np.clip(round(STEP_VOXELS / prod(sizes.fine)), 4, MAX_CROPS))
    fine_batch = min(4 if sizes.whole or crops == MAX_CROPS else 2, cases)
    samples = 1 if sizes.whole else -(-crops // fine_batch)
    epochs = {"rough": _epochs(STEPS["rough"], cases, rough_batch), "fine": _epochs(STEPS["fine"], cases, fine_batch)}
    degrees = 20.0 if kind.modality == "microscopy" else 10.0
    shared: dict[str, Any] = {"rotation_degrees": degrees, "mirror_axes": kind.mirror_axes}
    shared |= {"strength": 0.5, "bias": False} if kind.modality == "CT" else {"bias": kind.modality == "MR"}
    thick = _thick_axis(fingerprint)
    return Training(
        epochs=Both(**epochs),
        learning_rate=Both(0.002, 0.002),
        cases_a_batch=Both(rough_batch, fine_batch),
        validate_every=Both(**{name: max(n // VALIDATIONS, 1) for name, n in epochs.items()}),
        samples=samples,
        jitter=Jitter(0.0, 0.0) if sizes.whole else Jitter(0.1, 0.1),
        balance=0.5 if len(kind.classes) > 2 or small or (sizes.rough is None and not sizes.whole) else 0.0,
        rough_share=SMALL_THRESHOLD if small else 0.5,
        negatives=0.0 if kind.number_from or sizes.rough is None else 0.1,
        augmentation=Both(
            Augmentation(shift=0.1, fixed_axis=thick, **shared), Augmentation(shift=0.1 if sizes.whole else 0.0, fixed_axis=thick, **shared)
        ),
    )


def _thick_axis(fingerprint: Fingerprint) -> int | None:
    spacing = np.median([case.spacing_mm for case in fingerprint.cases], axis=0)
    if fingerprint.ndim == 2 or spacing.max() <= SLICE_ANISOTROPY * spacing.min():
        return None
    return int(spacing.argmax())


def _epochs(steps: int, cases: int, batch: int) -> int:
    return max(round(steps / max(cases / batch, 1)), 1)


def _rounded_down(value: float) -> float:
    return float(f"{value:.1g}") if value < 10 else float(f"{value * 0.95:.2g}")


def _decisions(plan: Plan, kind: TaskKind, sizes: Sizes, told: Mapping[str, str]) -> list[Decision]:
    reasons = kind.reasons | sizes.reasons
    found = [
        Decision("modality", kind.modality, reasons["modality"]),
        Decision("classes", ", ".join(plan.classes[1:]), reasons["classes"]),
        *_region_decisions(plan),
        Decision("stages", len(plan.stages), reasons["stages"]),
        Decision("image#channels", plan.image.channels, "red, green and blue" if plan.image.colour else "as the images have"),
    ]
    if plan.rough:
        found.append(decided(plan, "rough#size", reasons["rough"]))
        found += [decided(plan, "rough#spacing_mm", reasons["rough_spacing_mm"])] if plan.rough.spacing_mm else []
    told = {
        "fine#size": reasons["fine"],
        "fine#network": "strides follow size and spacing along each axis",
        "fine#mirror_axes": reasons["mirror_axes"],
        "output#kind": "objects are told apart" if kind.instances else "each voxel has one class",
        **told,
        "training#epochs" if plan.rough else "training#epochs#fine": "as many steps for any number of cases; --budget replaces them",
    }
    return found + [decided(plan, entry, reason) for entry, reason in told.items()]


def decided(plan: Plan, entry: str, reason: str) -> Decision:
    """What a plan has decided for one of its entries, as a table shows it."""
    return Decision(entry, _readable(plan.get(entry)), reason)


def _readable(value: Any) -> Any:
    """JSON as people write it: names of components, sizes such as 32 x 32 x 32, and lists without brackets."""
    if isinstance(value, Mapping):
        return value.get("name") or ", ".join(f"{key} {_readable(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        is_size = len(value) > 2 and all(isinstance(n, int) for n in value)
        return (" x " if is_size else ", ").join(str(_readable(item)) for item in value) or "none"
    return {None: "none", True: "yes", False: "no"}[value] if value is None or isinstance(value, bool) else value


def _region_decisions(plan: Plan) -> list[Decision]:
    """The regions in one line; empty without."""
    listed = ", ".join(f"{name} = {' + '.join(map(str, values))}" for name, values in plan.regions.items())
    return [Decision("regions", listed, "classes that overlap: the loss is taken of each union of values")] if listed else []
