"""Weight averaging: validation and the checkpoint use the running mean of the weights, which varies less than the weights themselves.

ignite's ``EMAHandler`` copies the weights when it is made, before others may be loaded, shares the buffers of the trained network and
warms up linearly. torch's ``AveragedModel`` forgets the initial weights at its first step. Neither would give the same mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from stseg3d.training.processes import undistributed

# Weight of the newest step at first: 10 / 11, 10 / 12, ... so that short trainings forget their initial weights. Izmailov et al. 2018
# begin late instead; this warm-up is TensorFlow's ExponentialMovingAverage(num_updates).
WARM_UP = 10


class WeightAverage:
    """Handler: the exponential moving average of a network's weights, updated at each step.

    Attach it after handlers that load weights at the start, and before those that resume.

    Args:
        network: The network that is trained.
        decay: Weight of the old mean at each step, such as 0.999: about the last ``1 / (1 - decay)`` steps count. 0 turns it off.

    Attributes:
        network: The network to validate and save: the mean, or the network itself if ``decay`` is 0.

    Raises:
        ValueError: If ``decay`` is not in [0, 1).
    """

    def __init__(self, network: nn.Module, decay: float = 0.0) -> None:
        if not 0 <= decay < 1:
            msg = f"ema_decay must be in [0, 1), got {decay}"
            raise ValueError(msg)
        self.trained, self.decay, self.steps = undistributed(network), decay, 0
        self.network = deepcopy(self.trained).requires_grad_(False) if decay else self.trained

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        if self.decay:
            engine.add_event_handler(Events.STARTED, self._begin)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)

    def _begin(self) -> None:
        self.network.load_state_dict(self.trained.state_dict())

    @torch.no_grad()
    def _update(self) -> None:
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + WARM_UP))
        new = self.trained.state_dict()
        for name, mean in self.network.state_dict().items():
            if mean.is_floating_point():
                mean.lerp_(new[name], 1 - decay)
            else:
                mean.copy_(new[name])  # counters of batch normalisation

    def state_dict(self) -> dict[str, Any]:
        """The mean and its number of steps, without the network itself."""
        return {"steps": self.steps, "mean": self.network.state_dict() if self.decay else {}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved mean.

        Raises:
            ValueError: If only one of the two trainings averages weights.
        """
        mean: Mapping[str, Tensor] = state["mean"]
        if bool(mean) != bool(self.decay):
            msg = f"ema_decay must be {'above 0' if mean else '0'}, as in the training that is gone on with, got {self.decay}"
            raise ValueError(msg)
        self.steps = state["steps"]
        if self.decay:
            self.network.load_state_dict(mean)
