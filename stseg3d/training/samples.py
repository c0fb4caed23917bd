"""Training samples, as MONAI transforms: a case opened once, and the samples of the rough network.

:class:`OpenCased` is worth caching; samples of the fine network are in :mod:`stseg3d.training.crops`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
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
from stseg3d.volumes import ArrayVolume, Label, LabelValues, OpenCase, Volume, as_volume, network_view, open_volume, read_label

Data = Mapping[Hashable, Any]
MOST_CLASSES = 256  # a case holds them in a byte
IGNORED = -1  # in the label of a sample: a voxel that counts neither in losses nor in metrics


class OpenCased(Transform):
    """Opens ``image`` and ``label`` of a case; gives ``{"case": OpenCase}``.

    Args:
        image: How the networks see an image, as at inference.
        foreground: Whether every label above 0 becomes class 1; otherwise labels are classes.
        out_channels: Number of classes including background, at most 256.

    Raises:
        ValueError: If there are more classes.
    """

    def __init__(self, image: ImageView | None = None, foreground: bool = True, out_channels: int = 2) -> None:
        super().__init__()
        if out_channels > MOST_CLASSES:
            msg = f"out_channels must be at most {MOST_CLASSES}, got {out_channels}"
            raise ValueError(msg)
        self.image, self.foreground, self.out_channels = image or ImageView(), foreground, out_channels

    @property
    def in_channels(self) -> int:
        """Number of channels of an image."""
        return self.image.channels

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """The open case, as ``"case"``; ``"label_values"`` of the data, if there, say what its labels may be.

        Raises:
            ValueError: If the image has another number of channels, or :func:`stseg3d.volumes.read_label` refuses the label.
        """
        image = open_volume(data["image"], channels_last=True)
        if image.channels != self.in_channels and not self.image.colour:
            msg = f"{image.name}: must have {self.in_channels} channel(s) for these networks, got {image.channels}"
            raise ValueError(msg)
        label = _read(data, image, foreground=self.foreground, out_channels=self.out_channels)
        # The image's grid for both, as affines that differ in the last digit must not be flipped differently.
        view = network_view(image, self.image.axcodes, colour=self.image.colour, standardize=self.image.standardize)
        classes = np.ascontiguousarray(view.view(label.classes)).astype(np.uint8, copy=False)
        ignored = None if label.ignored is None else np.ascontiguousarray(view.view(label.ignored))
        return {"case": OpenCase(view, classes, str(data.get("id", "")), ignored)}


class LoadLabeld(Transform):
    """Loads ``label`` of a case whose ``image`` is loaded: ``(1, *S)``, with :data:`IGNORED` where the data set says so.

    Args:
        foreground: As of :class:`OpenCased`.
        out_channels: As of :class:`OpenCased`.
    """

    def __init__(self, foreground: bool = True, out_channels: int = 2) -> None:
        super().__init__()
        self.foreground, self.out_channels = foreground, out_channels

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """The data, with the label as a tensor.

        Raises:
            ValueError: If :func:`stseg3d.volumes.read_label` refuses the label.
        """
        image = data["image"]
        volume = ArrayVolume(image.numpy(), as_volume(image).grid, str(image.meta["filename_or_obj"]))
        label = _read(data, volume, foreground=self.foreground, out_channels=self.out_channels)
        found = label.classes.astype(np.float32)
        if label.ignored is not None:
            found[label.ignored] = IGNORED
        kept = {key: value for key, value in data.items() if key != "label_values"}  # a batch cannot hold them
        return {**kept, "label": MetaTensor(torch.from_numpy(found[None]), meta=image.meta)}


def _read(data: Data, image: Volume, *, foreground: bool, out_channels: int) -> Label:
    """Checked ground truth of a case, 1 in all objects if ``foreground``."""
    values: LabelValues = data.get("label_values", LabelValues())
    if not foreground:
        return read_label(data["label"], image, values, meaning="classes", out_channels=out_channels)
    found = read_label(data["label"], image, values, meaning="foreground")
    return replace(found, classes=(found.classes > 0).astype(np.uint8))


class RoughSampled(Transform):
    """The whole case on the rough grid: ``{"image": (C, *size), "label": (1, *size)}`` from ``{"case": OpenCase}``.

    Args:
        stage: Input of the rough network, as at inference.
        out_channels: Number of classes including background.
        least_share: Smallest share of a cell that must be labelled for it to count as object: objects smaller than a cell fill no half of
            one.
    """

    def __init__(self, stage: Stage, out_channels: int = 2, least_share: float = 0.5) -> None:
        super().__init__()
        self.stage, self.out_channels, self.least_share = stage, out_channels, least_share

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Image and label on the rough grid.

        Raises:
            ValueError: If voxels are NaN or infinite.
        """
        case: OpenCase = data["case"]
        image = network_input(case.image, self.stage)
        label = label_tensor(case.label, image.shape[1:], self.out_channels, case.ignored, least_share=self.least_share)
        return {"image": MetaTensor(image), "label": MetaTensor(label)}


def class_fractions(label: NDArray[np.integer], size: Sequence[int], classes: int) -> NDArray[np.float32]:
    """Fraction of each cell of a resampled grid that belongs to each class.

    Args:
        label: Classes of shape ``S``.
        size: Wanted shape.
        classes: Number of classes ``K``.

    Returns:
        Fractions ``(K, *size)``, float32.
    """
    return np.concatenate([resample((label == k)[None], size) for k in range(classes)])


def label_tensor(
    label: NDArray[np.uint8], size: Sequence[int], classes: int, ignored: NDArray[np.bool_] | None = None, *, least_share: float = 0.5
) -> Tensor:
    """Class of each cell, ``(1, *size)``: the one that fills most of it, or :data:`IGNORED`.

    Args:
        label: Classes of shape ``S``; for a network of two classes every label is foreground.
        size: Wanted shape.
        classes: Number of classes.
        ignored: Mask of shape ``S``; what it holds competes with the classes for a cell.
        least_share: Share of a cell from which its largest object counts, though background fills most of it.
    """
    label = (label > 0).astype(np.uint8) if classes == 2 else label
    if ignored is None or not ignored.any():
        found = _fullest(class_fractions(label, size, classes), least_share)
    else:
        found = _fullest(class_fractions(np.where(ignored, np.int16(classes), label), size, classes + 1), least_share)
        found[found == classes] = IGNORED
    return torch.from_numpy(found[None].astype(np.float32))


def _fullest(fractions: NDArray[np.float32], least_share: float) -> NDArray[np.intp]:
    """Class with the largest fraction of each cell; with a share below one half, the largest object where all objects reach it."""
    if least_share >= 0.5:
        most: NDArray[np.intp] = fractions.argmax(axis=0)
        return most
    objects = fractions[1:]
    return np.where(objects.sum(axis=0) >= least_share, objects.argmax(axis=0) + 1, 0)
