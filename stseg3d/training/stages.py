"""The files that training leaves between its stages, and how they become one ``model.pt``."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from stseg3d.bundle import WEIGHTS, read_weights, save_weights
from stseg3d.networks.composite import STAGES

# Kept out of models/*.pt: MONAI Label offers every file there to the user as a model.
STAGES_DIR = Path("models", "stages")


def trained_stage(bundle: Path, stage: str) -> Path | None:
    """File with the newest weights ``<stage>.*``: the stage's own or the composite; None if there are none."""
    return next((p for p in (bundle / STAGES_DIR / f"{stage}.pt", bundle / WEIGHTS) if p.is_file()), None)


def stage_weights(path: Path, stage: str) -> dict[str, Tensor]:
    """State dict of one of the two networks, from that of a composite in a file."""
    return {name.removeprefix(f"{stage}."): tensor for name, tensor in read_weights(path).items() if name.startswith(f"{stage}.")}


def assemble(bundle: str | Path) -> Path | None:
    """Write the composite ``models/model.pt`` from the best checkpoint of each stage, as float16; None if one is still to be trained.

    A stage that was not trained keeps the weights it has in ``models/model.pt``.

    Returns:
        Path of the file, or None if one stage is still to be trained.
    """
    bundle = Path(bundle)
    state: dict[str, Tensor] = {}
    for stage in reversed(STAGES):
        source = trained_stage(bundle, stage)
        if source is None:
            return None
        state |= {f"{stage}.{name}": tensor for name, tensor in stage_weights(source, stage).items()}
        if stage == "fine" and not stage_weights(source, "rough"):
            break  # the composite of one stage
    return save_weights(state, bundle / WEIGHTS)
