"""Soft shapes painted into an image, each in its own region only, so that the cost follows the shapes and not the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stseg3d.geometry import Grid
from stseg3d.synthesis.fields import Field
from stseg3d.synthesis.scanner import AIR_HU


@dataclass(frozen=True)
class Region:
    """Part of the image and the coordinates of its voxels' centres in mm, each of three axes and ready to broadcast."""

    slices: tuple[slice, slice, slice]
    x: Field
    y: Field
    z: Field

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels on each axis."""
        return np.broadcast_shapes(self.x.shape, self.y.shape, self.z.shape)


@dataclass(frozen=True)
class Stroke:
    """How much of each voxel of a region a shape fills, in ``[0, 1]``."""

    region: Region
    occupancy: Field


class Painter:
    """An image, at first air, onto which shapes are painted in the frame of a standard body.

    Args:
        grid: Grid of the image, its axes along the world's (RAS).
        scale: Size of this body relative to the standard body, one entry an axis.
        bend: Shift (right, to the front) in mm of the slice at each height; a sideways lean or a curved back.
    """

    def __init__(self, grid: Grid, scale: Sequence[float], bend: Callable[[Field], tuple[Field, Field]]) -> None:
        self.image: Field = np.full(grid.shape, AIR_HU, dtype=np.float32)
        self.x, self.y, self.z = (
            ((grid.affine[i, 3] + grid.affine[i, i] * np.arange(n)) / s).astype(np.float32)
            for i, (n, s) in enumerate(zip(grid.shape, scale, strict=True))
        )
        self.spacing_mm = tuple(size / s for size, s in zip(grid.spacing_mm, scale, strict=True))
        self.shift_x, self.shift_y = bend(self.z)
        self.voxel_mm = float(np.prod(self.spacing_mm) ** (1 / 3))

    def region(self, low: ArrayLike, high: ArrayLike) -> Region | None:
        """Voxels whose centres lie between two corners in mm, and a voxel more; None where there is none."""
        margin = self.voxel_mm
        low, high = np.asarray(low, dtype=float) - margin, np.asarray(high, dtype=float) + margin
        k = slice(*np.searchsorted(self.z, (low[2], high[2])))
        if k.start >= k.stop:
            return None
        dx, dy = self.shift_x[k], self.shift_y[k]
        i = slice(*np.searchsorted(self.x, (low[0] + dx.min(), high[0] + dx.max())))
        j = slice(*np.searchsorted(self.y, (low[1] + dy.min(), high[1] + dy.max())))
        if i.start >= i.stop or j.start >= j.stop:
            return None
        x = self.x[i, None, None] - dx
        y = self.y[None, j, None] - dy
        return Region((i, j, k), x, y, self.z[None, None, k])

    def soften(self, distance_mm: Field) -> Field:
        """Occupancy of voxels at this signed distance from a surface (negative inside): a ramp one and a half voxels wide."""
        occupancy: Field = np.clip(0.5 - distance_mm / np.float32(1.5 * self.voxel_mm), 0, 1)
        return occupancy

    def paint(self, stroke: Stroke | None, hu: float) -> Stroke | None:
        """Mix ``hu`` into the image where the stroke is."""
        if stroke is not None:
            part = self.image[stroke.region.slices]
            part += stroke.occupancy * (np.float32(hu) - part)
        return stroke

    def ellipsoid(
        self, centre: ArrayLike, radii: ArrayLike, *, axes: NDArray[np.float64] | None = None, power: int = 2, wobble: Sequence[float] = ()
    ) -> Stroke | None:
        """A stroke in the shape of an ellipsoid.

        Args:
            centre: Centre in mm.
            radii: Half axes in mm.
            axes: Rotation whose columns are the directions of the half axes; the world's by default.
            power: 2 for an ellipsoid; larger and even for a rounded block.
            wobble: Amplitude in mm, wavelength in mm and three phases of a ripple of the surface; none if empty.
        """
        centre, radii = np.asarray(centre, dtype=np.float32), np.asarray(radii, dtype=np.float32)
        reach = radii if axes is None else np.sqrt((axes * radii) ** 2 @ np.ones(3)) if power == 2 else np.abs(axes) @ radii
        reach = reach + 3 * (wobble[0] if wobble else 0)
        region = self.region(centre - reach, centre + reach)
        if region is None:
            return None
        u: list[Field] = [region.x - centre[0], region.y - centre[1], region.z - centre[2]]
        if axes is not None:
            u = [u[0] * a + u[1] * b + u[2] * c for a, b, c in axes.T.astype(np.float32)]
        a, b, c = (along / r for along, r in zip(u, radii, strict=True))
        distance = ((a**power + b**power + c**power) ** np.float32(1 / power) - 1) * radii.min()
        if wobble:
            amplitude, length, *phases = wobble
            for coordinate, phase in zip((region.x, region.y, region.z), phases, strict=True):
                distance = distance + np.float32(amplitude) * np.sin(coordinate / np.float32(length) + np.float32(phase))
        return Stroke(region, self.soften(distance))

    def tube(self, points: ArrayLike, radii: ArrayLike) -> Stroke | None:
        """A stroke in the shape of a chain of rounded cones along points ``(N, 3)`` in mm, each rasterised in its own small region."""
        points = np.asarray(points, dtype=np.float32)
        radii = np.broadcast_to(np.asarray(radii, dtype=np.float32), len(points))
        region = self.region(points.min(axis=0) - radii.max(), points.max(axis=0) + radii.max())
        if region is None:
            return None
        occupancy = np.zeros(region.shape, dtype=np.float32)
        for a, b, ra, rb in zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True):
            reach = max(ra, rb)
            part = self.region(np.minimum(a, b) - reach, np.maximum(a, b) + reach)
            if part is None:
                continue
            inside = tuple(slice(p.start - r.start, p.stop - r.start) for p, r in zip(part.slices, region.slices, strict=True))
            np.maximum(occupancy[inside], self.soften(_cone_distance(part, a, b, ra, rb)), out=occupancy[inside])
        return Stroke(region, occupancy)

    def profile(self, radii: tuple[Field, Field], centre_y: Field, k: slice) -> Stroke:
        """A stroke over the slices ``k`` in the shape of a rounded oval, its half axes and centre given for every slice of the image."""
        region = Region(
            (slice(None), slice(None), k),
            self.x[:, None, None] - self.shift_x[k],
            self.y[None, :, None] - self.shift_y[k],
            self.z[None, None, k],
        )
        rx, ry = (r[k] for r in radii)
        u, v = np.abs(region.x / rx), np.abs((region.y - centre_y[k]) / ry)
        u, v = u * u * np.sqrt(u), v * v * np.sqrt(v)  # power 2.5, before the sum is formed: cheap on each axis alone
        distance = ((u + v) ** np.float32(0.4) - 1) * np.minimum(rx, ry)
        return Stroke(region, self.soften(distance))


def _cone_distance(region: Region, a: Field, b: Field, ra: np.float32, rb: np.float32) -> Field:
    """Signed distance in mm of a region's voxels from the rounded cone between two points."""
    axis = b - a
    length2 = max(float(axis @ axis), 1e-6)
    x, y, z = region.x - a[0], region.y - a[1], region.z - a[2]
    along = np.clip((x * axis[0] + y * axis[1] + z * axis[2]) / np.float32(length2), 0, 1)
    across = np.sqrt((x - along * axis[0]) ** 2 + (y - along * axis[1]) ** 2 + (z - along * axis[2]) ** 2)
    distance: Field = across - (ra + along * (rb - ra))
    return distance
