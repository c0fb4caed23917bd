"""Training samples, as MONAI transforms: a case opened once, and the samples of the rough network.

:class:`OpenCased` is worth caching; samples of the fine network are in :mod:`stseg3d.training.crops`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import Transform
from numpy.typing import NDArray
from torch import Tensor

from stseg3d.compute import Stage, network_input
from stseg3d.ops.resample import resample
from stseg3d.plan import ImageView
from stseg3d.volumes import OpenCase, network_view, open_label, open_volume

Data = Mapping[Hashable, Any]


class OpenCased(Transform):
    """Opens ``image`` and ``label`` of a case; gives ``{"case": OpenCase}``.

    Args:
        image: How the networks see an image, as at inference.
        foreground: Whether every label above 0 becomes class 1; otherwise labels are classes.
        out_channels: Number of classes including background.
    """

    def __init__(self, image: ImageView | None = None, foreground: bool = True, out_channels: int = 2) -> None:
        super().__init__()
        self.image, self.foreground, self.out_channels = image or ImageView(), foreground, out_channels

    @property
    def in_channels(self) -> int:
        """Number of channels of an image."""
        return self.image.channels

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """The open case, as ``"case"``.

        Raises:
            ValueError: If the image has another number of channels, or the label lies on another grid than the image, has several
                channels, or holds classes that do not exist.
        """
        image = open_volume(data["image"], channels_last=True)
        label = open_label(data["label"], image.grid, foreground=self.foreground, binary=self.out_channels == 2)
        if image.channels != self.in_channels and not self.image.colour:
            msg = f"{image.name}: must have {self.in_channels} channel(s) for these networks, got {image.channels}"
            raise ValueError(msg)
        if label.channels != 1 or not label.grid.is_close(image.grid):
            msg = f"{label.name}: the label must have one channel on the grid of {image.name}, got {label.channels} on another grid"
            msg = msg if label.channels == 1 else f"{label.name}: the label must have one channel, got {label.channels}"
            raise ValueError(msg)
        # The image's grid for both, as affines that differ in the last digit must not be flipped differently.
        view = network_view(image, self.image.axcodes, colour=self.image.colour, standardize=self.image.standardize)
        classes = view.view(label.read()[0])
        classes = (classes > 0) if self.foreground else classes
        with np.errstate(invalid="ignore"):  # NaN becomes some number that does not equal it
            whole = np.ascontiguousarray(classes).astype(np.uint8)
        if not np.array_equal(whole, classes) or whole.max() >= self.out_channels:
            msg = f"{label.name}: labels must be whole numbers below out_channels={self.out_channels}"
            msg += f", got {classes.min():g} to {classes.max():g}"
            raise ValueError(msg)
        return {"case": OpenCase(view, whole, str(data.get("id", "")))}


class RoughSampled(Transform):
    """The whole case on the rough grid: ``{"image": (C, *size), "label": (1, *size)}`` from ``{"case": OpenCase}``.

    Args:
        stage: Input of the rough network, as at inference.
        out_channels: Number of classes including background.
    """

    def __init__(self, stage: Stage, out_channels: int = 2) -> None:
        super().__init__()
        self.stage, self.out_channels = stage, out_channels

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Image and label on the rough grid.

        Raises:
            ValueError: If voxels are NaN or infinite.
        """
        case: OpenCase = data["case"]
        image = network_input(case.image, self.stage)
        return {"image": MetaTensor(image), "label": MetaTensor(label_tensor(case.label, image.shape[1:], self.out_channels))}


def class_fractions(label: NDArray[np.uint8], size: Sequence[int], classes: int) -> NDArray[np.float32]:
    """Fraction of each cell of a resampled grid that belongs to each class.

    Args:
        label: Classes of shape ``S``.
        size: Wanted shape.
        classes: Number of classes ``K``.

    Returns:
        Fractions ``(K, *size)``, float32.
    """
    return np.concatenate([resample((label == k)[None], size) for k in range(classes)])


def label_tensor(label: NDArray[np.uint8], size: Sequence[int], classes: int) -> Tensor:
    """Class of each cell, ``(1, *size)``; for a network of two classes every label is foreground."""
    label = (label > 0).astype(np.uint8) if classes == 2 else label
    return torch.from_numpy(class_fractions(label, size, classes).argmax(axis=0)[None].astype(np.float32))
