"""Networks for an input size: how often each axis is halved, and how wide the levels are.

The rules for axes follow nnU-Net (Isensee et al. 2021, supplementary note 2): an axis is halved while it stays long enough, and while its
voxels are less than twice as long as the shortest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from stseg3d.plan import Component

SHORTEST = 4  # voxels of an axis at the deepest level
MAX_LEVELS = 4  # of inputs of up to LONG voxels along an axis; one more for longer ones
LONG = 64
ANISOTROPY = 2.0  # an axis with voxels this much longer than the shortest is not halved, nor convolved along
FLAT_LEVELS = 4  # BasicUNet halves both axes four times
FLAT_FEATURES = (16, 32, 64, 128, 160, 16)


def strides_for(size: Sequence[int], spacing_mm: Sequence[float]) -> list[list[int]]:
    """Strides of each downsampling, by axis.

    Args:
        size: Input size.
        spacing_mm: Spacing of the input's voxels.
    """
    left, spacing = list(size), list(spacing_mm)
    out: list[list[int]] = []
    while len(out) < MAX_LEVELS - 1 + (max(size) > LONG):
        finest = min(mm for n, mm in zip(left, spacing, strict=True) if n > 1)
        halved = [n // 2 >= SHORTEST and mm < ANISOTROPY * finest for n, mm in zip(left, spacing, strict=True)]
        if not any(halved):
            break
        out.append([2 if half else 1 for half in halved])
        left = [-(-n // 2) if half else n for n, half in zip(left, halved, strict=True)]
        spacing = [mm * 2 if half else mm for mm, half in zip(spacing, halved, strict=True)]
    return out


def rounded_size(size: Iterable[float], spacing_mm: Iterable[float]) -> tuple[int, ...]:
    """The size, each axis rounded to the nearest number of voxels that its strides divide."""
    whole, spacing = [max(round(n), 1) for n in size], [float(mm) for mm in spacing_mm]
    if 1 in whole[2:]:
        return tuple(max(round(n / (1 << FLAT_LEVELS)), 2) << FLAT_LEVELS if n > 1 else 1 for n in whole)
    for _ in range(4):  # a longer axis may be halved once more
        factors = [1] * len(whole)
        for step in strides_for(whole, spacing):
            factors = [f * s for f, s in zip(factors, step, strict=True)]
        whole = [max(round(n / f), 1) * f for n, f in zip(whole, factors, strict=True)]
    return tuple(whole)


def network_for(size: Sequence[int], spacing_mm: Sequence[float], width: int) -> Component:
    """A residual U-Net for an input; a flat one for depth 1.

    Args:
        size: Input size, of :func:`rounded_size`.
        spacing_mm: Spacing of its voxels.
        width: Channels of the first level.
    """
    if len(size) > 2 and size[2] == 1:
        act = ["LeakyReLU", {"negative_slope": 0.1, "inplace": True}]
        return Component("BasicUNet", {"spatial_dims": 2, "features": list(FLAT_FEATURES), "norm": ["batch", {}], "act": act})
    strides = strides_for(size, spacing_mm)
    widths = [min(width << level, 8 * width) for level in range(len(strides) + 1)]
    if all(len({*step}) == 1 for step in strides):
        plain: dict[str, Any] = {"channels": widths, "strides": [step[0] for step in strides], "num_res_units": 2}
        return Component("UNet", {"spatial_dims": 3, **plain, "norm": "INSTANCE", "dropout": 0.1})
    kernels, spacing = [[1] * len(size)], list(spacing_mm)
    for step in ([1] * len(size), *strides):
        spacing = [mm * s for mm, s in zip(spacing, step, strict=True)]
        finest = min(mm for n, mm in zip(size, spacing, strict=True) if n > 1)
        # Neighbours across thick slices have little in common; a kernel that once spans an axis does so at all deeper levels (nnU-Net).
        kernels.append([3 if k > 1 or mm < ANISOTROPY * finest else 1 for k, mm in zip(kernels[-1], spacing, strict=True)])
    arguments = {"kernel_size": kernels[1:], "strides": [[1, 1, 1], *strides], "upsample_kernel_size": strides, "filters": widths}
    return Component("DynUNet", {"spatial_dims": 3, **arguments, "norm_name": "INSTANCE", "res_block": True, "dropout": 0.1})
