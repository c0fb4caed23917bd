"""Segmentation of one volume, and the time of each step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stseg3d.machine.memory import peak_memory_bytes
from stseg3d.ops.boxes import DroppedComponent, ProposedBox
from stseg3d.volumes import ArrayVolume


@dataclass
class Segmentation:
    """Segmentation of one volume, in the axis order of its file.

    Attributes:
        labels: Labels, or instance ids, of the volume's shape, in the smallest unsigned type.
        probabilities: Foreground probabilities ``(K - 1, *S)``, float16, if asked for.
        boxes: Boxes that were used, on the volume's own grid.
        dropped: Components that got no box, and why; on the volume's own grid.
        counts: Components and boxes: found, dropped, split, merged, clipped, grown, crops run.
        seconds: Wall time of each step.
        peak_bytes: Largest memory of the process until the end of each step.
        warnings: Warnings for the user, a sentence each.
        rough: Foreground probability on the rough grid, along the axes that networks see; None if boxes were given.
    """

    labels: NDArray[Any]
    probabilities: NDArray[np.float16] | None = None
    boxes: list[ProposedBox] = field(default_factory=list)
    dropped: list[DroppedComponent] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    rough: ArrayVolume | None = None


class Stopwatch:
    """Wall seconds of named steps, summed over repetitions, and the process's largest memory until their end."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.peak_bytes: dict[str, int] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time the block under ``name``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 4)
            self.peak_bytes[name] = peak_memory_bytes()
