"""Convolutions of a single crop on the CPU, by oneDNN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

# input, weight, bias, stride, padding, dilation, groups
CONVOLUTION_ARGUMENTS = 7


class LoneCrops(TorchFunctionMode):
    """Context in which 3-D convolutions of a batch of one run in oneDNN, like those of larger batches.

    PyTorch leaves a float32 convolution to oneDNN if the batch holds two crops, but for a single crop only if its channels times its
    first two extents exceed 20480, a rule made for 2-D images (``ConvParams::use_mkldnn`` in ``aten/src/ATen/native/Convolution.cpp``,
    PyTorch 2.13). Otherwise its own code takes about four times as long (``tests/benchmarks/bench_networks.py``). The rough network
    always sees one image, and the fine one often a single crop. Other operations, devices and types are unchanged.
    """

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run ``func``, or oneDNN in its place."""
        if func is torch.conv3d and not kwargs and len(args) == CONVOLUTION_ARGUMENTS and _is_lone(args[0], args[1], args[4]):
            image, weight, bias, stride, padding, dilation, groups = args
            return torch.mkldnn_convolution(image, weight, bias, padding, stride, dilation, groups)
        return func(*args, **(kwargs or {}))


def _is_lone(image: torch.Tensor, weight: torch.Tensor, padding: str | Sequence[int]) -> bool:
    # PyTorch is quicker with kernels of one voxel. Autocast would have to change types first, and bfloat16 goes to oneDNN anyway.
    return (
        image.ndim == weight.ndim == 5
        and len(image) == 1
        and max(weight.shape[2:]) > 1
        and not isinstance(padding, str)
        and image.dtype == weight.dtype == torch.float32
        and image.device.type == "cpu"
        and image.layout == torch.strided
        and not torch.is_autocast_enabled("cpu")
        and bool(torch.backends.mkldnn.enabled)
        and not torch.compiler.is_compiling()  # a compiled network chooses for itself
    )
