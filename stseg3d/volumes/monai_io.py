"""MONAI dictionary transforms that read and write images, for bundles.

MONAI Label and MONAI Deploy write themselves, and Deploy reads itself: Deploy drops transforms whose class names contain ``LoadImage`` or
``SaveImage``, Label those derived from MONAI's ``SaveImaged``.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor, list_data_collate
from monai.transforms import MapTransform, SaveImaged

from stseg3d.volumes.names import case_id, output_name
from stseg3d.volumes.open import as_volume, open_volume
from stseg3d.volumes.volume import ArrayVolume
from stseg3d.volumes.write import ensure_writable, write_labels, write_probabilities

# Torch cannot compute with these types; the next larger one holds all values (except the upper half of uint64).
TORCH_TYPES = {"uint16": np.int32, "uint32": np.int64, "uint64": np.int64}


class LoadImageVolumed(MapTransform):
    """Loads paths as ``MetaTensor`` of shape ``(C, *S)`` in the type of the file, with affine (RAS+) and ``filename_or_obj``.

    Args:
        keys: Keys of the paths.
        channels_last: Whether the fourth dimension of a file counts channels, as in ``stseg3d segment``; otherwise it is refused.
        allow_missing_keys: Whether a key may be missing.
    """

    def __init__(self, keys: KeysCollection, channels_last: bool = True, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.channels_last = channels_last

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The data with images in place of paths."""
        out = dict(data)
        for key in self.key_iterator(out):
            out[key] = self._load(out[key])
        return out

    def _load(self, source: Any) -> MetaTensor:
        volume = open_volume(source, channels_last=self.channels_last)
        array = volume.read()
        tensor = torch.from_numpy(array.astype(TORCH_TYPES.get(volume.dtype.name, volume.dtype), copy=False))
        affine = torch.from_numpy(volume.grid.affine.copy())
        meta = {
            "filename_or_obj": volume.name,
            "original_affine": affine.clone(),
            "spatial_shape": np.asarray(volume.grid.shape),
            "original_channel_dim": 0,
            "space": "RAS",
        }
        return MetaTensor(tensor, affine=affine, meta=meta)


def collate_alone(batch: Sequence[dict[Hashable, Any]]) -> Any:
    """Batch as of MONAI's ``list_data_collate``, but a batch of one is not copied: its tensors are views.

    Args:
        batch: Dictionaries of the cases.

    Returns:
        Dictionary of tensors ``(B, C, *S)`` and of other values, collated.
    """
    if len(batch) > 1:
        return list_data_collate(batch)
    images = {key: image for key, image in batch[0].items() if isinstance(image, MetaTensor)}
    collated = list_data_collate([{**batch[0], **{key: _without_voxels(image) for key, image in images.items()}}])
    for key, image in images.items():
        collated[key] = MetaTensor(image.as_tensor()[None]).copy_meta_from(collated[key])
    return collated


def _without_voxels(image: MetaTensor) -> MetaTensor:
    empty = MetaTensor(torch.empty((0,) * image.ndim, dtype=image.dtype))
    return empty.copy_meta_from(image)


class SaveImageLabelsd(SaveImaged):
    """Writes label maps on the exact grid of their image, as ``<case>_<suffix>.nii.gz``.

    A ``MetaTensor`` of several channels of real numbers, ``(K, *S)``, is written as probabilities, in 4 dimensions.

    Args:
        keys: Keys of the label maps, ``MetaTensor`` of shape ``(1, *S)``; ``filename_or_obj`` in their meta data names the image, which
            the case is named after if the data hold no ``"id"``.
        output_dir: Folder for the files; made if need be.
        suffix: Ending of the file name.
        allow_missing_keys: Whether a key may be missing.
    """

    def __init__(self, keys: KeysCollection, output_dir: str | Path, suffix: str = "seg", allow_missing_keys: bool = False) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)  # skips the set-up of MONAI's own writing
        self.output_dir = Path(output_dir)
        self.suffix = suffix

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The data, unchanged, after writing."""
        for key in self.key_iterator(dict(data)):
            self._save(data[key], str(key), data.get("id"))
        return dict(data)

    def _save(self, image: Any, key: str, case: Any) -> None:
        source = getattr(image, "meta", {}).get("filename_or_obj")
        if not isinstance(source, (str, Path)):
            msg = f"{key} must be a MetaTensor whose meta data name the file of its image as filename_or_obj, got {source!r}"
            raise ValueError(msg)
        like = open_volume(source, channels_last=True)
        volume = as_volume(image)
        if not volume.grid.is_close(like.grid):
            due, got = (f"{grid.shape} {grid.orientation}" for grid in (like.grid, volume.grid))
            msg = f"{key} must be on the grid of {like.name}, {due}, got {got}, perhaps with another affine"
            raise ValueError(msg)
        array = volume.array if isinstance(volume, ArrayVolume) else volume.read()
        path = ensure_writable(self.output_dir) / output_name(case if isinstance(case, str) else case_id(source), self.suffix)
        if volume.channels > 1:
            write_probabilities(array, path, like)
            return
        labels = array[0]
        if labels.dtype.kind == "f":
            labels = labels.astype(np.int64)
            if not np.array_equal(labels, array[0]):
                msg = f"{key} must hold whole numbers to be written as labels, got {array.dtype} from {array.min()} to {array.max()}"
                raise ValueError(msg)
        write_labels(labels, path, like)
