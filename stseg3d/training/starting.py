"""Initial weights of the fine network from the rough one, which has seen the same objects at low resolution."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from ignite.engine import Engine
from torch import Tensor

from stseg3d.networks import RoughFineNet
from stseg3d.training.stages import stage_weights, trained_stage

logger = logging.getLogger(__name__)

LEAST_SHARE = 0.5  # of the fine network's parameters, which must be copied


class StartFromRough:
    """Handler: before training, ``fine.*`` is copied from the trained ``rough.*`` (Benčević et al. 2023, sec. 5, future work).

    Weights of the same name and shape are copied. A layer with more input channels in the fine network, as its first one has with a
    rough channel, gets zeros for them. That is done once, when the trainer is made. Weights that are loaded when it starts, or that a
    server sends before each of several starts, replace them.
    """

    def __init__(self, network: RoughFineNet, bundle: str | Path) -> None:
        self.network, self.bundle = network, Path(bundle)

    def attach(self, engine: Engine) -> None:
        """Copy the weights; a trainer registers its handlers when it is made."""
        del engine
        path = trained_stage(self.bundle, "rough")
        if path is None:
            msg = f"fine_from_rough needs a trained rough stage, {self.bundle} has none: train it with --stage rough"
            raise FileNotFoundError(msg)
        share = copy_fitting(stage_weights(path, "rough"), self.network.fine.state_dict())
        if share < LEAST_SHARE:
            msg = f"fine_from_rough needs networks alike: rough_network_def fits {share:.0%} of fine_network_def's weights"
            msg += f", at least {LEAST_SHARE:.0%} are due, from {path}"
            raise ValueError(msg)
        logger.info("%s: the fine network starts from the rough one, %.1f %% of its weights copied", path, 100 * share)


@torch.no_grad()
def copy_fitting(source: dict[str, Tensor], target: dict[str, Tensor]) -> float:
    """Copy tensors of one state dict that fit into another, in place; the share of the target's floating-point numbers that were copied."""
    copied = 0
    for name, there in target.items():
        here = source.get(name)
        if here is None or not _fits(here, there):
            continue
        there.zero_()
        there[tuple(slice(n) for n in here.shape)] = here.to(there)
        copied += here.numel() if there.is_floating_point() else 0
    return copied / max(sum(t.numel() for t in target.values() if t.is_floating_point()), 1)


def _fits(here: Tensor, there: Tensor) -> bool:
    """Whether two tensors have the same shape, or differ only in that one has more input channels (axis 1)."""
    if here.shape == there.shape:
        return True
    rest = here.ndim == there.ndim > 1 and here.shape[0] == there.shape[0] and here.shape[2:] == there.shape[2:]
    return rest and here.shape[1] < there.shape[1]
