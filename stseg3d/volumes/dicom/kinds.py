"""Kinds of DICOM objects: which hold an image, and what the others are."""

from __future__ import annotations

from pathlib import Path

from stseg3d.volumes.dicom.elements import sop_class

DICOM_SUFFIXES = (".dcm", ".ima")
STORAGE = "1.2.840.10008.5.1.4.1.1."
SEGMENTATION = "segmentation, which may be a label but is no image"
# Objects that are no images to segment, by the beginning of the SOP class (DICOM PS3.4, B.5), the most specific first.
NO_IMAGES = {
    "1.2.840.10008.1.3.10": "DICOMDIR",
    f"{STORAGE}66.4": SEGMENTATION,
    f"{STORAGE}66.7": SEGMENTATION,
    f"{STORAGE}66": "surface, registration or raw data",
    f"{STORAGE}67": "real-world value mapping",
    f"{STORAGE}88.59": "selection of key objects",
    f"{STORAGE}88.": "structured report",
    f"{STORAGE}104.": "document",
    f"{STORAGE}11.": "presentation state",
    f"{STORAGE}481.2": "radiotherapy dose",
    f"{STORAGE}481.3": "radiotherapy structure set, whose contours must be made a label map first, as plastimatch or 3D Slicer do",
    f"{STORAGE}481.1": "",  # a picture of the treatment beam
    f"{STORAGE}481.": "radiotherapy object",
    f"{STORAGE}9.": "waveform",
    f"{STORAGE}200.": "protocol",
    STORAGE: "",
    "1.2.840.10008.": "object without an image",
}
# Modalities of objects that are sometimes stored under another SOP class.
NO_IMAGE_MODALITIES = ("SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "SR", "PR", "KO", "REG", "RWV", "DOC")
# Slices with a place in the patient: CT, MR, PET.
PLANE_CLASSES = tuple(f"{STORAGE}{number}" for number in ("2", "4", "128"))
# SOP classes whose frames have positions in functional groups: enhanced and legacy converted CT, MR and PET (DICOM PS3.4, B.5).
ENHANCED = tuple(f"{STORAGE}{number}" for number in ("2.1", "2.2", "4.1", "4.4", "130", "128.1"))


def kind_without_image(uid: str | None) -> str:
    """What an object of a SOP class is; empty if it is an image or unknown."""
    return next((kind for start, kind in NO_IMAGES.items() if f"{uid}.".startswith(start if start.endswith(".") else f"{start}.")), "")


def is_dicom(path: Path, *, segmentations: bool = True) -> bool:
    """Whether the file's name or first bytes are those of DICOM, and it may hold an image.

    Args:
        path: The file.
        segmentations: Whether segmentations count as images: they may be labels.
    """
    if path.name.upper() == "DICOMDIR":  # an index
        return False
    uid = sop_class(path)
    kind = kind_without_image(uid)
    return (uid is not None or path.suffix.lower() in DICOM_SUFFIXES) and (not kind or (segmentations and kind == SEGMENTATION))
