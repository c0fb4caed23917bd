"""DICOM series: many files, or the frames of one, that are one volume.

SimpleITK (GDCM) reads tags and pixels; what it passes over in silence is found here: several volumes under one UID, missing and doubled
slices, gantry tilt, frames of enhanced files in any order.
"""

from stseg3d.volumes.dicom.reading import open_dicom, open_series
from stseg3d.volumes.dicom.series import Series, read_series

__all__ = ["Series", "open_dicom", "open_series", "read_series"]
