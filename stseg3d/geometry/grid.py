"""Where the voxels of an image lie in the world: shape and affine, and the maps between grids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, floor

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stseg3d.geometry.box import Box

# The letters of the world axes, towards lower and towards higher coordinates (NIfTI: x to the right, y to the front, z to the top).
AXIS_CODES = ("LR", "PA", "IS")
# From single atoms to kilometres; beyond, a volume in mm3 is lost in rounding, and a header is broken or in another unit.
SPACING_MM = (1e-8, 1e6)


@dataclass(frozen=True, eq=False)
class Grid:
    """Shape and affine of an image: which voxel lies where, in mm, in RAS+ world space.

    Args:
        shape: Voxels on each space axis; any number of axes, at least 1 voxel each.
        affine: Homogeneous matrix from voxel index (of the voxel's centre) to mm, of shape ``(ndim + 1, ndim + 1)``.
            By default the axes are the world's, with ``spacing_mm`` and the origin in voxel zero.
        spacing_mm: Used only where ``affine`` is not given; 1 mm by default.

    Raises:
        ValueError: If the shape is empty, or the affine is of another size, not finite, or singular, or has a spacing beyond any image's.
    """

    shape: tuple[int, ...]
    affine: NDArray[np.float64] = field(default=None)  # type: ignore[arg-type]  # set in __post_init__
    spacing_mm: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        affine = self._affine_of(shape, self.affine, self.spacing_mm)
        affine.flags.writeable = False
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "spacing_mm", tuple(float(s) for s in np.linalg.norm(affine[:-1, :-1], axis=0)))

    @staticmethod
    def _affine_of(shape: tuple[int, ...], affine: ArrayLike | None, spacing_mm: Sequence[float]) -> NDArray[np.float64]:
        if not shape or min(shape) < 1:
            msg = f"shape must have at least one voxel on each axis, got {shape}"
            raise ValueError(msg)
        if affine is None:
            affine = np.diag([*(spacing_mm or (1.0,) * len(shape)), 1.0])
        matrix = np.array(affine, dtype=np.float64)
        if matrix.shape != (len(shape) + 1,) * 2:
            msg = f"affine must be of shape {(len(shape) + 1,) * 2} for {len(shape)} axes, got {matrix.shape}"
            raise ValueError(msg)
        if not np.isfinite(matrix).all():
            msg = f"affine must be finite, got {matrix.tolist()}"
            raise ValueError(msg)
        # Relative to the columns' lengths, so that a grid of micrometres is not called singular.
        lengths = np.linalg.norm(matrix[:-1, :-1], axis=0)
        if lengths.min() > 0 and not SPACING_MM[0] <= lengths.min() <= lengths.max() <= SPACING_MM[1]:
            msg = f"spacing must be {SPACING_MM[0]:g} to {SPACING_MM[1]:g} mm on each axis, got {tuple(lengths.tolist())}"
            raise ValueError(msg)
        if lengths.min() <= 0 or abs(np.linalg.det(matrix[:-1, :-1] / lengths)) < 1e-6:
            msg = f"affine must not be singular, got {matrix.tolist()}"
            raise ValueError(msg)
        return matrix

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Grid) and self.shape == other.shape and np.array_equal(self.affine, other.affine)

    def __hash__(self) -> int:
        return hash((self.shape, self.affine.tobytes()))

    @property
    def ndim(self) -> int:
        """Number of space axes."""
        return len(self.shape)

    @property
    def box(self) -> Box:
        """Box of all voxels."""
        return Box.of(self.shape)

    @property
    def voxel_mm3(self) -> float:
        """Volume of one voxel; for an image of depth 1 its slice thickness counts."""
        return float(abs(np.linalg.det(self.affine[:-1, :-1])))

    @property
    def orientation(self) -> str:
        """The nearest world direction of each axis, such as ``"RAS"``; only for two or three axes."""
        world, signs = self._world_axes()
        return "".join(AXIS_CODES[w][int(s > 0)] for w, s in zip(world, signs, strict=True))

    def _world_axes(self) -> tuple[list[int], list[int]]:
        """World axis nearest to each axis, each used once, and the sign of its direction."""
        directions = self.affine[:-1, :-1] / np.asarray(self.spacing_mm)
        world = [-1] * self.ndim
        left = np.abs(directions)
        for _ in range(self.ndim):  # the clearest pair first; on a tie the first in row-major order
            row, column = np.unravel_index(int(np.argmax(np.round(left, 6))), left.shape)
            world[int(column)] = int(row)
            left[row, :] = left[:, column] = -1
        return world, [1 if directions[w, axis] > 0 else -1 for axis, w in enumerate(world)]

    def is_close(self, other: Grid, tolerance_voxels: float = 1e-2) -> bool:
        """Whether the shapes agree and no voxel is shifted by more than this fraction of the smallest spacing."""
        if self.shape != other.shape:
            return False
        corners = np.array([[*c, 1] for c in Box((0,) * self.ndim, tuple(n - 1 for n in self.shape)).corners()], dtype=float)
        apart = np.linalg.norm((corners @ (self.affine - other.affine).T)[:, :-1], axis=1).max()
        return bool(apart <= tolerance_voxels * min(self.spacing_mm))

    def world_mm(self, points: ArrayLike) -> NDArray[np.float64]:
        """World coordinates, in mm, of voxel edges (``(N, ndim)``; edge 0 is the outer face of voxel 0, as in a :class:`Box`)."""
        centred = np.asarray(points, dtype=np.float64) - 0.5
        moved: NDArray[np.float64] = centred @ self.affine[:-1, :-1].T + self.affine[:-1, -1]
        return moved

    def edges(self, points_mm: ArrayLike) -> NDArray[np.float64]:
        """Voxel edges, of shape ``(N, ndim)``, of world coordinates in mm: the inverse of :meth:`world_mm`."""
        centred = np.asarray(points_mm, dtype=float) - self.affine[:-1, -1]
        return centred @ np.linalg.inv(self.affine[:-1, :-1]).T + 0.5

    def resized(self, shape: Sequence[int]) -> Grid:
        """Grid of another ``shape`` over the same physical extent (extent-aligned, not centre-aligned)."""
        scale = np.asarray(self.shape, dtype=float) / np.asarray(shape, dtype=float)
        affine = self.affine.copy()
        affine[:-1, :-1] = self.affine[:-1, :-1] * scale
        affine[:-1, -1] += self.affine[:-1, :-1] @ (scale - 1) / 2
        return Grid(tuple(shape), affine)

    def crop(self, box: Box) -> Grid:
        """Grid of the voxels in ``box``."""
        affine = self.affine.copy()
        affine[:-1, -1] += self.affine[:-1, :-1] @ np.asarray(box.start, dtype=float)
        return Grid(box.shape, affine)

    def map(self, box: Box, to: Grid) -> Box:
        """Smallest box of ``to`` that covers ``box``.

        Args:
            box: Box on this grid, in voxels.
            to: Grid of the same physical extent and number of axes.

        Returns:
            Box on ``to``, inside ``to.shape`` if ``box`` is inside this grid.

        Raises:
            ValueError: If the two grids do not cover the same extent (tolerance: half a voxel).

        Example:
            >>> Grid((8, 8, 1)).map(Box((1, 1, 0), (3, 4, 1)), Grid((8, 8, 1)).resized((16, 16, 1)))
            Box(start=(2, 2, 0), stop=(6, 8, 1))
        """
        if to.ndim != self.ndim:
            msg = f"grids must have as many axes, got {self.shape} and {to.shape}"
            raise ValueError(msg)
        ends = np.array([[0.0] * self.ndim, self.shape])
        apart = np.abs(to.edges(self.world_mm(ends)) - np.array([[0.0] * self.ndim, to.shape]))
        if apart.max() > 0.5:
            msg = f"grids must cover the same extent, got {self.shape} and {to.shape}, {apart.max():.2f} voxels apart"
            raise ValueError(msg)
        scale = [n / m for n, m in zip(to.shape, self.shape, strict=True)]
        # The nudge keeps 3 * (10 / 3) = 10.000000000000002 from growing a box by a voxel.
        start = tuple(floor(a * f + 1e-6) for a, f in zip(box.start, scale, strict=True))
        return Box(start, tuple(ceil(b * f - 1e-6) for b, f in zip(box.stop, scale, strict=True)))

    def canonical(self, axcodes: str = "RAS") -> tuple[tuple[int, ...], tuple[bool, ...]]:
        """Axis order and flips that turn the image to ``axcodes``, such as ``"RAS"`` (towards right, front, top), without a copy.

        Returns:
            For each axis of the view, the axis of this grid it comes from and whether it is flipped.

        Raises:
            ValueError: If ``axcodes`` does not name each world axis of this grid once.
        """
        wanted = [next((w for w, pair in enumerate(AXIS_CODES) if code in pair), -1) for code in axcodes.upper()]
        if sorted(wanted) != list(range(self.ndim)):
            msg = f"axcodes must name each of {self.ndim} world axes once, got {axcodes!r}"
            raise ValueError(msg)
        world, signs = self._world_axes()
        order = tuple(world.index(w) for w in wanted)
        towards = [1 if code in ("R", "A", "S") else -1 for code in axcodes.upper()]
        return order, tuple(signs[axis] != t for axis, t in zip(order, towards, strict=True))

    def view(self, order: Sequence[int], flips: Sequence[bool]) -> Grid:
        """Grid of the image after transposing and then flipping it, with the values of :meth:`canonical`."""
        matrix = np.zeros_like(self.affine)
        for axis, (source, flip) in enumerate(zip(order, flips, strict=True)):
            matrix[source, axis] = -1 if flip else 1
            matrix[source, -1] = self.shape[source] - 1 if flip else 0
        matrix[-1, -1] = 1
        return Grid(tuple(self.shape[i] for i in order), self.affine @ matrix)
