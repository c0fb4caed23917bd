"""Where: boxes, grids and tilings. Pure arithmetic on numpy; no torch, no files."""

from stseg3d.geometry.box import Box
from stseg3d.geometry.grid import Grid
from stseg3d.geometry.overlaps import edges, overlapping
from stseg3d.geometry.tiling import slabs, tiles

__all__ = ["Box", "Grid", "edges", "overlapping", "slabs", "tiles"]
