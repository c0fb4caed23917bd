"""Spacing of a TIFF's pixels in mm: of ImageJ's and OME's metadata, or of its resolution."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

logger = logging.getLogger(__name__)

Spacing = tuple[float, float, float]

# Millimetres of a unit, as OME (its model of 2016-06) and ImageJ write it; others, such as pixel, are no lengths.
UNIT_MM = {
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-6),
    **dict.fromkeys(("um", "\u00b5m", "\u03bcm", r"\u00b5m", "micron", "microns", "micrometer", "micrometre"), 1e-3),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1.0),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 10.0),
    **dict.fromkeys(("m", "meter", "metre"), 1000.0),
    **dict.fromkeys(("in", "inch", "inches", '"'), 25.4),
    **{"pm": 1e-9, "\u00e5": 1e-7, "dm": 100.0, "km": 1e6, "ft": 304.8, "thou": 0.0254},
}
RESOLUTION_UNIT_MM = {2: 25.4, 3: 10.0}  # TIFF 6.0: inch, centimetre; 1 is a ratio without a length


def spacing_of(path: Path, tiff: Any, page: Any, depth: int) -> Spacing:
    """Spacing along x, y and z; 1 mm where the file does not give it.

    Args:
        path: The file.
        tiff: It, as tifffile opened it.
        page: Its first page.
        depth: Number of slices.

    Raises:
        ValueError: If its metadata give a spacing that is none.
    """
    spacing = plain = _plain_spacing(page)
    if tiff.is_ome:
        spacing = _ome_spacing(tiff.ome_metadata, plain, depth, path)
    elif tiff.is_imagej:
        spacing = _imagej_spacing(tiff.imagej_metadata or {}, page, plain, depth)
    if not all(np.isfinite(spacing)) or min(spacing) <= 0:
        msg = f"{path}: spacing must be above 0, got {spacing} mm"
        raise ValueError(msg)
    return spacing


def _pixels_per_unit(page: Any) -> list[float]:
    """Resolution along x and y, rounded as libtiff does, so that spacings agree with ITK's to the last digit; 0 where there is none."""
    values = [getattr(page.tags.get(tag), "value", None) for tag in ("XResolution", "YResolution")]
    return [float(np.float32(v[0] / v[1])) if isinstance(v, tuple) and len(v) == 2 and v[1] else 0.0 for v in values]


def _plain_spacing(page: Any) -> Spacing:
    unit = RESOLUTION_UNIT_MM.get(int(page.resolutionunit))
    x, y = _pixels_per_unit(page)
    return (unit / x, unit / y, 1.0) if unit and min(x, y) > 0 else (1.0, 1.0, 1.0)


def _imagej_spacing(about: dict[str, Any], page: Any, plain: Spacing, depth: int) -> Spacing:
    unit = UNIT_MM.get(str(about.get("unit", "")).strip().casefold())
    between = about.get("spacing")
    between = abs(float(between)) if isinstance(between, (int, float)) else 1.0  # ImageJ leaves 1 out, and shows the amount
    z = between * (unit or 1.0) if depth > 1 else 1.0
    if not unit:
        return plain[0], plain[1], z
    x, y = _pixels_per_unit(page)
    return unit / (x or 1.0), unit / (y or 1.0), z


def _ome_spacing(xml: str, plain: Spacing, depth: int, path: Path) -> Spacing:
    """Spacing of the first image: https://docs.openmicroscopy.org/ome-model/6.3.1/ome-tiff/specification.html."""
    pixels = ElementTree.fromstring(xml).find(".//{*}Pixels")
    about = {} if pixels is None else pixels.attrib
    x, y, z = (_ome_size_mm(about, axis) for axis in "XYZ")
    if z is None and depth > 1 and x is not None:
        logger.warning("%s: the distance of slices is not given: that of pixels, %g mm, is taken", path, x)
        z = x
    return (plain[0] if x is None else x, plain[1] if y is None else y, z if z is not None and depth > 1 else 1.0)


def _ome_size_mm(about: dict[str, str], axis: str) -> float | None:
    unit = UNIT_MM.get(about.get(f"PhysicalSize{axis}Unit", "\u00b5m").casefold())
    size = about.get(f"PhysicalSize{axis}")
    return None if size is None or unit is None else float(size) * unit
