"""Trial steps: what one training step of a plan costs on this machine, and a plan that fits into its memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from stseg3d.bundle import OpenBundle, config_parser
from stseg3d.machine.memory import available_bytes, peak_memory_bytes, reset_peak_memory
from stseg3d.networks import check_same_size
from stseg3d.plan import Plan, render
from stseg3d.plan.json_values import Both

SHARE = 0.8  # of the free memory that training may take: images are cached beside it
STEPS = 3  # timed ones, after one that warms up
SHRINK = 0.8  # of each axis, where a batch of one crop does not fit
MULTIPLES = (16, 8, 4, 2, 1)  # of voxels along an axis, of which the first that the network takes is chosen
SMALLEST = 16  # voxels along the longest axis


@dataclass(frozen=True)
class StepCost:
    """Cost of one training step.

    Attributes:
        seconds: Wall time, without the making of samples.
        peak_bytes: Peak memory of the process, or of the GPU.
    """

    seconds: float
    peak_bytes: int


def step_cost(plan: Plan, stage: str, device: torch.device) -> StepCost:
    """Cost of one training step of a stage, measured on noise.

    Args:
        plan: The plan.
        stage: ``"rough"`` or ``"fine"``.
        device: Device of the training.

    Raises:
        RuntimeError: If the step fails, such as for lack of GPU memory.
        ValueError: If the network does not take its size, or returns another.
    """
    opened = OpenBundle(Path(), plan, render(plan))
    files = ["train.json", "train_rough.json"] if stage == "rough" else ["train.json"]
    parser = config_parser(opened, files, device=device, overrides={"stage": stage})
    network: Any = getattr(parser.get_parsed_content("network_def"), stage).to(device)
    loss = parser.get_parsed_content("train#loss")
    shape = _batch_shape(plan, stage)
    check_same_size(network, shape[2:], shape[1], f"{stage} network")
    image = torch.rand(shape, device=device)
    label = torch.randint(plan.kinds(stage), (shape[0], 1, *shape[2:]), device=device).float()
    optimizer = torch.optim.AdamW(network.parameters())
    inferer = parser.get_parsed_content("train#inferer")
    seconds = []
    with _peak(device) as peak:
        for _ in range(STEPS + 1):
            start = time.perf_counter()
            value: Tensor = loss(inferer(image, network), label)
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
            value.item()  # waits for a GPU
            seconds.append(time.perf_counter() - start)
    return StepCost(median(seconds[1:]), peak[0])


def fitted(plan: Plan, device: torch.device, memory_bytes: int | None = None) -> tuple[Plan, dict[str, StepCost], int]:
    """The plan with batches, and if need be a fine input, that fit into memory, as measured by a step of each stage.

    Args:
        plan: The plan.
        device: Device of the training.
        memory_bytes: Memory that training may take; by default most of what is free.

    Returns:
        The plan, the cost of a step of each stage, and the memory in bytes.

    Raises:
        ValueError: If not even the smallest batch fits.
    """
    budget = memory_bytes or _free_bytes(device)
    costs = {}
    for stage in plan.stages:
        cost = _try(plan, stage, device)
        while cost is None or cost.peak_bytes > budget:
            less = smaller(plan, stage)
            if less is None:
                told = f"{cost.peak_bytes / 2**20:.0f} MiB" if cost else "more than the device has"
                msg = f"memory must be enough for one training step of the {stage} network, {told}, got {budget / 2**20:.0f} MiB"
                raise ValueError(msg)
            plan = less
            cost = _try(plan, stage, device)
        costs[stage] = cost
    return plan, costs, budget


def _try(plan: Plan, stage: str, device: torch.device) -> StepCost | None:
    try:
        return step_cost(plan, stage, device)
    except torch.OutOfMemoryError:
        return None


def smaller(plan: Plan, stage: str) -> Plan | None:
    """The plan with a smaller batch, or a smaller input of the fine network; None if there is none."""
    training = plan.training
    batch: Both[int] = training.cases_a_batch
    if stage == "fine" and training.samples > 1:
        return plan.set({"training#samples": training.samples // 2})
    if getattr(batch, stage) > 1:
        return plan.set({f"training#cases_a_batch#{stage}": getattr(batch, stage) // 2})
    found = getattr(plan, stage)
    for multiple in () if found.spacing_mm else MULTIPLES:
        size = [max(round(n * SHRINK / multiple), 1) * multiple if n > 1 else 1 for n in found.size]
        if max(size) >= SMALLEST and prod(size) < prod(found.size):
            with suppress(ValueError):  # the network's strides do not divide it
                return plan.set({f"{stage}#size": size})
    return None


def _batch_shape(plan: Plan, stage: str) -> tuple[int, ...]:
    found, training = getattr(plan, stage), plan.training
    cases = getattr(training.cases_a_batch, stage)
    return cases * (training.samples if stage == "fine" else 1), plan.image.channels + int(found.rough_channel), *found.size


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(SHARE * torch.cuda.mem_get_info(device)[0])
    return int(SHARE * (available_bytes() or 4 << 30))


@contextmanager
def _peak(device: torch.device) -> Iterator[list[int]]:
    found = [0]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        reset_peak_memory()
    yield found
    found[0] = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory_bytes()
