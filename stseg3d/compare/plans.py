"""Plan of one run of a comparison: the bundle's plan, with the run's input size and one architecture for all networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

from stseg3d.plan import Both, Plan, StagePlan, Training, set_entries

# Voxels of a batch of rough images that fit into a laptop's memory beside its other work.
BATCH_VOXELS = 1 << 20
MAX_BATCH_SIZE = 8

# Epochs of a large input are long: a budget must not end before the first validation.
VALIDATE_EVERY = 5


def run_plan(plan: Plan, size: Sequence[int], overrides: Mapping[str, Any], *, sliding: bool) -> Plan:
    """The plan for networks of one input size, the fine one for crops or for a sliding window, with the entries that overrides set.

    Raises:
        ValueError: If there is no such entry, or an override would change an entry that all runs must share.
    """
    batch = min(max(BATCH_VOXELS // prod(size), 1), MAX_BATCH_SIZE)
    every = plan.training.validate_every
    training = replace(
        plan.training,
        cases_a_batch=replace(plan.training.cases_a_batch, rough=batch),
        validate_every=Both(min(every.rough, VALIDATE_EVERY), min(every.fine, VALIDATE_EVERY)),
    )
    # Sizes replace the bundle's spacing, which would contradict batches of several cases.
    own = plan.replace(training=training, rough=replace(plan.require_rough(), spacing_mm=None))
    wanted = set_entries(own, overrides)
    made = wanted.replace(
        # One architecture in every role, as in the paper.
        rough=StagePlan(size=size, mirror_axes=_long(wanted.require_rough(), size), network=wanted.fine.network),
        fine=replace(wanted.fine, size=size, mirror_axes=_long(wanted.fine, size)),
    )
    for key in overrides:
        _ensure_kept(key, wanted, made)
    if not sliding:
        return made
    return made.replace(fine=replace(made.fine, rough_channel=False), training=_for_sliding(made.training))


def _for_sliding(training: Training) -> Training:
    """A recipe without the parts that need a rough network."""
    rates = training.learning_rate
    if training.fine_from_rough:  # the rate of a fine network that goes on is too gentle from nothing
        rates = replace(rates, fine=rates.rough)
    return replace(training, crops="patches", learning_rate=rates, predicted_boxes=0.0, folds=0, fine_from_rough=False)


def _long(stage: StagePlan, size: Sequence[int]) -> tuple[int, ...]:
    return tuple(axis for axis in stage.mirror_axes if size[axis] > 1)


def _ensure_kept(key: str, wanted: Plan, made: Plan) -> None:
    """Refuse overrides of entries that the comparison sets: sizes and the rough network."""
    try:
        asked, found = wanted.get(key), made.get(key)
    except ValueError:  # an entry of a config, which is as it was asked for
        return
    if asked != found:
        msg = f"overrides must leave {key} to the comparison, which makes it {found}; got {asked}"
        raise ValueError(msg)
