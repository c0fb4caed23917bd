"""What losses and metrics see of a network's output: each head of deep supervision, and only voxels that are not ignored.

The heads come as MONAI's ``DynUNet(deep_supervision=True)`` stacks them: ``(B, heads, K, *S)``, the full-resolution one first.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.losses.ds_loss import DeepSupervisionLoss
from monai.transforms.transform import Transform
from torch import Tensor, nn

from stseg3d.training.samples import IGNORED


class KnownVoxelsLoss(nn.Module):
    """A loss on the voxels of each sample that are not ignored; a batch without such voxels is seen as it is.

    MONAI's ``MaskedLoss`` multiplies logits and labels by a mask instead: its cross-entropy still counts masked voxels, as background of
    an undecided network.

    Args:
        loss: Loss of logits ``(B, K, *S)`` and labels ``(B, 1, *S)`` in which the place of a voxel does not matter.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Mean over the samples; those that are ignored as a whole are left out, and without any other the loss is 0."""
        known = label.as_subclass(Tensor)[:, 0] != IGNORED
        if known.all():
            found: Tensor = self.loss(logits, label)
            return found
        samples = zip(logits, label, known, strict=True)
        losses = [self.loss(ours[:, here][None], theirs[:, here][None]) for ours, theirs, here in samples if here.any()]
        return torch.stack(losses).mean() if losses else logits.sum() * 0


class HeadsLoss(nn.Module):
    """A loss of logits ``(B, K, *S)`` and labels ``(B, 1, *S)`` on one head or on all, its weight halved from head to head.

    Ignored voxels are left out, see :class:`KnownVoxelsLoss`.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = KnownVoxelsLoss(loss)
        self.heads = DeepSupervisionLoss(self.loss, weight_mode="exp")

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Loss of ``(B, K, *S)``, or weighted sum over the heads of ``(B, heads, K, *S)``."""
        if logits.ndim == label.ndim:
            found: Tensor = self.loss(logits, label)
            return found
        weighted: Tensor = self.heads(list(logits.unbind(dim=1)), label)
        return weighted


class FullResolutiond(Transform):
    """Reduces ``pred``, a sample's logits of one or of all heads, to the full-resolution head; clears what is ignored, for metrics."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The sample with full-resolution logits; the axes of ``label`` tell whether there are several heads.

        Where the label is ignored, label and logits, or predicted labels, are 0: both are background, as the first of equal logits counts.
        """
        out = dict(data)
        if out["pred"].ndim > out["label"].ndim:
            out["pred"] = out["pred"][0]
        ignored = out["label"] == IGNORED
        if ignored.any():
            out |= {key: out[key].masked_fill(ignored, 0) for key in ("pred", "label")}
        return out
