"""Coverage of labelled cases by the boxes of each policy of a chain; the rough network runs once per case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from stseg3d.bundle import load_network, select_device
from stseg3d.geometry import Box
from stseg3d.inference import SegmentThenSegmentInferer
from stseg3d.inference.propose import WholeProposer
from stseg3d.metrics.surfaces import tight_slices
from stseg3d.networks import RoughFineNet
from stseg3d.ops import BoxPolicy, box_coverage, propose_boxes
from stseg3d.planning.settings import margin_name
from stseg3d.volumes import Case, Label, Meaning, Volume, load_dataset, open_volume, read_label

# Fixed before any case is seen, as the guarantee requires, and independent of the bundle's present values, so that calibrating twice gives
# the same answer.
THRESHOLDS = (0.5, 0.4, 0.3, 0.2, 0.1, 0.05)
MARGINS = {"margin_mm": (0, 1, 2, 3, 4, 6, 8, 10, 12, 16, 20), "margin_rough_voxels": (0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4)}
PARTS = ("training", "validation", "test")


@dataclass(frozen=True)
class Measured:
    """Results of each policy on one case, one entry per policy."""

    case: str  # id of the case
    loss: NDArray[np.float64]  # share of the labelled voxels outside all boxes; 0 where nothing is labelled
    boxes: NDArray[np.int64]  # number of boxes, each a run of the fine network
    voxels: NDArray[np.int64]  # full-resolution voxels read: the sum over boxes


def labelled_cases(data: Path, part: str) -> list[Case]:
    """Cases with a label in one part of a ``dataset.json``, which may be given by its folder.

    Raises:
        FileNotFoundError: If it, or a file that it lists, does not exist.
        ValueError: If it is not a ``dataset.json``, has no such part, or lists no labelled case in that part.
    """
    if part not in PARTS:
        msg = f"part must be of {', '.join(PARTS)}, got {part!r}"
        raise ValueError(msg)
    cases: list[Case] = [case for case in getattr(load_dataset(data), part) if case.label is not None]
    if not cases:
        msg = f"{data}: file must list cases with labels under {part!r}, got none"
        raise ValueError(msg)
    return cases


def open_labelled(case: Case, meaning: Meaning) -> tuple[Volume, Label]:
    """Image and ground truth of a case.

    Raises:
        ValueError: If the case has no label, or :func:`stseg3d.volumes.read_label` refuses it.
    """
    if case.label is None:
        msg = f"{case.image}: case must have a label, got none"
        raise ValueError(msg)
    image = open_volume(case.image, channels_last=True)
    return image, read_label(case.label, image, case.label_values, meaning=meaning)


def policy_chain(policy: BoxPolicy, margin: str, thresholds: Sequence[float], margins: Sequence[float]) -> list[BoxPolicy]:
    """Policies from the least to the most careful: a staircase from the highest threshold without margin to the lowest with the widest.

    Raises:
        ValueError: If there is no threshold or no margin, or one is out of range.

    Example:
        >>> [(p.threshold, p.margin_mm) for p in policy_chain(BoxPolicy(), "margin_mm", (0.2, 0.5), (0, 2, 4))]
        [(0.5, 0), (0.5, 2), (0.2, 2), (0.2, 4)]
    """
    if not thresholds or not margins:
        msg = f"thresholds and margins must not be empty, got {tuple(thresholds)} and {tuple(margins)}"
        raise ValueError(msg)
    down, up = sorted(set(thresholds), reverse=True), sorted(set(margins))
    # Both reach their ends together: steps are sorted by their fraction of the way, on ties the margin's first.
    steps = [(i / len(up), True) for i in range(1, len(up))] + [(i / len(down), False) for i in range(1, len(down))]
    t = m = 0
    stairs = [(t, m)]
    for _, wider in sorted(steps, key=lambda step: (step[0], not step[1])):
        t, m = (t, m + 1) if wider else (t + 1, m)
        stairs.append((t, m))
    changes: list[dict[str, Any]] = [{"threshold": down[t], margin: up[m]} for t, m in stairs]
    return [replace(policy, **change) for change in changes]


class Calibrator:
    """Measures how much of a case the policies of a chain, and the bundle's own, put into boxes.

    Args:
        bundle: Folder of the bundle.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        thresholds: Thresholds of the chain, see :func:`policy_chain`.
        margins: Margins of the chain, in mm if the bundle's policy names ``margin_mm``, else in rough voxels.
        trust: Run any code that the bundle's configs name, see :func:`stseg3d.bundle.read_bundle`.

    Attributes:
        margin: Name of the margin that is calibrated.
        chain: Policies from the least to the most careful.
        own: The bundle's present policy, measured last and not part of the chain.

    Raises:
        OSError: If the bundle lacks a file.
        ValueError: If it cannot be loaded, its boxes are not those of its rough network, or a threshold or margin is out of range.
    """

    def __init__(
        self,
        bundle: Path,
        device: str = "auto",
        thresholds: Sequence[float] = THRESHOLDS,
        margins: Sequence[float] | None = None,
        *,
        trust: bool = False,
    ) -> None:
        network, parser = load_network(bundle, select_device(device), trust=trust)
        inferer: Any = parser.get_parsed_content("inferer")
        if not isinstance(inferer, SegmentThenSegmentInferer) or inferer.proposer is not None:
            msg = f"bundle {bundle}: inferer must be a SegmentThenSegmentInferer whose boxes come from its rough network"
            msg += f", got {type(inferer).__name__}"
            raise ValueError(msg)
        if inferer.rough is None:
            msg = f"bundle {bundle}: plan must have a rough stage for its boxes to be calibrated, got one stage"
            raise ValueError(msg)
        self.network, self.inferer, self.own = cast(RoughFineNet, network), inferer, inferer.policy
        self.margin = margin_name(bundle)
        self.chain = policy_chain(self.own, self.margin, thresholds, MARGINS[self.margin] if margins is None else margins)

    @property
    def crop_voxels(self) -> int:
        """Voxels of one input of the fine network."""
        return prod(self.inferer.fine.size)

    def measure(self, case: Case) -> Measured:
        """Coverage of the case's label by the boxes of each policy of the chain, and of the present one; ignored voxels do not count.

        At inference a box may still grow where the fine mask touches its border, which is not counted here.

        Raises:
            ValueError: If the case has no label, the image does not fit the networks, or the label not the image or the data set.
        """
        image, label = open_labelled(case, "foreground")
        view, fine = self.inferer.checked_view(image), self.inferer.fine.size
        classes = self.inferer.rough_stage(self.network).classes(view)
        rough = view.grid.resized(classes.shape[1:])
        found = []
        for policy in (*self.chain, self.own):
            proposal = propose_boxes(classes, rough, view.grid, fine, policy)
            if not proposal.boxes and self.inferer.output.when_empty == "tile":
                proposal = WholeProposer(policy, fine).propose(view)
            found.append([b.box for b in proposal.boxes])
        mask = view.view(label.classes) > 0
        # Less work for each policy: the objects lie in a part of the image.
        origin = Box.from_slices(tight_slices(mask)) if mask.any() else view.grid.box
        return Measured(
            case.id,
            loss=np.array([1 - box_coverage(mask[origin.slices], [b.relative_to(origin) for b in boxes]) for boxes in found]),
            boxes=np.array([len(boxes) for boxes in found]),
            voxels=np.array([sum(b.voxels for b in boxes) for boxes in found]),
        )
