"""DICOM files made by code: slices, enhanced files of frames, segmentations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom

UID = "1.2.826.0.1.3680043.2.1125.{}"
STORAGE = "1.2.840.10008.5.1.4.1.1."
CT, ENHANCED_CT, SECONDARY_CAPTURE, DOSE_REPORT = (f"{STORAGE}{n}" for n in ("2", "2.1", "7", "88.67"))
SEGMENTATION, LABEL_MAP, DOSE, STRUCTURE_SET, KEY_OBJECTS, PRESENTATION = (
    f"{STORAGE}{n}" for n in ("66.4", "66.7", "481.2", "481.3", "88.59", "11.1")
)
WITHOUT_PIXELS = (DOSE_REPORT, STRUCTURE_SET, KEY_OBJECTS, PRESENTATION)
DICOMDIR = "1.2.840.10008.1.3.10"
COLUMNS, ROWS = 5, 4


def dicom_file(path: Path, array: np.ndarray | None = None, **tags: object) -> Path:
    """A CT slice as scanners write it: unsigned 12 bits and an intercept; any tag set, or left out by None."""
    array = np.zeros((ROWS, COLUMNS), np.uint16) if array is None else array
    colours = array.ndim == 3 and array.shape[-1] == 3
    content = pydicom.Dataset()
    standard = {
        "SOPClassUID": CT,
        "SOPInstanceUID": UID.format(f"1.{int.from_bytes(path.name.encode()) % 10**20}"),
        "Modality": "CT",
        "SeriesDescription": "Body 3.0",
        "SeriesDate": "20221208",
        "SeriesTime": "140539.425",
        "SeriesInstanceUID": UID.format(1),
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.75, 0.5],
        "SamplesPerPixel": 3 if colours else 1,
        "PhotometricInterpretation": "RGB" if colours else "MONOCHROME2",
        "Rows": array.shape[0 if array.ndim == 2 or colours else 1],
        "Columns": array.shape[1 if array.ndim == 2 or colours else 2],
        "BitsAllocated": array.itemsize * 8,
        "BitsStored": 12 if array.dtype == np.uint16 else array.itemsize * 8,
        "PixelRepresentation": int(array.dtype.kind == "i"),
        "RescaleIntercept": None if colours else -1024,
        "RescaleSlope": None if colours else 1,
    }
    for name, value in (standard | tags).items():
        if value is not None:
            setattr(content, name, value)
    content.HighBit = content.BitsStored - 1
    if colours:
        content.PlanarConfiguration = 0
    if content.SOPClassUID not in (*WITHOUT_PIXELS, DICOMDIR) and "PixelData" not in content:
        content.PixelData = array.tobytes()
    content.file_meta = pydicom.dataset.FileMetaDataset()
    content.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    content.file_meta.MediaStorageSOPClassUID = content.SOPClassUID
    content.file_meta.MediaStorageSOPInstanceUID = content.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    content.save_as(path, enforce_file_format=content.SOPClassUID != DICOMDIR)
    return path


def enhanced(path: Path, along, sideways=0.0, intercepts=None, acquisitions=None) -> Path:
    """One file; the frame at z mm holds the value 1000 + z, before its intercept."""

    def group(**sequences: dict[str, object]) -> pydicom.Dataset:
        return item(**{name: [item(**elements)] for name, elements in sequences.items()})

    shared = group(
        PixelMeasuresSequence={"PixelSpacing": [0.75, 0.5], "SliceThickness": 2},
        PlaneOrientationSequence={"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
    )
    frames = [
        group(
            PlanePositionSequence={"ImagePositionPatient": [10, 20 + sideways * z, z]},
            PixelValueTransformationSequence={"RescaleSlope": 1, "RescaleIntercept": (intercepts or {}).get(k, -1024)},
            FrameContentSequence={"FrameAcquisitionNumber": (acquisitions or {}).get(k, 1)},
        )
        for k, z in enumerate(along)
    ]
    array = np.stack([np.full((ROWS, COLUMNS), 1000 + z, np.uint16) for z in along])
    none = dict.fromkeys(("ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"))
    more = {"NumberOfFrames": len(along), "SharedFunctionalGroupsSequence": [shared], "PerFrameFunctionalGroupsSequence": frames}
    return dicom_file(path, array, SOPClassUID=ENHANCED_CT, **none, **more)


def item(**values: object) -> pydicom.Dataset:
    """A data set of these elements."""
    made = pydicom.Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def segmentation(path: Path, frames: Sequence[tuple[int, float, np.ndarray]] = (), **tags: object) -> Path:
    """A segmentation of bits: segment, position in mm and mask of each frame; by default two segments on four slices 3 mm apart."""
    if not frames:
        masks = np.zeros((2, 32, 32), np.uint8)
        masks[0, 10:18, 12:24] = masks[1, 20:26, 4:10] = 1
        frames = [(number, 3 * k, masks[number - 1]) for number in (1, 2) for k in range(4)]
    pixels = np.stack([mask for _, _, mask in frames])
    packed = np.packbits(pixels.ravel(), bitorder="little").tobytes()
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelMeasuresSequence=[item(PixelSpacing=[2, 2], SliceThickness=3)],
    )
    own = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=[0, 0, at])],
            SegmentIdentificationSequence=[item(ReferencedSegmentNumber=number)],
        )
        for number, at, _ in frames
    ]
    elements = {
        "SOPClassUID": SEGMENTATION,
        "Modality": "SEG",
        "SegmentationType": "BINARY",
        "SegmentSequence": [item(SegmentNumber=n, SegmentLabel=f"s{n}") for n in sorted({number for number, _, _ in frames})],
        "BitsAllocated": 1,
        "BitsStored": 1,
        "NumberOfFrames": len(frames),
        "SharedFunctionalGroupsSequence": [shared],
        "PerFrameFunctionalGroupsSequence": own,
        "PixelData": packed + bytes(len(packed) % 2),
    }
    none = dict.fromkeys(("ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"))
    return dicom_file(path, pixels, **none | elements | tags)
