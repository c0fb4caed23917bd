"""Training in several processes, one for each GPU, as ``torchrun`` starts them; everything also works with a single process.

``multi_gpu_train.json`` names these functions. Every process holds the whole network and sees a part of each epoch's cases, and
gradients are averaged. Only the first process writes files.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from stseg3d.machine.devices import select_device
from stseg3d.networks import RoughFineNet

T = TypeVar("T")

# The others wait while the first process predicts for folds, or assembles; torch's default for GPUs is 10 minutes.
TIMEOUT = timedelta(hours=6)


def rank() -> int:
    """Number of this process among those of all machines, from 0."""
    if dist.is_initialized():
        return dist.get_rank()
    return int(os.environ["RANK"]) if launched() else 0


def launched() -> bool:
    """Whether ``torchrun`` started this process."""
    return {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys()


def own_device(device: str | torch.device = "auto") -> torch.device:
    """The device of this process among those of its machine: the CPU, or a GPU of its own.

    Args:
        device: ``auto`` (a GPU where there is one), ``cpu`` or ``cuda``.

    Raises:
        ValueError: If there are more processes than GPUs.
    """
    kind = select_device().type if str(device) == "auto" else str(device)
    if kind != "cuda" or not launched():
        return torch.device(kind)
    number, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if number >= there:
        msg = f"--nproc_per_node must be at most the number of GPUs, {there}, got {os.environ.get('LOCAL_WORLD_SIZE', number + 1)}"
        raise ValueError(msg)
    return torch.device("cuda", number)


def join_processes(device: torch.device) -> bool:
    """Join the process group; False if that was done before. All processes but the first then log errors only.

    Raises:
        ValueError: If the process was not started by ``torchrun``.
    """
    if dist.is_initialized():
        return False
    if not launched():
        msg = "multi_gpu_train.json must be run by torchrun, such as `torchrun --standalone --nproc_per_node=2 -m monai.bundle run ...`"
        raise ValueError(msg)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    if rank():
        logging.disable(logging.WARNING)
    return True


def leave_processes() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def together(device: torch.device) -> Iterator[None]:
    """Context in which the processes of ``torchrun`` form a group; it does nothing without ``torchrun``."""
    joined = launched() and join_processes(device)
    try:
        yield
    finally:
        if joined:
            leave_processes()


def distribute(network: RoughFineNet, device: torch.device) -> DistributedDataParallel:
    """The network on a device, with gradients averaged over all processes, and the weights of the first process.

    The inactive network is frozen, as torch would wait for its gradients. On GPUs batch normalisation sees the whole batch. On CPUs torch
    cannot do that, and each process normalises its own part.
    """
    trained = {id(parameter) for parameter in network.active_parameters()}
    for parameter in network.parameters():
        parameter.requires_grad_(id(parameter) in trained)
    on_gpu = device.type == "cuda"
    if on_gpu:
        whole: Callable[[nn.Module], nn.Module] = nn.SyncBatchNorm.convert_sync_batchnorm
        network.rough, network.fine = whole(network.rough), whole(network.fine)
    return DistributedDataParallel(network.to(device), device_ids=[device] if on_gpu else None)


def undistributed(thing: Any) -> Any:
    """The network that :func:`distribute` has wrapped, whose state dict has plain names; anything else as it is."""
    return thing.module if isinstance(thing, DistributedDataParallel) else thing


def from_first(value: T) -> T:
    """The first process's value, in all of them."""
    if not dist.is_initialized():
        return value
    held = [value]
    dist.broadcast_object_list(held, src=0)
    return held[0]


def from_all(value: T) -> list[T]:
    """Every process's value, by rank, in all of them."""
    if not dist.is_initialized():
        return [value]
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found


def by_first(act: Callable[[], T]) -> T:
    """Result of ``act``, which only the first process calls; the others wait for it, and raise what it raises."""
    if not dist.is_initialized():
        return act()
    outcome: list[T] | Exception = []
    if rank() == 0:
        try:
            outcome = [act()]
        except Exception as error:  # the others would wait in vain
            outcome = error
    found = from_first(outcome)
    if isinstance(found, Exception):
        raise found
    return found[0]
