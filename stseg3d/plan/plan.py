"""`Plan`: a task as one value. It is read from ``plan.json``, and the MONAI configs are rendered from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

from stseg3d.machine.json_files import read_json
from stseg3d.ops.cleaning import FOREGROUND
from stseg3d.ops.policy import BoxPolicy, FinePolicy
from stseg3d.plan.components import (
    ENSEMBLE,
    LOSSES,
    NETWORKS,
    NORMALIZATIONS,
    OPTIMIZERS,
    REGION_LOSSES,
    check_component,
    code_in,
    members,
)
from stseg3d.plan.ids import find_entry, plan_id
from stseg3d.plan.json_values import Component, build, dump
from stseg3d.plan.training import Training
from stseg3d.plan.values import Execution, ImageView, NetworkInput, Output

STAGES = ("rough", "fine")


@dataclass(frozen=True, kw_only=True)
class StagePlan(NetworkInput):
    """One of the two networks and its input."""

    network: Component  # the network, without `in_channels` and `out_channels`, which follow from the plan
    is_binary: bool = False  # for the rough network: whether it only tells objects from background, however many classes the plan has


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A task. A plan does not change: :meth:`replace` and :meth:`set` return a new one.

    Raises:
        ValueError: If the plan contradicts itself or holds an unknown name.
    """

    classes: tuple[str, ...]  # names of the classes, background first; with two, every label above 0 is the second
    # Classes of each region, by its name: unions of classes that may overlap. The loss is then taken of regions, and scores are given of
    # them as well; the output stays one class a voxel. A loss with a full dotted name is left as it is.
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    image: ImageView = ImageView()  # how the networks see a scan
    normalization: tuple[Component, ...] = ()  # transforms of intensities, applied in this order to the small volume and to crops
    rough: StagePlan | None = None  # input and network of the rough stage; without one, the fine network sees all of the volume
    fine: StagePlan  # input and network of the fine stage
    policy: BoxPolicy = BoxPolicy()  # how components become boxes
    fine_policy: FinePolicy = FinePolicy()  # how crops are batched, rerun and fused
    output: Output = Output()  # kind of output
    execution: Execution = Execution()  # how the networks are run
    training: Training  # how they are trained
    # Escape hatch: entries of the rendered configs, by file name and id.
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problem = next(_contradictions(self), None)
        if problem:
            raise ValueError(problem)
        for stage in self.stages:
            for network in members(getattr(self, stage).network):
                check_component(network, NETWORKS, f"{stage}#network")
        for component in self.normalization:
            check_component(component, NORMALIZATIONS, "normalization")
        where = "training#loss of a plan with regions" if self.regions else "training#loss"
        check_component(self.training.loss, REGION_LOSSES if self.regions else LOSSES, where)
        check_component(self.training.optimizer, OPTIMIZERS, "training#optimizer")

    @classmethod
    def parse(cls, content: bytes, what: str = "plan.json") -> Plan:
        """The plan in a file of these bytes; messages call it ``what``.

        Raises:
            ValueError: If it is not JSON, an entry is unknown or missing, or the plan contradicts itself.
        """
        return cls.from_json(read_json(content, what), what)

    @classmethod
    def from_json(cls, content: Any, what: str = "plan") -> Plan:
        """The plan in parsed JSON; raises what :meth:`parse` raises."""
        plan: Plan = build(cls, content, what)
        return plan

    def as_json(self, like: Any = None, *, whole: bool = False) -> dict[str, Any]:
        """The plan as JSON, for :meth:`from_json`: what is not the default, and what an earlier version has, or the whole."""
        content: dict[str, Any] = dump(self, like, whole=whole)
        return content

    def replace(self, **changes: Any) -> Plan:
        """The plan with other parts.

        Raises:
            ValueError: If the plan then contradicts itself.
        """
        return replace(self, **changes)

    def set(self, entries: Mapping[str, Any]) -> Plan:
        """The plan with other entries.

        Args:
            entries: Values by their path in ``plan.json``, such as ``training#ema_decay`` or ``fine#network#dropout``. Ids in the
                rendered configs, such as ``rough_channel`` or ``fine_stage#size``, are understood as well.

        Raises:
            ValueError: If there is no such entry, a value is of the wrong type, or the plan then contradicts itself.
        """
        content = self.as_json(whole=True)
        for key, value in entries.items():
            holder, last = find_entry(content, plan_id(key, content), f"plan must have the entry {key!r}", has_components=True)
            holder[last] = value
        return Plan.from_json(content)

    def get(self, key: str) -> Any:
        """An entry as JSON, by the same keys as for :meth:`set`; None for an argument that a component is not given.

        Raises:
            ValueError: If there is no such entry.
        """
        content: Any = self.as_json(whole=True)
        holder, last = find_entry(content, plan_id(key, content), f"plan must have the entry {key!r}", has_components=True)
        return holder.get(last) if isinstance(holder, dict) else holder[last]

    def code(self) -> Iterator[str]:
        """Places where the plan names code, so that running it needs trust."""
        content = self.as_json(whole=True) | {"overrides": {}, "regions": {}}  # names of regions may be any text, and are not rendered
        yield from code_in(content, "plan.json")
        for where, component in self._components():
            if "." in component.name:
                yield f"{where} names {component.name!r}"

    def seen_by(self, *names: str) -> dict[str, Any]:
        """Entries that decide how the trained weights of stages see an image and what their output means, without defaults."""
        shown = self.as_json()
        kept = ("network", "rough_channel", "is_binary")
        stages = {name: {key: shown[name][key] for key in kept if key in shown[name]} for name in names}
        return {key: shown.get(key) for key in ("classes", "image", "normalization")} | stages

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages that the plan has, in the order in which they are trained."""
        return STAGES if self.rough else STAGES[1:]

    def require_rough(self) -> StagePlan:
        """The rough stage.

        Raises:
            ValueError: If the plan has one stage.
        """
        if self.rough is None:
            msg = "plan must have a rough stage for this, got one stage"
            raise ValueError(msg)
        return self.rough

    @property
    def loss_regions(self) -> list[list[int]]:
        """Sets of classes that the loss is taken of: the regions, and each class that they do not tell from another or from background.

        Without the latter, nothing would decide between these classes.
        """
        marks = [tuple(kind in values for values in self.regions.values()) for kind in range(len(self.classes))]
        alone = [[kind] for kind in range(1, len(marks)) if marks.count(marks[kind]) > 1]
        return [*map(list, self.regions.values()), *alone]

    def kinds(self, stage: str) -> int:
        """Number of classes of a stage's network, including background."""
        return 2 if getattr(self, stage).is_binary else len(self.classes)

    def _components(self) -> Iterator[tuple[str, Component]]:
        for stage in self.stages:
            yield from ((f"{stage}#network", network) for network in members(getattr(self, stage).network))
        yield from (("normalization", component) for component in self.normalization)
        yield "training#loss", self.training.loss
        yield "training#optimizer", self.training.optimizer


def _contradictions(plan: Plan) -> Iterator[str]:
    """Contradictions in a plan, a sentence each."""
    rough, fine, training = plan.rough, plan.fine, plan.training
    if len(plan.classes) < 2 or len({*plan.classes}) < len(plan.classes):
        yield f"classes must be background and at least one more, each once, got {list(plan.classes)}"
    yield from _bad_regions(plan)
    if fine.spacing_mm is not None or fine.is_binary or (rough and rough.rough_channel):
        yield "spacing_mm and is_binary are for the rough stage and rough_channel for the fine one, got them the other way round"
    if rough is None:
        yield from _missing_rough(plan)
    else:
        yield from _unlike(rough, fine, training)
    if plan.output.number_from is not None and plan.image.axcodes is None:
        yield f"output#number_from={plan.output.number_from!r} needs image#axcodes, got null"
    unknown = [name for name in plan.output.cleaned if name not in (FOREGROUND, *plan.classes[1:])]
    if unknown:
        yield f"output#largest_only and output#min_volume_mm3 must name {FOREGROUND} or classes of {plan.classes[1:]}, got {unknown}"
    if FOREGROUND in plan.output.cleaned and FOREGROUND in plan.classes[1:] and len(plan.classes) > 2:
        yield f"classes must not have {FOREGROUND!r} among several, where output#largest_only means all of them by it"
    policy = plan.policy
    for low, high in (("min_spacing_mm", "max_spacing_mm"), ("min_downscale", "max_downscale")):
        least, most = getattr(policy, low), getattr(policy, high)
        if least is not None and most is not None and least > most:
            yield f"policy#{low} must not be above policy#{high}, got {least} and {most}"
    for stage in plan.stages:
        yield from _misfits(stage, getattr(plan, stage), getattr(training.augmentation, stage).mirror_axes)
    yield from _unserved(training, rough_channel=fine.rough_channel)


def _bad_regions(plan: Plan) -> Iterator[str]:
    """Regions that are no sets of classes, a sentence each."""
    known = range(1, len(plan.classes))
    for name, values in plan.regions.items():
        if not values or len({*values}) < len(values) or any(value not in known for value in values):
            yield f"regions#{name} must hold classes from 1 to {known[-1]}, each once, got {list(values)}"
        elif name in plan.classes and [plan.classes.index(name)] != list(values):
            yield f"regions#{name} must not have the name of another class, got {list(values)}"
    if len({frozenset(values) for values in plan.regions.values()}) < len(plan.regions):
        yield f"regions must differ, got { ({name: list(values) for name, values in plan.regions.items()}) }"


def _unlike(rough: StagePlan, fine: StagePlan, training: Training) -> Iterator[str]:
    """Parts of two stages that do not fit each other, a sentence each."""
    if len(rough.size) != len(fine.size):
        yield f"rough#size and fine#size must have as many axes, got {list(rough.size)} and {list(fine.size)}"
    if rough.spacing_mm is not None and training.cases_a_batch.rough != 1:
        yield f"training#cases_a_batch#rough must be 1, as sizes differ with rough#spacing_mm, got {training.cases_a_batch.rough}"


def _missing_rough(plan: Plan) -> Iterator[str]:
    """Entries of a plan of one stage that would need a rough network, a sentence each."""
    training = plan.training
    needing = {
        "fine#rough_channel": plan.fine.rough_channel,
        "training#folds": training.folds,
        "training#fine_from_rough": training.fine_from_rough,
        "training#target='component'": training.target == "component",
        "fine_policy#only_proposed": plan.fine_policy.only_proposed,
    }
    yield from (f"{name} needs a rough stage, and the plan has none" for name, used in needing.items() if used)


def _misfits(name: str, stage: StagePlan, mirrored: Any) -> Iterator[str]:
    """Parts of a stage that do not fit its input, a sentence each."""
    if any(not 0 <= axis < len(stage.size) for axis in mirrored):
        yield f"training#augmentation#{name}#mirror_axes must be axes of {name}#size {list(stage.size)}, got {list(mirrored)}"
    if stage.network.name == ENSEMBLE and not isinstance(stage.network.arguments.get("networks"), list):
        yield f"{name}#network must list the networks of an ensemble under 'networks', got {sorted(stage.network.arguments)}"
        return
    for network in members(stage.network):
        given = next((key for key in ("in_channels", "out_channels") if key in network.arguments), None)
        if given:
            yield f"{name}#network must leave {given} to the plan, which knows channels and classes, got {network.arguments[given]}"
        dims = network.arguments.get("spatial_dims", len(stage.size))
        if dims != len(stage.size) and not (dims == 2 and len(stage.size) == 3 and stage.size[-1] == 1):
            yield f"{name}#network#spatial_dims must be the axes of {name}#size {list(stage.size)}, or 2 for depth 1, got {dims}"
        yield from _indivisible(name, stage, network)


def _indivisible(name: str, stage: StagePlan, network: Component) -> Iterator[str]:
    """A sentence if a U-Net's input cannot be divided by its strides."""
    strides = network.arguments.get("strides")
    if network.name not in ("UNet", "AttentionUnet", "DynUNet") or not isinstance(strides, list):
        return
    axes = len(stage.size)
    steps = [[s] * axes if isinstance(s, int) else s for s in strides]
    if not all(isinstance(step, list) and all(type(s) is int and s > 0 for s in step) for step in steps):
        yield f"{name}#network#strides must be whole numbers above 0, or lists of them, got {strides}"
        return
    factors = [prod(axis) for axis in zip(*steps, strict=False)]
    sizes = stage.size if stage.spacing_mm is None else [stage.multiple] * axes
    what = f"{name}#size" if stage.spacing_mm is None else f"{name}#multiple"
    if any(size % factor for size, factor in zip(sizes, factors, strict=False)):
        shown = list(sizes) if stage.spacing_mm is None else stage.multiple
        yield f"{what} must be divisible by {factors} along the axes, as {name}#network#strides ask, got {shown}"


def _unserved(training: Training, *, rough_channel: bool) -> Iterator[str]:
    if training.folds and not (training.predicted_boxes or rough_channel):
        yield f"folds={training.folds} must serve predicted_boxes or rough_channel, both are off"
    if training.predicted_boxes and not training.folds:
        yield (
            f"predicted_boxes={training.predicted_boxes} must have folds, at least 2, to predict each case without having seen it; got 0"
        )
