"""Images of every kind behind one protocol, writing onto their exact grid, cases and data sets.

Importing this imports neither torch nor MONAI nor an image library. MONAI transforms are in :mod:`stseg3d.volumes.monai_io`.
"""

from stseg3d.volumes.cases import Case, Dataset, OpenCase, load_dataset, without_faults
from stseg3d.volumes.channels import StackedVolume
from stseg3d.volumes.derived import ColourVolume, StandardizedVolume, network_view
from stseg3d.volumes.file import FileVolume, read_each
from stseg3d.volumes.label_values import Label, LabelValues, Meaning, read_classes, read_label
from stseg3d.volumes.listing import find_cases, list_cases
from stseg3d.volumes.names import case_id, output_name
from stseg3d.volumes.open import as_volume, is_volume_file, open_label, open_volume
from stseg3d.volumes.volume import ArrayVolume, CanonicalVolume, Volume
from stseg3d.volumes.write import ensure_writable, write_labels, write_probabilities

__all__ = [
    "ArrayVolume",
    "CanonicalVolume",
    "Case",
    "ColourVolume",
    "Dataset",
    "FileVolume",
    "Label",
    "LabelValues",
    "Meaning",
    "OpenCase",
    "StackedVolume",
    "StandardizedVolume",
    "Volume",
    "as_volume",
    "case_id",
    "ensure_writable",
    "find_cases",
    "is_volume_file",
    "list_cases",
    "load_dataset",
    "network_view",
    "open_label",
    "open_volume",
    "output_name",
    "read_classes",
    "read_each",
    "read_label",
    "without_faults",
    "write_labels",
    "write_probabilities",
]
