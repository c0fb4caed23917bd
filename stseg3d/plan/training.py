"""How the networks of a plan are trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

from stseg3d.plan.json_values import Both, Component

TARGETS = ("foreground", "component")
CROPS = ("boxes", "patches")


@dataclass(frozen=True)
class Jitter:
    """How boxes of crops differ from those of the policy."""

    shift: float = 0.1  # largest translation, as a fraction of the box's extent along each axis
    scale: float = 0.1  # largest change of each face, as a fraction of the extent


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a sample; see :func:`stseg3d.training.augmentation.augmentation`."""

    shift: float = 0.1
    scale: float = 0.12
    shear: float = 0.08
    rotation_degrees: float = 10.0
    mirror_axes: Sequence[int] = ()
    strength: float = 1.0
    bias: bool = True
    fixed_axis: int | None = None


@dataclass(frozen=True)
class Synthesis:
    """CT synthesised from the label maps that ``dataset.json`` lists under ``anatomies``."""

    target: str  # name of the class to segment
    bodies: Both[int]  # synthetic cases in each epoch
    spacing_mm: Both[float | None] = Both(None, None)  # spacing of the synthetic images; None keeps that of the label map
    partial: Both[float] = Both(0.0, 0.0)  # probability that a part of the body is cut out
    least: Sequence[float] = (0.4, 0.4, 0.1)  # smallest part that is left, as a fraction of each axis's length


@dataclass(frozen=True)
class Training:
    """Recipe: samples, augmentation, loss and schedule.

    Raises:
        ValueError: If a value is out of range, or two values contradict each other.
    """

    epochs: Both[int]  # epochs of each stage
    learning_rate: Both[float]  # initial learning rate of each stage
    cases_a_batch: Both[int]  # cases whose samples make one batch; 1 for a rough network with `spacing_mm`
    validate_every: Both[int]  # epochs between two validations
    seed: int = 0  # seed of weights, order and augmentation
    # Label of a crop: `"foreground"` is every labelled voxel in it, `"component"` only the component of its box.
    target: str = "foreground"
    # Where the fine network's samples come from: `"boxes"` of the policy, or `"patches"` at full resolution, half of them on an
    # object, for a sliding-window network.
    crops: str = "boxes"
    samples: int = 2  # crops of a case in each epoch
    jitter: Jitter = Jitter()  # random changes of the boxes
    negatives: float = 0.0  # probability that a crop is drawn anywhere, instead of at a box
    ema_decay: float = 0.0  # decay of the weights' moving average, which is then validated and saved; 0 for none
    fine_from_rough: bool = False  # whether the fine network starts from the weights of the rough one
    # Number of rough networks that are each trained without a part of the cases and predict that part for the fine stage; 0 for none.
    folds: int = 0
    predicted_boxes: float = 0.0  # probability that a crop is drawn at a predicted box; needs folds
    balance: float = 0.0  # probability that a crop is drawn at a voxel of a class that is drawn first, rare as often as common
    # Smallest share of a rough voxel that must be labelled for it to count as object: what is smaller than a voxel fills no half of one.
    rough_share: float = 0.5
    corruption: float = 0.25  # probability of each kind of corruption of the rough channel
    precision: str = "auto"  # precision of training: `"auto"`, `"float32"`, `"bfloat16"` or `"float16"`
    num_workers: int = 0  # processes that make samples
    augmentation: Both[Augmentation] = Both(Augmentation(), Augmentation(shift=0.0))  # augmentation of each stage
    loss: Component = field(default_factory=lambda: Component("DiceCELoss", {}))  # loss, by name
    optimizer: Component = field(default_factory=lambda: Component("AdamW", {"weight_decay": 0.01}))  # optimiser, by name
    synthesis: Synthesis | None = None  # synthesis of CT from label maps; none by default

    def __post_init__(self) -> None:
        for name, given, known in (("target", self.target, TARGETS), ("crops", self.crops, CROPS)):
            if given not in known:
                msg = f"{name} must be one of {known}, got {given!r}"
                raise ValueError(msg)
        for stage in ("rough", "fine"):
            for name, least in (("epochs", 1), ("cases_a_batch", 1), ("validate_every", 1), ("learning_rate", 0)):
                _ensure_range(f"{name}#{stage}", getattr(getattr(self, name), stage), least, inf)
        for name in ("negatives", "predicted_boxes", "balance", "rough_share", "corruption"):
            _ensure_range(name, getattr(self, name), 0, 1)
        _ensure_range("samples", self.samples, 1, inf)
        if not 0 <= self.ema_decay < 1:
            msg = f"ema_decay must be at least 0 and below 1, got {self.ema_decay}"
            raise ValueError(msg)
        if self.folds < 0 or self.folds == 1:
            msg = f"folds must be 0, or from 2 to the number of training cases, got {self.folds}"
            raise ValueError(msg)


def _ensure_range(name: str, value: Any, low: float, high: float) -> None:
    if not low <= value <= high:
        msg = f"{name} must be in [{low}, {high}], got {value}"
        raise ValueError(msg)
