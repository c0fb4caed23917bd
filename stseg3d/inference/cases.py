"""A case on its way from file to file: opened, found, written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stseg3d.geometry import Box
from stseg3d.inference.inferer import Segmentation, Stopwatch
from stseg3d.volumes import Case, Volume


@dataclass(frozen=True)
class Outcome:
    """What became of one case.

    Attributes:
        case_id: Name of the case.
        output: The file that was written.
        provenance: Content of the JSON beside it.
        boxes: Boxes as they were used, in voxels of the file.
    """

    case_id: str
    output: Path
    provenance: dict[str, Any]
    boxes: list[Box]


@dataclass(frozen=True)
class OpenedCase:
    """A case whose image is open, and what is wanted of it.

    Attributes:
        case: The case.
        volume: Its image; voxels come when they are first asked for.
        output_dir: Folder for its files.
        mask: See :meth:`stseg3d.inference.segment.Segmenter.segment`, as for the next two.
        boxes: See there.
        keep_rough: See there.
        clock: Of its stages.
    """

    case: Case
    volume: Volume
    output_dir: Path
    mask: Path | None
    boxes: Path | None
    keep_rough: bool
    clock: Stopwatch

    @property
    def held_bytes(self) -> int:
        """What all voxels of the image take in memory; of a mapped file only those of a box ever are."""
        return self.volume.grid.box.voxels * self.volume.channels * self.volume.dtype.itemsize

    def read_ahead(self) -> None:
        """Have the voxels of a compressed file, or of a series, in memory before they are asked for; the time counts as that of opening.

        Raises:
            OSError: If the file cannot be read.
            ValueError: If it is broken.
        """
        with self.clock("open"):
            self.volume.read(Box((0,) * self.volume.grid.ndim, (1,) * self.volume.grid.ndim))  # from the first box on they are kept


@dataclass(frozen=True)
class FoundCase:
    """A case whose labels are known and not written yet; the voxels of its image are not held any more.

    Attributes:
        opened: What it was made of.
        found: The labels, and what is to be known about them.
        how: Where the boxes came from.
    """

    opened: OpenedCase
    found: Segmentation
    how: str

    @property
    def held_bytes(self) -> int:
        """What labels and probabilities take in memory."""
        return self.found.labels.nbytes + (0 if self.found.probabilities is None else self.found.probabilities.nbytes)
