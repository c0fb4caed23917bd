"""Stage: what one of the two networks is given, and how its intensities are prepared."""

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
    """Input of the rough or the fine network: :class:`stseg3d.plan.NetworkInput`, and what is done to its intensities.

    Args:
        transform: MONAI array transform (or any callable) on the resampled image, ``(C, *size)`` to ``(C, *size)``: intensities only.
            Build it from transforms without randomness; it runs on the small volume and on crops, never on the whole volume. It is given
            a tensor; one of a crop lies on the fine network's device.
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
