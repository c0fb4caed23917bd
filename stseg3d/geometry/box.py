"""A half-open box of whole voxels, on any number of axes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """Half-open integer box ``start <= voxel < stop``, one entry an axis.

    A box may be empty (``stop == start`` on some axis) and may lie partly outside an image; :meth:`clip` brings it inside.

    Args:
        start: First voxel on each axis.
        stop: One past the last voxel on each axis; never less than ``start``.

    Raises:
        ValueError: If the two differ in length, or ``stop`` lies before ``start``.

    Example:
        >>> Box((1, 2), (4, 4)).shape
        (3, 2)
    """

    start: tuple[int, ...]
    stop: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", tuple(int(i) for i in self.start))
        object.__setattr__(self, "stop", tuple(int(i) for i in self.stop))
        if len(self.start) != len(self.stop) or any(b < a for a, b in zip(self.start, self.stop, strict=False)):
            msg = f"stop must be as long as start and not before it, got start={self.start} stop={self.stop}"
            raise ValueError(msg)

    @classmethod
    def of(cls, shape: Iterable[int]) -> Box:
        """Box of all voxels of an image of this ``shape``."""
        shape = tuple(shape)
        return cls((0,) * len(shape), shape)

    @classmethod
    def from_slices(cls, slices: Sequence[slice]) -> Box:
        """Box of bounded, step-free slices, such as those of ``scipy.ndimage.find_objects``."""
        return cls(tuple(s.start for s in slices), tuple(s.stop for s in slices))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.start)

    @property
    def shape(self) -> tuple[int, ...]:
        """Extent in voxels on each axis."""
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))

    @property
    def voxels(self) -> int:
        """Number of voxels inside; 0 for an empty box."""
        return prod(self.shape)

    @property
    def slices(self) -> tuple[slice, ...]:
        """Index of the box in an array of space axes; the box must not start below zero."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    def is_empty(self) -> bool:
        """Whether no voxel is inside."""
        return self.voxels == 0

    def contains(self, other: Box) -> bool:
        """Whether every voxel of ``other`` is inside; an empty ``other`` always is."""
        return other.is_empty() or self.intersect(other) == other

    def overlaps(self, other: Box) -> bool:
        """Whether at least one voxel is in both."""
        pairs = zip(self.start, self.stop, other.start, other.stop, strict=True)
        return all(max(a, c) < min(b, d) for a, b, c, d in pairs)

    def intersect(self, other: Box) -> Box:
        """Box of the voxels in both; empty, at the nearer corner, where they do not overlap."""
        start = tuple(max(a, c) for a, c in zip(self.start, other.start, strict=True))
        stop = tuple(min(b, d) for b, d in zip(self.stop, other.stop, strict=True))
        return Box(start, tuple(max(a, b) for a, b in zip(start, stop, strict=True)))

    def clip(self, shape: Iterable[int]) -> Box:
        """The part inside an image of this ``shape``; may be empty."""
        shape = tuple(shape)
        start = tuple(min(max(a, 0), n) for a, n in zip(self.start, shape, strict=True))
        stop = tuple(min(max(b, a), n) for a, b, n in zip(start, self.stop, shape, strict=True))
        return Box(start, stop)

    def union(self, other: Box) -> Box:
        """Smallest box that holds both."""
        start = tuple(min(a, c) for a, c in zip(self.start, other.start, strict=True))
        return Box(start, tuple(max(b, d) for b, d in zip(self.stop, other.stop, strict=True)))

    def shift(self, by: Iterable[int]) -> Box:
        """The box moved by this many voxels on each axis."""
        by = tuple(by)
        start = tuple(a + d for a, d in zip(self.start, by, strict=True))
        return Box(start, tuple(b + d for b, d in zip(self.stop, by, strict=True)))

    def relative_to(self, origin: Box) -> Box:
        """The box in coordinates that begin at ``origin.start``."""
        return self.shift(-a for a in origin.start)

    def grow(self, low: Iterable[int], high: Iterable[int] | None = None) -> Box:
        """Box enlarged on each axis by ``low`` voxels before and ``high`` voxels after (default: ``low``)."""
        low = tuple(low)
        high = low if high is None else tuple(high)
        start = tuple(a - d for a, d in zip(self.start, low, strict=True))
        return Box(start, tuple(b + d for b, d in zip(self.stop, high, strict=True)))

    def grow_to(self, shape: Iterable[int]) -> Box:
        """Box about the same centre, at least this long on each axis; an odd voxel goes to the end."""
        more = tuple(max(n - m, 0) for n, m in zip(shape, self.shape, strict=True))
        return self.grow((d // 2 for d in more), (d - d // 2 for d in more))

    def corners(self) -> Iterator[tuple[int, ...]]:
        """The ``2 ** ndim`` corners, as voxel edges."""
        return product(*zip(self.start, self.stop, strict=True))
