"""The four ways to segment a case, each with its boxes, time and multiply-adds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from stseg3d.bundle import INFERENCE, config_parser, load_weights, open_bundle
from stseg3d.geometry import Box
from stseg3d.inference import SegmentThenSegmentInferer, Stage
from stseg3d.inference.segmentation import Stopwatch
from stseg3d.networks import RoughFineNet
from stseg3d.ops.boxes import Proposal
from stseg3d.training import FineBoxesd
from stseg3d.training.sliding_window import SlidingWindow
from stseg3d.training.stages import trained_stage
from stseg3d.volumes import CanonicalVolume, OpenCase, Volume


@dataclass
class Found:
    """Result of one way for one case."""

    labels: NDArray[Any]  # label map or instances, of the volume's shape
    boxes: list[Box] | None = None  # boxes that were used, on the volume's grid; None for ways without boxes
    seconds: dict[str, float] = field(default_factory=dict)  # wall time by stage, without reading the file
    macs: float = 0.0  # multiply-adds of all networks


@dataclass(frozen=True)
class TrueBoxProposer:
    """Proposer of the boxes that the policy makes from ground truth on the rough grid, as in training: a perfect rough stage."""

    label: Volume
    boxes: FineBoxesd

    def propose(self, volume: Volume) -> Proposal:
        """Boxes of the ground truth."""
        foreground = (self.label.read()[0] > 0).astype(np.uint8)
        found: Proposal = self.boxes({"case": OpenCase(volume, foreground)})["proposal"]
        return found


class Contestant:
    """The networks of one run on one device, the fine one or the rough one alone, with the ways of segmenting that they serve."""

    def __init__(self, folder: Path, stage: str = "fine", device: str = "cpu", *, trust: bool = False) -> None:
        parser = config_parser(open_bundle(folder, trust=trust), [INFERENCE.name], device=device)
        network = cast(RoughFineNet, parser.get_parsed_content("network_def"))
        weights = trained_stage(folder, stage)
        if weights is None:
            msg = f"{folder}: the {stage} stage must be trained before it is compared, got no weights"
            raise FileNotFoundError(msg)
        load_weights(network, weights)
        self.network = network.to(parser.get_parsed_content("device")).eval()
        self.inferer: SegmentThenSegmentInferer = parser.get_parsed_content("inferer")
        if self.inferer.rough is None:
            msg = f"{folder}: plan must have a rough stage to be compared with, got one stage"
            raise ValueError(msg)
        self.rough = self.inferer.rough
        output = replace(self.inferer.output, largest_only=(), min_volume_mm3={})  # which the other ways do not have
        self.inferer.output = replace(output, kind="labels") if output.kind == "probabilities" else output
        self.slide = SlidingWindow(self.inferer.fine, precision=self.inferer.execution.precision, mirror=True)

    def segment(self, way: str, volume: Volume, label: Volume) -> Found:
        """Segment a volume that has been read, in one of :data:`stseg3d.compare.comparison.WAYS`; only ``true_boxes`` uses the label."""
        for macs in {"rough_only": ["rough_macs"], "two_stage": ["rough_macs", "fine_macs"]}.get(way, ["fine_macs"]):
            getattr(self, macs)  # counted once, outside the time of any case; the first run of a network is the slowest
        whole: dict[str, Callable[[Volume], Found]] = {"rough_only": self._rough_only, "sliding_window": self._sliding_window}
        start = time.perf_counter()
        found = whole[way](volume) if way in whole else self._boxed(volume, label if way == "true_boxes" else None)
        found.seconds["total"] = time.perf_counter() - start
        return found

    def _rough_only(self, volume: Volume) -> Found:
        clock = Stopwatch()
        with clock("rough"):
            labels = self.inferer.rough_only(volume, self.network)
        return Found(labels, None, clock.seconds, self.rough_macs)

    def _boxed(self, volume: Volume, label: Volume | None) -> Found:
        """Boxes of the rough network, or of ground truth if it is given."""
        inferer = self.inferer
        proposer = None
        if label is not None:
            turned = CanonicalVolume(label, inferer.image.axcodes or volume.grid.orientation)
            proposer = TrueBoxProposer(turned, FineBoxesd(inferer.rough, inferer.fine, inferer.policy))
        found = inferer.segment(volume, self.network, proposer)
        macs = (self.rough_macs if label is None else 0.0) + found.counts.get("crops", 0) * self.fine_macs
        return Found(found.labels, [b.box for b in found.boxes], dict(found.seconds), macs)

    def _sliding_window(self, volume: Volume) -> Found:
        clock = Stopwatch()
        view = self.inferer.view(volume)
        with clock("fine"), torch.inference_mode():
            image = self.inferer.fine.prepare(np.ascontiguousarray(view.read(), dtype=np.float32))[None]
            logits = self.slide(image.to(next(self.network.parameters()).device), self.network.fine)[0]
            classes = logits.argmax(dim=0) if len(logits) > 1 else logits[0] > 0
        labels = view.restore(classes.cpu().numpy().astype(np.uint8))
        return Found(labels, None, clock.seconds, self.slide.windows(view.grid.shape) * self.fine_macs)

    def rough_boxes(self, volume: Volume) -> list[Box]:
        """Boxes that the rough network proposes, on the volume's grid, before the fine stage grows any."""
        view = self.inferer.view(volume)
        return [view.source_box(b.box) for b in self.inferer.rough_stage(self.network).propose(view).boxes]

    @cached_property
    def rough_macs(self) -> float:
        """Multiply-adds of the rough stage on one image, mirrored runs included."""
        return multiply_adds(self.network.rough, self.rough, self.inferer.image.channels)

    @cached_property
    def fine_macs(self) -> float:
        """Multiply-adds of the fine stage on one crop, mirrored runs included."""
        return multiply_adds(self.network.fine, self.inferer.fine, self.inferer.image.channels)

    def parameters(self, way: str) -> int:
        """Weights of the networks that a way runs."""
        networks = {"rough_only": [self.network.rough], "two_stage": [self.network.rough, self.network.fine]}
        return sum(p.numel() for network in networks.get(way, [self.network.fine]) for p in network.parameters())


def multiply_adds(network: nn.Module, stage: Stage, in_channels: int, shape: Sequence[int] | None = None) -> float:
    """Multiply-adds of convolutions and matrix products of one input of a stage, or of this shape, times its mirrored runs.

    ``in_channels`` are those of the image, without the rough one.
    """
    parameter = next(network.parameters())
    channels = in_channels + int(stage.rough_channel)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.zeros((1, channels, *(shape or stage.size)), device=parameter.device, dtype=parameter.dtype))
    flops = int(counter.get_total_flops())
    return flops / 2 * float(2 ** len(stage.mirror_axes))
