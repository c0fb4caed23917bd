"""Training samples of the fine network, as MONAI transforms: crops at the boxes of inference, plus jitter.

:class:`FineBoxesd` is worth caching; :class:`RandFineCropsd` is random.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import Randomizable, Transform
from numpy.typing import NDArray
from scipy import ndimage

from stseg3d.compute import Stage, network_input
from stseg3d.geometry import Box
from stseg3d.inference import WholeProposer
from stseg3d.ops.boxes import Proposal, ProposedBox, fit_box, propose_boxes
from stseg3d.ops.instances import seeds_on
from stseg3d.ops.policy import BoxPolicy
from stseg3d.training.rough_channel import corrupted
from stseg3d.training.samples import Data, class_fractions, label_tensor
from stseg3d.volumes import OpenCase

TARGETS = ("foreground", "component")
PLACES = 1000  # voxels of a class that are remembered


class FineBoxesd(Transform):
    """Adds the boxes that the policy makes from ground truth on the rough grid: ``{"proposal": Proposal, "predicted": ...}``.

    Ground truth is resampled to the rough grid like the image, so that objects merge and break there as they will at inference.

    Args:
        rough: Input of the rough network; None for one stage, whose boxes are the whole volume, in tiles.
        fine: Input of the fine network.
        policy: The box policy of inference.
        predictions: A rough network's probabilities ``(K - 1, *S)`` for cases that it has not seen, on the rough grid, by case id.
            ``"predicted"`` is the proposal that the policy makes from them, None for other cases.
        balance: Whether to add ``"places"``, voxels ``(n, axes)`` of each class that occurs, for a draw that is fair to rare classes.
    """

    def __init__(
        self,
        rough: Stage | None,
        fine: Stage,
        policy: BoxPolicy,
        predictions: Mapping[str, NDArray[Any]] | None = None,
        *,
        balance: bool = False,
    ) -> None:
        super().__init__()
        self.rough, self.fine, self.policy = rough, fine, policy
        self.predictions, self.balance = dict(predictions or {}), balance

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """The case, with ``"proposal"`` and ``"predicted"``.

        Raises:
            ValueError: If a prediction has another rough size.
        """
        case: OpenCase = data["case"]
        data = {**data, "places": _places(case.label)} if self.balance else data
        if self.rough is None:
            return {**data, "proposal": WholeProposer(self.policy, self.fine.size).propose(case.image), "predicted": None}
        grid = case.image.grid
        shape = self.rough.shape_of(grid)
        classes = class_fractions(case.label, shape, int(case.label.max()) + 1)[1:]
        foreground = classes.sum(axis=0)
        fullest = foreground.max(initial=0)
        if 0 < fullest < self.policy.threshold:
            # A thin object that reaches the threshold in no cell must still be learned: its fullest cells count.
            classes = classes / fullest
        proposal = propose_boxes(classes, grid.resized(shape), grid, self.fine.size, self.policy)
        return {**data, "proposal": replace(proposal, probability=foreground), "predicted": self._predicted(case, shape)}

    def _predicted(self, case: OpenCase, shape: tuple[int, ...]) -> Proposal | None:
        found = self.predictions.get(case.id)
        if found is None:
            return None
        if found.shape[1:] != shape:
            msg = f"{case.name}: prediction must have the rough size {shape}, got {found.shape[1:]}: train the rough stage anew"
            raise ValueError(msg)
        grid = case.image.grid
        return propose_boxes(found.astype(np.float32), grid.resized(shape), grid, self.fine.size, self.policy)


class RandFineCropsd(Randomizable, Transform):
    """Crops of a case for the fine network: a list of ``{"image": (C, *size), "label": (1, *size)}``.

    With ``stage.rough_channel`` they also have ``"rough"``, ``(1, *size)``: the prediction for the case, or else ground truth on the
    rough grid.

    Args:
        stage: Input of the fine network, as at inference.
        policy: The box policy of inference.
        samples: Crops of each case, drawn with replacement; None takes each box once, as for validation.
        shift: Largest translation of a box, as a fraction of its extent on each axis.
        scale: Largest change of each face, as a fraction of the box's extent: boxes grow and shrink.
        negatives: Probability that a crop is drawn anywhere in the volume, usually without an object, instead of at a box.
        predicted: Probability that a crop is drawn at a box from the prediction for its case, real or false, instead of from ground truth.
        balance: Probability that a crop is drawn at a voxel of a class that is drawn first, rare ones as often as common ones.
        corruption: Probability of each kind of corruption of ``"rough"``, see :func:`stseg3d.training.rough_channel.corrupted`; not
            used if ``samples`` is None.
        target: ``"foreground"`` is every labelled voxel in the crop, ``"component"`` only the component of its box.
        out_channels: Number of classes including background.

    Raises:
        ValueError: If ``target`` is unknown, or a probability is out of range.
    """

    def __init__(
        self,
        stage: Stage,
        policy: BoxPolicy,
        *,
        samples: int | None = 2,
        shift: float = 0.1,
        scale: float = 0.1,
        negatives: float = 0.0,
        predicted: float = 0.0,
        balance: float = 0.0,
        corruption: float = 0.25,
        target: str = "foreground",
        out_channels: int = 2,
    ) -> None:
        super().__init__()
        if target not in TARGETS:
            msg = f"target must be one of {TARGETS}, got {target!r}"
            raise ValueError(msg)
        for name, chance in {"negatives": negatives, "predicted": predicted, "balance": balance, "corruption": corruption}.items():
            if not 0 <= chance <= 1:
                msg = f"{name} must be a probability in [0, 1], got {chance}"
                raise ValueError(msg)
        self.stage, self.policy = stage, policy
        self.samples, self.shift, self.scale, self.negatives = samples, shift, scale, negatives
        self.predicted, self.balance, self.corruption = predicted, balance, corruption
        self.target, self.out_channels = target, out_channels

    def __call__(self, data: Data) -> list[dict[Hashable, Any]]:
        """Crops of the case; a case without objects gives crops without one.

        Raises:
            ValueError: If voxels are NaN or infinite, or a box is to be drawn from a missing prediction.
        """
        case, truth, prediction = data["case"], data["proposal"], data.get("predicted")
        rough = (prediction or truth) if self.stage.rough_channel else None
        if self.samples is None:
            boxes = truth.boxes or [self._elsewhere(case, [0.5] * case.label.ndim)]
            return [self._crop(case, truth, b, rough) for b in boxes]
        out = []
        for _ in range(self.samples):
            source = self._source(case, truth, prediction)
            box = self._draw(case, source, data.get("places", ()))
            out.append(self._crop(case, source, box, None if rough is None else corrupted(rough, self.R, self.corruption)))
        return out

    def _source(self, case: OpenCase, truth: Proposal, prediction: Proposal | None) -> Proposal:
        if not self.predicted or self.R.random() >= self.predicted:
            return truth
        if prediction is None:
            msg = f"{case.name}: predicted_boxes={self.predicted} needs a prediction for each training case: train with folds"
            raise ValueError(msg)
        return prediction if prediction.boxes else truth

    def _draw(self, case: OpenCase, proposal: Proposal, places: Sequence[NDArray[np.intp]]) -> ProposedBox:
        if self.balance and places and self.R.random() < self.balance:
            return self._at_class(case, proposal, places)
        if not proposal.boxes or self.R.random() < self.negatives:
            return self._elsewhere(case, self.R.random_sample(case.label.ndim))
        chosen = proposal.boxes[self.R.randint(len(proposal.boxes))]
        return ProposedBox(self._jittered(chosen.box, case.image.grid.shape), chosen.components)

    def _at_class(self, case: OpenCase, proposal: Proposal, places: Sequence[NDArray[np.intp]]) -> ProposedBox:
        """A box that holds a voxel of a random class: one of the policy's that is no tile, or one of the network's own size about it."""
        voxels = places[self.R.randint(len(places))]
        voxel = voxels[self.R.randint(len(voxels))]
        holding = [b for b in proposal.boxes if not b.tile and all(s.start <= v < s.stop for s, v in zip(b.box.slices, voxel, strict=True))]
        if holding:
            chosen = holding[self.R.randint(len(holding))]
            return ProposedBox(self._jittered(chosen.box, case.image.grid.shape), chosen.components)
        shape = np.array(case.image.grid.shape)
        size = np.array(next((b.box.shape for b in proposal.boxes if b.tile), self._own_size(case)))
        corner = np.clip(voxel - (self.R.random_sample(len(shape)) * size).astype(int), 0, np.maximum(shape - size, 0))
        return ProposedBox(Box.of(size).shift(corner).clip(tuple(shape)))

    def _own_size(self, case: OpenCase) -> tuple[int, ...]:
        """Size of a box that the fine network sees about as it is."""
        grid = case.image.grid
        return fit_box(
            Box.of(min(n, m) for n, m in zip(self.stage.size, grid.shape, strict=True)), grid, self.stage.size, self.policy
        ).shape

    def _jittered(self, box: Box, shape: Sequence[int]) -> Box:
        extent = np.array([n if whole > 1 else 0 for n, whole in zip(box.shape, shape, strict=True)])
        move = self.R.uniform(-self.shift, self.shift, len(extent)) * extent
        low, high = self.R.uniform(-self.scale, self.scale, (2, len(extent))) * extent
        start = np.round(box.start + move - low).astype(int)
        stop = np.maximum(np.round(box.stop + move + high).astype(int), start + 1)
        return Box(tuple(start), tuple(stop)).clip(shape) if (start < shape).all() and (stop > 0).all() else box

    def _elsewhere(self, case: OpenCase, place: Sequence[float]) -> ProposedBox:
        """A box of the fine network's own size, anywhere: ``place`` is 0 at the low end of each axis and 1 at the high one."""
        shape, size = case.image.grid.shape, self._own_size(case)
        start = [int(p * (max(n - m, 0) + 1)) for p, n, m in zip(place, shape, size, strict=True)]
        return ProposedBox(Box.of(size).shift(start).clip(shape))

    def _crop(self, case: OpenCase, proposal: Proposal, box: ProposedBox, rough: Proposal | None) -> dict[Hashable, Any]:
        image = network_input(case.image, self.stage, box.box)
        label = case.label[box.box.slices]
        if self.target == "component" and box.components:
            label = np.where(own_objects(label, proposal, box, case.label.shape), label, 0)
        ignored = None if case.ignored is None else case.ignored[box.box.slices]
        target = label_tensor(label, self.stage.size, self.out_channels, ignored)
        sample: dict[Hashable, Any] = {"image": MetaTensor(image), "label": MetaTensor(target)}
        if rough is not None:
            channel = rough.probability_in(box.box, case.label.shape, self.stage.size)
            sample["rough"] = MetaTensor(torch.from_numpy(channel))
        return sample


def _places(label: NDArray[np.uint8]) -> list[NDArray[np.intp]]:
    """Voxels ``(n, axes)`` of each class that occurs, at most :data:`PLACES` of each, evenly over its voxels."""
    found = []
    for value, place in enumerate(ndimage.find_objects(label), start=1):
        if place is not None:
            voxels = np.argwhere(label[place] == value) + [s.start for s in place]
            found.append(voxels[:: max(len(voxels) // PLACES, 1)])
    return found


def own_objects(label: NDArray[np.uint8], proposal: Proposal, box: ProposedBox, shape: Sequence[int]) -> NDArray[np.bool_]:
    """Mask of a crop's labelled voxels that belong to the rough components of its box.

    Args:
        label: Classes in the box, of shape ``box.box.shape``.
        proposal: Proposal with component ids on the rough grid.
        box: The box.
        shape: The image's shape.

    Returns:
        Mask of the crop: voxels whose nearest rough component is one of the box's own.
    """
    assert proposal.ids is not None
    from_rough = np.ascontiguousarray(seeds_on(box.box, proposal.ids, shape))
    nearest = ndimage.distance_transform_edt(from_rough == 0, return_distances=False, return_indices=True)
    return (label > 0) & np.isin(from_rough[tuple(nearest)], list(box.components))
