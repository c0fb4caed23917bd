"""One module that holds both networks, so that a bundle has one ``network_def`` and one ``model.pt``."""

from __future__ import annotations

from torch import Tensor, nn

STAGES = ("rough", "fine")


class RoughFineNet(nn.Module):
    """The rough and the fine network side by side.

    Tools that load a MONAI bundle load one state dict into one module: this one. The state dict holds ``rough.*`` and ``fine.*``.
    ``forward`` runs one of the two, so that trainers and checks see an ordinary network.

    Args:
        rough: Network of the small resampled volume, ``(B, C, *rough_size) -> (B, K, *rough_size)`` logits; None for a bundle of one
            stage.
        fine: Network of the crops, ``(B, C, *fine_size) -> (B, K, *fine_size)`` logits.
        active: Which one ``forward`` and :meth:`active_parameters` use: ``"rough"`` or ``"fine"``.

    Raises:
        ValueError: If ``active`` is another name.
    """

    def __init__(self, rough: nn.Module | None, fine: nn.Module, active: str = "fine") -> None:
        super().__init__()
        if active not in STAGES:
            msg = f"active must be one of {STAGES}, got {active!r}"
            raise ValueError(msg)
        self.rough = rough or nn.Identity()  # TorchScript could not call None
        self.fine = fine
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the active network."""
        # Written out, since TorchScript cannot look a submodule up by name.
        logits: Tensor = self.rough(x) if self.active == "rough" else self.fine(x)
        return logits

    def active_parameters(self) -> list[nn.Parameter]:
        """Parameters of the active network, for an optimizer that must not change the other."""
        return list(getattr(self, self.active).parameters())
