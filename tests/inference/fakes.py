"""Networks whose answer is known: they look at intensities, so that "segmentation" is thresholding."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import torch
from torch import nn

from stseg3d.geometry import Grid
from stseg3d.inference import FinePolicy, SegmentThenSegmentInferer, Stage
from stseg3d.networks import RoughFineNet
from stseg3d.ops import BoxPolicy
from stseg3d.plan import Execution, ImageView, Output
from stseg3d.volumes import ArrayVolume


class Threshold(nn.Module):
    """Two classes; foreground where the first channel lies above ``level``."""

    def __init__(self, level: float = 50.0, steepness: float = 1.0) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(float(level)))
        self.steepness = steepness

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        odds = self.steepness * (x[:, :1] - self.level)
        return torch.cat([-odds / 2, odds / 2], dim=1)


class Cores(nn.Module):
    """Two classes; foreground where all voxels within ``reach`` lie above 50: what is left of objects that touch does not."""

    def __init__(self, reach: int = 2) -> None:
        super().__init__()
        self.threshold = Threshold(50)
        self.reach = reach

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.threshold(-nn.functional.max_pool3d(-x, 2 * self.reach + 1, 1, self.reach))


class Bands(nn.Module):
    """``K`` classes; each voxel is of the class whose intensity, ``0, 100, 200, ...``, is the nearest."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.centres = nn.Parameter(100 * torch.arange(classes, dtype=torch.float32).reshape(1, -1, 1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -0.01 * (x[:, :1] - self.centres) ** 2


class Witness(nn.Module):
    """A network, and what it was asked: the inputs, and whether autocast was on."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.inputs: list[torch.Tensor] = []
        self.autocast: list[bool] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert type(x) is torch.Tensor
        assert not self.training
        self.inputs.append(x.clone())
        self.autocast.append(torch.is_autocast_enabled("cpu"))
        return self.network(x)


def networks(rough_level: float = 25.0, fine_level: float = 50.0) -> RoughFineNet:
    """Thresholds; the rough one is low, as a small object fills only a part of a rough voxel."""
    return RoughFineNet(Threshold(rough_level), Threshold(fine_level)).eval()


def pipeline(
    rough: tuple[int, ...], fine: tuple[int, ...], policy: BoxPolicy | None = None, fine_policy: FinePolicy | None = None, **options: object
) -> SegmentThenSegmentInferer:
    """An inferer; options are fields of its values, or other arguments of its own."""
    values = {}
    for name, kind in {"image": ImageView, "output": Output, "execution": Execution}.items():
        values[name] = kind(**{f.name: options.pop(f.name) for f in fields(kind) if f.name in options})
    return SegmentThenSegmentInferer(Stage(rough), Stage(fine), policy, fine_policy, **values, **options)


def volume_of(image: np.ndarray, **grid: object) -> ArrayVolume:
    """One channel, spacing 1 mm unless told otherwise."""
    return ArrayVolume(image[None], Grid(image.shape, **grid))


def dice(one: np.ndarray, other: np.ndarray) -> float:
    one, other = np.asarray(one) > 0, np.asarray(other) > 0
    return 2 * (one & other).sum() / (one.sum() + other.sum())
