"""DICOM series: many files, or the frames of one, that form one volume.

pydicom reads headers, SimpleITK (GDCM) pixels. This package finds what they silently ignore: several volumes under one UID, missing and
duplicate slices, gantry tilt, frames of enhanced files in any order, and voxels that are not there.
"""

from stseg3d.volumes.dicom.reading import open_dicom, open_series
from stseg3d.volumes.dicom.series import Series, read_series

__all__ = ["Series", "open_dicom", "open_series", "read_series"]
