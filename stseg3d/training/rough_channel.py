"""The rough probability as a channel of the fine network's input in training, corrupted so that it is not simply copied.

A fine network that sees the rough mask learns to copy it, especially if the mask is better than it will be at inference. In training the
mask is therefore predicted out of fold where possible, and corrupted: left out, blurred, shifted, noisy, or with objects missing.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from monai.transforms.transform import Transform
from numpy.typing import NDArray
from scipy import ndimage

from stseg3d.compute import append_rough
from stseg3d.ops.boxes import Proposal

Float = NDArray[np.float32]
NOISE = 0.2  # standard deviation, in units of probability
BLUR_VOXELS = 1.0  # largest standard deviation, in rough voxels


def corrupted(proposal: Proposal, random: np.random.RandomState, chance: float) -> Proposal:
    """The proposal with a corrupted probability, and the same boxes and ids.

    Each corruption has the same chance: all zero, an object missing, blur, a shift by up to one rough voxel, noise.
    """
    probability = proposal.probability
    assert probability is not None
    if random.random() < chance:
        return replace(proposal, probability=None)
    spoilt: Float = probability.astype(np.float32)
    for spoil in (_without_object, _blurred, _shifted, _noisy):
        if random.random() < chance:
            spoilt = spoil(spoilt, random)
    return replace(proposal, probability=spoilt)


def _without_object(probability: Float, random: np.random.RandomState) -> Float:
    ids, count = ndimage.label(probability > NOISE)
    return np.where(ids == random.randint(count) + 1, np.float32(0), probability) if count else probability


def _blurred(probability: Float, random: np.random.RandomState) -> Float:
    blurred: Float = ndimage.gaussian_filter(probability, random.uniform(0, BLUR_VOXELS))
    return blurred


def _shifted(probability: Float, random: np.random.RandomState) -> Float:
    move = [random.uniform(-1, 1) if n > 1 else 0.0 for n in probability.shape]
    moved: Float = ndimage.shift(probability, move, order=1, mode="nearest")
    return moved


def _noisy(probability: Float, random: np.random.RandomState) -> Float:
    noise = random.normal(0, NOISE, probability.shape).astype(np.float32)
    noisy: Float = (probability + noise).clip(0, 1)
    return noisy


class AppendRoughd(Transform):
    """Appends the channel ``rough`` of a sample, if it has one, to those of ``image``, after transforms of intensities."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The sample, its channel ``rough`` as the last one of ``image``."""
        out = dict(data)
        if "rough" in out:
            out["image"] = append_rough(out["image"], out.pop("rough"))
        return out
