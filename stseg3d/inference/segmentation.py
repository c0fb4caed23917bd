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
    """Segmentation of one volume, in the axis order of its file."""

    labels: NDArray[Any]  # labels, or instance ids, of the volume's shape, in the smallest unsigned type
    probabilities: NDArray[np.float16] | None = None  # foreground probabilities `(K - 1, *S)`, float16, if asked for
    boxes: list[ProposedBox] = field(default_factory=list)  # boxes that were used, on the volume's own grid
    dropped: list[DroppedComponent] = field(default_factory=list)  # components that got no box, and why; on the volume's own grid
    counts: dict[str, int] = field(default_factory=dict)  # components and boxes: found, dropped, split, merged, clipped, grown, crops run
    seconds: dict[str, float] = field(default_factory=dict)  # wall time of each step
    peak_bytes: dict[str, int] = field(default_factory=dict)  # largest memory of the process until the end of each step
    warnings: list[str] = field(default_factory=list)  # warnings for the user, a sentence each
    rough: ArrayVolume | None = None  # foreground probability on the rough grid, along the axes that networks see; None if boxes were given


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
