"""Plan of one run of a comparison: the bundle's own, with the run's input size and one architecture in every role."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

from stseg3d.plan import Both, Plan, StagePlan, Training, set_entries

# Voxels of a batch of rough images: as many as fit beside a laptop's other work.
BATCH_VOXELS = 1 << 20
LARGEST_BATCH = 8

# Epochs of a large input are long: a budget must not end before the first validation.
VALIDATE_EVERY = 5


def run_plan(plan: Plan, size: Sequence[int], overrides: Mapping[str, Any], *, sliding: bool) -> Plan:
    """The plan for networks of an input size.

    Args:
        plan: Plan of the bundle that is compared.
        size: Input of both networks.
        overrides: Entries to set, see :func:`stseg3d.plan.set_entries`.
        sliding: Whether the fine network learns for a sliding window, instead of for crops.

    Raises:
        ValueError: If there is no such entry, or an override would change what all runs must agree on.
    """
    batch = min(max(BATCH_VOXELS // prod(size), 1), LARGEST_BATCH)
    every = plan.training.validate_every
    training = replace(
        plan.training,
        cases_a_batch=replace(plan.training.cases_a_batch, rough=batch),
        validate_every=Both(min(every.rough, VALIDATE_EVERY), min(every.fine, VALIDATE_EVERY)),
    )
    # By size from here on: what the bundle says of spacing would contradict batches of several cases.
    own = plan.replace(training=training, rough=replace(plan.rough, spacing_mm=None))
    wanted = set_entries(own, overrides)
    made = wanted.replace(
        # One architecture in every role, as in the paper.
        rough=StagePlan(size=size, mirror_axes=_long(wanted.rough, size), network=wanted.fine.network),
        fine=replace(wanted.fine, size=size, mirror_axes=_long(wanted.fine, size)),
    )
    for key in overrides:
        _ensure_kept(key, wanted, made)
    if not sliding:
        return made
    return made.replace(fine=replace(made.fine, rough_channel=False), training=_for_sliding(made.training))


def _for_sliding(training: Training) -> Training:
    """A recipe without what needs a rough network, which a sliding window has not."""
    rates = training.learning_rate
    if training.fine_from_rough:  # the rate of a fine network that goes on is too gentle from nothing
        rates = replace(rates, fine=rates.rough)
    return replace(training, crops="patches", learning_rate=rates, predicted_boxes=0.0, folds=0, fine_from_rough=False)


def _long(stage: StagePlan, size: Sequence[int]) -> tuple[int, ...]:
    return tuple(axis for axis in stage.mirror_axes if size[axis] > 1)


def _ensure_kept(key: str, wanted: Plan, made: Plan) -> None:
    """What was overridden is still so: sizes and the rough network are not for an override to change."""
    try:
        asked, found = wanted.get(key), made.get(key)
    except ValueError:  # an entry of a config, which is as it was asked for
        return
    if asked != found:
        msg = f"overrides must leave {key} to the comparison, which makes it {found}; got {asked}"
        raise ValueError(msg)
