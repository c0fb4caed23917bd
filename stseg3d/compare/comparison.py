"""Results of a comparison: a score for each case, way and size, in one JSON file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from stseg3d.machine.files import atomic_write_text
from stseg3d.machine.tables import json_text, without_nan

VERSION = 1
WAYS = ("rough_only", "two_stage", "sliding_window", "true_boxes")
WAY_TITLES = {
    "rough_only": "rough only",
    "two_stage": "two stages",
    "sliding_window": "sliding window",
    "true_boxes": "two stages, true boxes",
}
TOTAL = "total"
Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Score:
    """One case, segmented in one way at one size."""

    case: str  # id of the case
    way: str  # one of `WAYS`
    size: tuple[int, ...]  # network input in voxels along each axis
    nominal_size: int  # requested size in voxels
    values: dict[str, float]  # metrics of the foreground by name; NaN where undefined
    coverage: float = math.nan  # share of the ground truth's voxels inside the boxes, 0 to 1; NaN without ground truth
    macs: float = math.nan  # multiply-adds of all networks
    seconds: dict[str, float] = field(default_factory=dict)  # time by stage; `total`, if given, is that of all
    boxes: int = 0  # number of boxes
    peak_memory_bytes: int = 0  # peak memory of a process for only this way and size; 0 if unknown

    def __post_init__(self) -> None:
        if self.way not in WAYS:
            msg = f"way must be one of {', '.join(WAYS)}, got {self.way!r}"
            raise ValueError(msg)
        if self.nominal_size < 1:
            msg = f"nominal_size must be at least 1, got {self.nominal_size}"
            raise ValueError(msg)

    @property
    def total_seconds(self) -> float:
        """Time of all stages; NaN without any."""
        return self.seconds.get(TOTAL, sum(self.seconds.values()) if self.seconds else math.nan)

    def value(self, name: str) -> float:
        """A metric, ``coverage``, ``gmacs``, ``seconds``, ``<stage>_s``, ``boxes`` or ``peak_mib``; NaN if there is none of this name."""
        costs = {f"{stage}_s": seconds for stage, seconds in self.seconds.items()} | {
            "coverage": self.coverage,
            "gmacs": self.macs / 1e9,
            "seconds": self.total_seconds,
            "boxes": float(self.boxes),
            "peak_mib": self.peak_memory_bytes / 2**20 or math.nan,
        }
        return self.values.get(name, costs.get(name, math.nan))

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """A score as it stands in JSON: null for NaN.

        Raises:
            ValueError: If a name is unknown or missing.
        """
        _check_names(cls, content, "score")
        numbers = {name: _numbers(content[name]) for name in ("coverage", "macs", "values", "seconds")}
        return cls(**content | numbers | {"size": tuple(content["size"])})


@dataclass
class Comparison:
    """Several ways and sizes on the same cases of one data set."""

    bundle: str  # name of the bundle whose networks were compared
    data: str  # name of the data set
    part: str = "validation"  # part of the data set that was scored
    scores: list[Score] = field(default_factory=list)  # one for each case, way and size
    parameters: dict[str, int] = field(default_factory=dict)  # weights of the networks that a way needs, by way
    # By nominal size, the median over the cases of the largest ratio of a rough voxel to an image voxel.
    downscaling: dict[int, float] = field(default_factory=dict)
    object_share: float = math.nan  # median share of the field of view that the objects' boxes fill, 0 to 1; NaN if unknown
    training_seconds: dict[str, float] = field(default_factory=dict)  # by the name of the training run
    notes: list[str] = field(default_factory=list)  # sentences below the tables, such as which cases the checkpoints were chosen on

    def __post_init__(self) -> None:
        keys = [(s.case, s.way, s.nominal_size) for s in self.scores]
        if twice := sorted({key for key in keys if keys.count(key) > 1} if len(set(keys)) < len(keys) else ()):
            msg = f"scores must hold each case, way and size once, got several of {twice}"
            raise ValueError(msg)

    @property
    def sizes(self) -> list[int]:
        """Nominal sizes, from small to large."""
        return sorted({s.nominal_size for s in self.scores})

    @property
    def ways(self) -> list[str]:
        """Ways with a score, in the order of :data:`WAYS`."""
        return [way for way in WAYS if any(s.way == way for s in self.scores)]

    @property
    def cases(self) -> list[str]:
        """Ids of the cases, sorted."""
        return sorted({s.case for s in self.scores})

    def at(self, way: str, size: int) -> dict[str, Score]:
        """Scores of a way at a nominal size, by case, sorted."""
        found = (s for s in self.scores if s.way == way and s.nominal_size == size)
        return {s.case: s for s in sorted(found, key=lambda s: s.case)}

    def groups(self) -> Iterator[tuple[int, str, list[Score]]]:
        """Size, way and scores of each way at each size that has any."""
        for size in self.sizes:
            for way in WAYS:
                if found := self.at(way, size):
                    yield size, way, list(found.values())

    def values(self, name: str, way: str, size: int) -> Vector:
        """Finite values of :meth:`Score.value` over cases."""
        found = (s.value(name) for s in self.at(way, size).values())
        return np.array([v for v in found if math.isfinite(v)], dtype=np.float64)

    def as_dict(self) -> dict[str, Any]:
        """As it stands in JSON: null for NaN."""
        plain: dict[str, Any] = without_nan({"version": VERSION} | asdict(self))
        return plain

    @classmethod
    def from_dict(cls, content: Any) -> Self:
        """The inverse of :meth:`as_dict`.

        Raises:
            ValueError: If a name is unknown or missing, or the version is another.
        """
        if not isinstance(content, dict) or content.get("version") != VERSION:
            found = content.get("version") if isinstance(content, dict) else type(content).__name__
            msg = f"version must be {VERSION}, got {found!r}"
            raise ValueError(msg)
        given = {name: value for name, value in content.items() if name != "version"}
        _check_names(cls, given, "comparison")
        numbers = {name: _numbers(given[name]) for name in ("training_seconds", "object_share", "downscaling")}
        numbers["downscaling"] = {int(size): ratio for size, ratio in numbers["downscaling"].items()}
        return cls(**given | numbers | {"scores": [Score.from_dict(s) for s in given["scores"]]})

    def save(self, path: Path) -> Path:
        """Write it to a JSON file, under a temporary name first."""
        return atomic_write_text(path, json_text(self.as_dict(), indent=1))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: If the file is not a comparison of this version; the message names it.
        """
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError, AttributeError) as error:
            msg = f"{path}: file must be a comparison as `stseg3d compare` writes it, got: {error}"
            raise ValueError(msg) from error


def _numbers(values: Any) -> Any:
    """A number, or several by name: NaN for null."""
    if isinstance(values, dict):
        return {name: _numbers(value) for name, value in values.items()}
    return math.nan if values is None else float(values)


def _check_names(of: type[Any], content: dict[str, Any], what: str) -> None:
    due = {f.name for f in fields(of)}
    if due ^ set(content):
        msg = f"{what} must have the names {', '.join(sorted(due))}, got {', '.join(sorted(content))}"
        raise ValueError(msg)
