"""Stage: the input of one of the two networks, and how its intensities are prepared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stseg3d.plan import NetworkInput


@dataclass(frozen=True)
class Stage(NetworkInput):
    """Input of the rough or the fine network: :class:`stseg3d.plan.NetworkInput` with a transform of intensities.

    Args:
        transform: MONAI array transform (or any callable) of the resampled image, ``(C, *size)`` to ``(C, *size)``: intensities only.
            Build it from transforms without randomness. It runs on the small volume and on crops, never on the whole volume. It gets
            a tensor, for a crop on the fine network's device.
    """

    transform: Callable[[Tensor], Tensor] | None = None

    def prepare(self, image: NDArray[np.float32] | Tensor) -> Tensor:
        """Network input ``(C, *size)``, float32, of an image already resampled to ``size``; on the device of ``image``."""
        tensor = image if isinstance(image, Tensor) else torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
        if self.transform is None:
            return tensor
        out = torch.as_tensor(self.transform(tensor))
        # A MetaTensor would drag its metadata through every operation of the network.
        return out.as_subclass(Tensor).to(tensor.device, torch.float32)
