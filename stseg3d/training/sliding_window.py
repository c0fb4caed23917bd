"""Sliding-window baseline: a network like the fine one, trained on full-resolution patches and slid over the whole image."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from itertools import combinations
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.data.utils import dense_patch_slices
from monai.inferers.inferer import Inferer, SlidingWindowInferer
from monai.transforms.croppad.dictionary import RandCropByPosNegLabeld
from monai.transforms.transform import Transform
from torch import Tensor, nn

from stseg3d.compute import Stage
from stseg3d.ops.resample import count_not_finite
from stseg3d.training.engine import PrecisionInferer
from stseg3d.training.samples import IGNORED
from stseg3d.volumes import OpenCase

OVERLAP = 0.25  # of neighbouring windows: MONAI's own default
WINDOWS_AT_ONCE = 4


class WholeCased(Transform):
    """The whole case at full resolution: ``{"image": (C, *S), "label": (1, *S)}`` from ``{"case": OpenCase}``.

    The stage's transform runs on the whole image, as is usual for a sliding window; for two classes every label is foreground.
    """

    def __init__(self, stage: Stage, out_channels: int = 2) -> None:
        super().__init__()
        self.stage, self.out_channels = stage, out_channels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Image and label at full resolution.

        Raises:
            ValueError: If voxels are NaN or infinite.
        """
        case: OpenCase = data["case"]
        label = ((case.label > 0) if self.out_channels == 2 else case.label).astype(np.float32)
        if case.ignored is not None:
            label[case.ignored] = IGNORED
        voxels = np.ascontiguousarray(case.image.read(), dtype=np.float32)
        if bad := count_not_finite(voxels):
            msg = f"{case.name}: voxels must be finite, got {bad} NaN or infinite"
            raise ValueError(msg)
        return {"image": MetaTensor(self.stage.prepare(voxels)), "label": MetaTensor(torch.from_numpy(label[None]))}


class RandPatchesd(RandCropByPosNegLabeld):
    """Patches as of MONAI's ``RandCropByPosNegLabeld``, to which an ignored voxel is no object."""

    def randomize(self, label: Any = None, *args: Any, **kwargs: Any) -> None:
        """Draw the places of the patches."""
        super().randomize(None if label is None else label > 0, *args, **kwargs)


class SlidingWindow(Inferer):
    """MONAI's sliding window of a stage's size, with Gaussian weights over one network; mirrored as the stage says, if asked for."""

    def __init__(self, stage: Stage, precision: str = "auto", *, mirror: bool = False) -> None:
        super().__init__()
        self.stage, self.mirror = stage, mirror
        self.run = PrecisionInferer(precision)
        self.slide = SlidingWindowInferer(stage.size, sw_batch_size=WINDOWS_AT_ONCE, overlap=OVERLAP, mode="gaussian")

    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """Logits ``(B, K, *S)``, float32."""
        del args, kwargs

        def logits(windows: Tensor) -> Tensor:
            axes = self.stage.mirror_axes if self.mirror else ()
            flips = [[axis + 2 for axis in some] for n in range(len(axes) + 1) for some in combinations(axes, n)]
            parts = [self.run(windows.flip(dims), network).flip(dims) for dims in flips]
            return torch.stack(parts).mean(dim=0)

        found: Tensor = self.slide(inputs.as_subclass(Tensor), logits)
        return found

    def windows(self, shape: tuple[int, ...]) -> int:
        """Number of windows that cover an image of ``shape``."""
        # As MONAI counts them: an image smaller than the window is padded to it.
        padded = tuple(max(n, w) for n, w in zip(shape, self.stage.size, strict=True))
        steps = tuple(w if w == n else max(int(w * (1 - OVERLAP)), 1) for n, w in zip(padded, self.stage.size, strict=True))
        return len(dense_patch_slices(padded, tuple(self.stage.size), steps))
