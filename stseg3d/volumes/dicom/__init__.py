"""DICOM series: many files, or the frames of one, that form one volume.

SimpleITK (GDCM) reads tags and pixels. This package finds what it silently ignores: several volumes under one UID, missing and duplicate
slices, gantry tilt, and frames of enhanced files in any order.
"""

from stseg3d.volumes.dicom.reading import open_dicom, open_series
from stseg3d.volumes.dicom.series import Series, read_series

__all__ = ["Series", "open_dicom", "open_series", "read_series"]
