"""Deep supervision: the loss of a network with several heads in training, and the one head that metrics use.

The heads come as MONAI's ``DynUNet(deep_supervision=True)`` stacks them: ``(B, heads, K, *S)``, the full-resolution one first.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.losses.ds_loss import DeepSupervisionLoss
from monai.transforms.transform import Transform
from torch import Tensor, nn


class HeadsLoss(nn.Module):
    """A loss of logits ``(B, K, *S)`` and labels ``(B, 1, *S)`` on one head or on all, its weight halved from head to head."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss, self.heads = loss, DeepSupervisionLoss(loss, weight_mode="exp")

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Loss of ``(B, K, *S)``, or weighted sum over the heads of ``(B, heads, K, *S)``."""
        if logits.ndim == label.ndim:
            found: Tensor = self.loss(logits, label)
            return found
        weighted: Tensor = self.heads(list(logits.unbind(dim=1)), label)
        return weighted


class FullResolutiond(Transform):
    """Reduces ``pred``, a sample's logits of one or of all heads, to the full-resolution head, for metrics."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The sample with full-resolution logits; the axes of ``label`` tell whether there are several heads."""
        out = dict(data)
        if out["pred"].ndim > out["label"].ndim:
            out["pred"] = out["pred"][0]
        return out
