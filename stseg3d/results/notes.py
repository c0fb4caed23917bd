"""Notes on a case, ``<case>_seg.json`` beside its labels, read by a schema: the folder may come from anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from stseg3d.machine.files import open_regular
from stseg3d.machine.json_files import read_json
from stseg3d.plan.json_values import build
from stseg3d.results.journal import Amount, Count

NOTES_SUFFIX = "_seg.json"
MAX_BYTES = 2**26
MAX_BOXES = 1000  # that are read; more would neither be seen in a picture nor fit into a page
MAX_ENTRIES, MAX_LETTERS = 200, 200_000  # of the text that shows all notes
STAGES = ["open", "rough", "fine", "instances", "write"]

Voxels = Annotated[tuple[Annotated[int, -(2**31), 2**31], ...], 1, 3]
Millimetres = tuple[Annotated[float, -1e9, 1e9], ...]
Text = Annotated[str, 0, 4096]  # the longest path of Linux


@dataclass(frozen=True)
class NotedBox:
    """A box, in voxels and in world millimetres; ``volume_mm3`` and ``why`` are those of a component that got none."""

    start: Voxels
    stop: Voxels
    start_mm: Millimetres = ()
    stop_mm: Millimetres = ()
    components: Any = ()
    clipped: bool = False
    tile: bool = False
    volume_mm3: Amount | None = None
    why: Text = ""


@dataclass(frozen=True)
class NotedGrid:
    """Grid of the image."""

    shape: Annotated[tuple[Annotated[int, 1, 2**31], ...], 0, 4] = ()
    spacing_mm: Annotated[tuple[Annotated[float, 0, 1e9], ...], 0, 4] = ()
    orientation: Text = ""
    dtype: Text = ""


@dataclass(frozen=True)
class NotedRough:
    """File with the rough map, and the threshold of its mask."""

    path: Text = ""
    threshold: Annotated[float, 0, 1] = 0.5


@dataclass(frozen=True)
class Notes:
    """What :mod:`stseg3d.inference` writes beside labels, as far as it is shown.

    Attributes:
        input: Path of the image.
        output: Path of the labels as they were written.
        kind: Kind of output.
        boxes_from: Source of the boxes.
        device: Device of the networks.
        grid: Grid of the image.
        bundle: The bundle: name, version and so on.
        rough: The rough map; None if it was not kept.
        volume_ml: Volume of each label or instance.
        seconds: Wall time of each stage, and ``total``.
        stage_peak_bytes: Peak memory of the process until the end of each stage.
        peak_memory_bytes: Peak memory of the process.
        warnings: Warnings of the run, a sentence each.
        boxes: The first :data:`MAX_BOXES` boxes.
        dropped: The first :data:`MAX_BOXES` components without a box.
        box_count: Number of boxes.
        dropped_count: Number of components without a box.
        text: All notes, for people; long lists are cut.
    """

    input: Text = ""
    output: Text = ""
    kind: Text = "labels"
    boxes_from: Text = "unknown"
    device: Text = ""
    grid: NotedGrid = NotedGrid()
    bundle: Mapping[str, Any] = field(default_factory=dict)
    rough: NotedRough | None = None
    volume_ml: Mapping[str, Amount] = field(default_factory=dict)
    seconds: Annotated[Mapping[str, Amount], 0, 100] = field(default_factory=dict)
    stage_peak_bytes: Annotated[Mapping[str, Count], 0, 100] = field(default_factory=dict)
    peak_memory_bytes: Count | None = None
    warnings: tuple[str, ...] = ()
    boxes: tuple[NotedBox, ...] = ()
    dropped: tuple[NotedBox, ...] = ()
    box_count: int = 0
    dropped_count: int = 0
    text: str = ""

    @property
    def stage_seconds(self) -> dict[str, float]:
        """Wall time of each stage, in their order."""
        known = [name for name in STAGES if name in self.seconds]
        return {name: self.seconds[name] for name in [*known, *sorted(self.seconds.keys() - {*known, "total"})]}


def read_notes(path: Path) -> Notes:
    """Notes in a file; entries that are not in :class:`Notes` may be anything.

    Raises:
        OSError: If it is not a regular file or cannot be read.
        ValueError: If it is too large, not JSON, or an entry is of another type or beyond its bounds; the message names the entry.
    """
    with open(open_regular(path), "rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        msg = f"{path}: file must have at most {MAX_BYTES} bytes, got more"
        raise ValueError(msg)
    found = read_json(content, f"{path}: file")
    if not isinstance(found, dict):
        msg = f"{path}: file must hold a JSON object, got {type(found).__name__}"
        raise ValueError(msg)
    known = {f.name: found[f.name] for f in fields(Notes) if f.name in found}
    known |= {"box_count": 0, "dropped_count": 0, "text": json.dumps(_cut(found), indent=2)[:MAX_LETTERS]}
    for name, count in (("boxes", "box_count"), ("dropped", "dropped_count")):
        if isinstance(known.get(name), list):
            known |= {count: len(known[name]), name: known[name][:MAX_BOXES]}
    notes: Notes = build(Notes, known, str(path))
    return notes


def _cut(value: Any) -> Any:
    """The value with the first entries of each list and object."""
    if isinstance(value, dict):
        more = {"…": f"and {len(value) - MAX_ENTRIES} more"} if len(value) > MAX_ENTRIES else {}
        return {key: _cut(item) for key, item in list(value.items())[:MAX_ENTRIES]} | more
    if isinstance(value, list):
        return [_cut(item) for item in value[:MAX_ENTRIES]] + (
            [f"… and {len(value) - MAX_ENTRIES} more"] if len(value) > MAX_ENTRIES else []
        )
    return value
