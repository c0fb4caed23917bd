"""Augmentation that leaves axes of one voxel alone: nothing moves along them or turns out of the plane."""

from __future__ import annotations

from collections.abc import Sequence
from math import radians

from monai.transforms.compose import Compose
from monai.transforms.intensity.dictionary import (
    RandAdjustContrastd,
    RandBiasFieldd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandShiftIntensityd,
)
from monai.transforms.spatial.dictionary import RandAffined, RandFlipd

KEYS = ("image", "label", "rough")


def augmentation(
    size: Sequence[int],
    *,
    shift: float = 0.1,
    scale: float = 0.12,
    shear: float = 0.08,
    rotation_degrees: float = 10.0,
    mirror_axes: Sequence[int] = (),
    strength: float = 1.0,
    bias: bool = True,
    fixed_axis: int | None = None,
) -> Compose:
    """Random changes of a sample's ``image`` and ``label``, at the size of a network's input; ``rough`` moves with them.

    Args:
        size: Size of the sample along each axis.
        shift: Largest translation, as a fraction of ``size``; crops have their own jitter and want 0.
        scale: Largest relative zoom on each axis.
        shear: Largest shear.
        rotation_degrees: Largest angle about each axis; only in the plane if an axis has one voxel.
        mirror_axes: Axes along which a mirrored object is as plausible.
        strength: Factor on noise, contrast and intensity changes; 0 switches them off.
        bias: Whether to add a smooth bias field, as in MR.
        fixed_axis: Axis along which nothing moves or blurs. Tilting thick slices, between which voxels are interpolated, would make
            images and labels that do not occur (nnU-Net's two-dimensional augmentation of anisotropic data).

    Returns:
        MONAI ``Compose`` on a dictionary.
    """
    long_axes = [n > 1 and axis != fixed_axis for axis, n in enumerate(size)]
    flat = not all(long_axes)
    angle = radians(rotation_degrees)
    # MONAI turns about axis 0, 1, 2 in three dimensions; a volume of depth 1 may only turn about its short axis.
    angles = [angle if not (flat and long) else 0.0 for long in long_axes]
    sigma = [(0.3, 0.9) if long else (1e-3, 1e-3) for long in long_axes]
    spatial = [
        RandAffined(
            KEYS,
            prob=0.8,
            rotate_range=angles,
            scale_range=[scale if long else 0.0 for long in long_axes],
            shear_range=None if flat else [shear] * 6,
            translate_range=[shift * n if long else 0.0 for n, long in zip(size, long_axes, strict=True)],
            mode=("bilinear", "nearest", "bilinear"),
            padding_mode="border",
            allow_missing_keys=True,
        ),
        *(RandFlipd(KEYS, prob=0.5, spatial_axis=axis, allow_missing_keys=True) for axis in mirror_axes if size[axis] > 1),
    ]
    if not strength:
        return Compose(spatial)
    intensity = [
        *([RandBiasFieldd("image", prob=0.25, coeff_range=(-0.3 * strength, 0.3 * strength))] if bias else []),
        RandAdjustContrastd("image", prob=0.4, gamma=(1 / (1 + 0.6 * strength), 1 + 0.6 * strength)),
        RandScaleIntensityd("image", factors=0.2 * strength, prob=0.5),
        RandShiftIntensityd("image", offsets=0.2 * strength, prob=0.5),
        RandGaussianNoised("image", prob=0.3, std=0.15 * strength),
        RandGaussianSmoothd("image", prob=0.2, sigma_x=sigma[0], sigma_y=sigma[1], sigma_z=sigma[2]),
    ]
    return Compose([*spatial, *intensity])
