"""Request: a bundle and the options of a run, for one case or for many."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from stseg3d.bundle import INFERENCE, read_bundle, weights_sha256
from stseg3d.plan.values import OUTPUTS, PRECISIONS, RUNTIMES

# Fields that no label depends on, so that a batch may be resumed elsewhere.
IGNORED_IN_DIGEST = ("bundle", "output_dir", "device", "threads", "trust")


@dataclass(frozen=True)
class Request:
    """A bundle and the options of a run, which can be pickled for other processes and machines.

    Args:
        bundle: Folder of the bundle.
        output_dir: Folder of all outputs; by default the current one.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: CPU threads of the process; by default those of its libraries.
        output: ``labels``, ``instances`` or ``probabilities``; by default what the bundle says.
        precision: ``auto``, ``float32``, ``bfloat16`` or ``float16``; by default what the bundle says.
        runtime: ``torch`` or ``openvino``, which is quicker on a CPU once it has started; by default what the bundle says.
        batch_size: Crops that go through the network together; by default what the bundle says.
        rough_only: Run the rough network alone and upsample: the baseline that two stages must beat.
        mask: Mask whose components become boxes, instead of those of the rough network.
        boxes: File of boxes to use, see :func:`stseg3d.inference.boxfile.read_boxes`.
        keep_rough: Also write ``<case>_rough.nii.gz``: the rough stage's foreground probability times 255, uint8, on the rough grid.
            There is none if boxes were given or the rough network ran alone.
        series: DICOM series to take from a folder with several, see :func:`stseg3d.volumes.open_volume`.
        trust: Run a bundle that is more than data, see :func:`stseg3d.bundle.trust.read_bundle`.
        overrides: Further entries of ``inference.json`` to set, by id, such as ``{"policy#threshold": 0.2}``.

    Raises:
        ValueError: If a word is unknown, or two options contradict each other.
    """

    bundle: Path
    output_dir: Path = Path()
    _: KW_ONLY
    device: str = "auto"
    threads: int | None = None
    output: str | None = None
    precision: str | None = None
    runtime: str | None = None
    batch_size: int | None = None
    rough_only: bool = False
    mask: Path | None = None
    boxes: Path | None = None
    keep_rough: bool = False
    series: str | None = None
    trust: bool = False
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        words = {"output": (self.output, OUTPUTS), "precision": (self.precision, PRECISIONS), "runtime": (self.runtime, RUNTIMES)}
        for name, (given, known) in words.items():
            if given is not None and given not in known:
                msg = f"{name} must be one of {known}, got {given!r}"
                raise ValueError(msg)
        if self.mask and self.boxes:
            msg = f"mask and boxes cannot both say where to look, got {self.mask} and {self.boxes}"
            raise ValueError(msg)
        if self.rough_only and (self.mask or self.boxes):
            msg = f"rough_only asks the rough network where to look, got {self.mask or self.boxes} too"
            raise ValueError(msg)
        if self.rough_only and self.output not in (None, "labels"):
            msg = f"rough_only gives labels, got output={self.output!r} too"
            raise ValueError(msg)

    @property
    def entries(self) -> dict[str, Any]:
        """Entries of ``inference.json`` to set, by id."""
        given = {
            "output#kind": self.output,
            "execution#precision": self.precision,
            "execution#runtime": self.runtime,
            "displayable_configs#batch_size": self.batch_size,
        }
        return {**self.overrides, **{id_: value for id_, value in given.items() if value is not None}}

    @cached_property
    def digest(self) -> str:
        """Digest of all that labels depend on besides the image: weights, configs, options, and the content of files among them."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in IGNORED_IN_DIGEST}
        options = {name: value for name, value in given.items() if value not in (None, False, {})}
        files = {name: _sha256(path) for name, path in options.items() if isinstance(path, Path) and path.is_file()}
        config = read_bundle(self.bundle, trust=True).texts[INFERENCE.name]  # what will be run, also after an edit of the plan
        parts = [weights_sha256(self.bundle), config, options, files]
        return hashlib.sha256(json.dumps(parts, default=str, sort_keys=True).encode()).hexdigest()

    def absolute(self) -> Request:
        """The request with absolute paths, for a process in another folder."""
        paths: dict[str, Any] = {f.name: p.absolute() for f in fields(self) if isinstance(p := getattr(self, f.name), Path)}
        return replace(self, **paths)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
