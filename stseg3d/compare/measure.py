"""Scores of every case of a data set in one way, measured in a separate process so that peak memory is of this way alone."""

from __future__ import annotations

import logging
import multiprocessing
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from tqdm import tqdm

from stseg3d.compare.comparison import Score
from stseg3d.compare.runs import Run
from stseg3d.compare.ways import Contestant, Found
from stseg3d.geometry import Box
from stseg3d.machine.memory import peak_memory_bytes
from stseg3d.machine.tables import without_nan
from stseg3d.metrics import score_masks, score_objects
from stseg3d.ops import box_coverage
from stseg3d.ops.components import structure
from stseg3d.planning.measure import open_labelled
from stseg3d.volumes import ArrayVolume, Case, Label, output_name, write_labels

INSTANCES = "instances"


@dataclass(frozen=True)
class Task:
    """One way at one size, on all cases."""

    run: Run  # run with the networks
    way: str  # one of `stseg3d.compare.comparison.WAYS`
    cases: Sequence[Case]  # labelled cases
    predictions: Path  # folder for the label maps
    device: str = "cpu"  # device of the networks
    threads: int | None = None  # CPU threads; torch's choice by default


@dataclass
class Measured:
    """Measurements of a task."""

    scores: list[Score] = field(default_factory=list)  # score of each case, without memory
    boxes: dict[str, list[Box]] = field(default_factory=dict)  # boxes by case, on the image's grid
    box_share: dict[str, float] = field(default_factory=dict)  # share of the field of view in the boxes, by case
    downscaling: dict[str, float] = field(default_factory=dict)  # largest ratio of a rough voxel to an image voxel, by case
    parameters: int = 0  # weights of the networks that were run
    peak_memory_bytes: int = 0  # peak memory of the process

    def as_dict(self) -> dict[str, Any]:
        """The measurements as JSON."""
        boxes = {case: [[b.start, b.stop] for b in own] for case, own in self.boxes.items()}
        content: dict[str, Any] = without_nan(asdict(self) | {"boxes": boxes})
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`as_dict`."""
        boxes = {case: [Box(tuple(start), tuple(stop)) for start, stop in own] for case, own in content["boxes"].items()}
        return cls(**{**content, "scores": [Score.from_dict(s) for s in content["scores"]], "boxes": boxes})


def measure_alone(task: Task) -> Measured:
    """Measurements of :func:`measure` in a new process, so that peak memory is that of this way and size alone."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=_be_quiet) as pool:
        try:
            return pool.submit(measure, task).result()
        except BrokenProcessPool as error:
            msg = f"{task.way} at {task.run.size}: the process that measures it was killed, perhaps for want of memory"
            raise RuntimeError(msg) from error


def _be_quiet() -> None:
    """Silence third parties' warnings, and our own for each case that two stages may not help: the advice says it once."""
    warnings.simplefilter("ignore")
    logging.getLogger("stseg3d").setLevel(logging.ERROR)


def measure(task: Task) -> Measured:
    """Segment and score all cases of a task, write the label maps.

    Raises:
        ValueError: If a case cannot be read, or its label lies on another grid; the message names the case.
    """
    if task.threads:
        torch.set_num_threads(task.threads)
    contestant = Contestant(task.run.folder, task.run.stages[-1], task.device, trust=task.run.trust)
    measured = Measured(parameters=contestant.parameters(task.way))
    for case in tqdm(task.cases, desc=f"{task.way} at {task.run.nominal_size}", unit="case", disable=None):
        try:
            _measure_case(contestant, task, case, measured)
        except ValueError as error:
            msg = f"{case.id}: {error}"
            raise ValueError(msg) from error
    measured.peak_memory_bytes = peak_memory_bytes()
    return measured


def _measure_case(contestant: Contestant, task: Task, case: Case, measured: Measured) -> None:
    start = time.perf_counter()
    instances = contestant.inferer.output.kind == INSTANCES
    volume, truth = open_labelled(case, "objects" if instances else "foreground")
    volume.read()
    read_s = time.perf_counter() - start
    found = contestant.segment(task.way, volume, ArrayVolume(truth.classes[None], volume.grid, str(case.label)))
    # The rough network alone has the boxes that it would propose; a sliding window sees all.
    boxes = contestant.rough_boxes(volume) if found.boxes is None and task.way != "sliding_window" else found.boxes or []
    grid = volume.grid
    values = score_found(contestant, found, truth, grid.spacing_mm)
    measured.scores.append(
        Score(
            case=case.id,
            way=task.way,
            size=task.run.size,
            nominal_size=task.run.nominal_size,
            values=values,
            coverage=1.0 if task.way == "sliding_window" else box_coverage(truth.classes, boxes),
            macs=found.macs,
            seconds={"read": read_s} | found.seconds,
            boxes=len(found.boxes or ()),
        )
    )
    measured.boxes[case.id] = found.boxes or []
    measured.box_share[case.id] = min(sum(b.voxels for b in found.boxes or ()) / grid.box.voxels, 1.0)
    view = contestant.inferer.view(volume).grid
    rough = contestant.rough.shape_of(view)
    measured.downscaling[case.id] = max((n / r for n, r in zip(view.shape, rough, strict=True) if n > 1), default=1.0)
    task.predictions.mkdir(parents=True, exist_ok=True)
    write_labels(found.labels, task.predictions / output_name(case.id), volume)


def score_found(contestant: Contestant, found: Found, truth: Label, spacing_mm: Sequence[float]) -> dict[str, float]:
    """Metrics of a segmented case by name, for the foreground and for objects.

    Objects are the instances, if the bundle and the way give any, else connected components. What the ground truth ignores is cleared.
    """
    instances = contestant.inferer.output.kind == INSTANCES
    labels = truth.clear(found.labels)
    ours, theirs = _objects(labels, given=instances and found.boxes is not None), _objects(truth.classes, given=instances)
    masks = score_masks(labels, truth.classes, spacing_mm, ignored_voxels=truth.ignored_voxels)
    return masks | score_objects(ours, theirs, objects="labels")


def _objects(labels: NDArray[Any], *, given: bool) -> NDArray[Any]:
    """Ids of objects: the label map's own where it has them, else its connected components."""
    if given:
        return labels
    ids: NDArray[np.int32] = ndimage.label(labels > 0, structure(labels.ndim, 26))[0]
    return ids
