"""A data set for one class of multi-organ label maps: some scans, many label maps without a scan, and phantoms.

``python -m stseg3d.synthesis.dataset FOLDER OUT --target aorta --anatomies s0001,s0004:3 --training s0002 --validation s0009``
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from stseg3d.synthesis.label_maps import class_names
from stseg3d.volumes import Case, load_dataset
from stseg3d.volumes.label_values import IGNORE


def write_dataset(
    folder: Path,
    out: Path,
    *,
    target: str,
    anatomies: Mapping[str, int],
    training: Iterable[str] = (),
    validation: Iterable[str] = (),
    also: Path | None = None,
) -> Path:
    """Write ``dataset.json`` and the labels of one class.

    Args:
        folder: With ``classes.json`` (names by value), ``labels/<case>.nii.gz`` of all classes and ``images/<case>.nii.gz``.
        out: Where to write; made if need be. Images and label maps stay where they are.
        target: Name of the class.
        anatomies: Cases whose label maps are given intensities in training, and their weights; they need no image.
        training: Cases with an image to train with.
        validation: Cases with an image to validate with.
        also: Another ``dataset.json``, of phantoms say, whose training cases are added.

    Returns:
        Path of ``dataset.json``.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If there is no such class, a case is listed both to train and to validate with, or ``also`` ignores the value 1.
    """
    training, validation, classes = list(training), list(validation), folder / "classes.json"
    value = next((k for k, name in class_names(classes).items() if name == target), None)
    if value is None:
        msg = f"target must be a class of {classes}, got {target!r}"
        raise ValueError(msg)
    both = {*anatomies, *training} & set(validation)
    if both:
        msg = f"validation must hold no case that is trained with, got {sorted(both)}"
        raise ValueError(msg)
    out.mkdir(parents=True, exist_ok=True)
    added = None if also is None else load_dataset(also)
    more = [] if added is None else [_listed_again(case, out) for case in added.training]
    labels = {0: "background", 1: target}
    if added is not None and added.labels.ignore is not None:
        labels[added.labels.ignore] = IGNORE
    if labels[1] != target:
        msg = f"{also}: labels must not ignore the value 1, which is {target} here"
        raise ValueError(msg)
    content = {
        "name": f"{target}_ct",
        "labels": {str(value): name for value, name in labels.items()},
        "training": [_scan(folder, out, case, value) for case in training] + more,
        "validation": [_scan(folder, out, case, value) for case in validation],
        "anatomies": [
            {**_relative({"labels": folder / f"labels/{case}.nii.gz", "classes": classes}, out), "weight": weight}
            for case, weight in anatomies.items()
        ],
    }
    path = out / "dataset.json"
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def _scan(folder: Path, out: Path, case: str, value: int) -> dict[str, str]:
    """A case with an image, its label cut out of the map of all classes."""
    image, labels = (nib.load(folder / kind / f"{case}.nii.gz") for kind in ("images", "labels"))
    if labels.shape != image.shape or not np.allclose(labels.affine, image.affine, atol=1e-2):
        msg = f"{folder / 'labels'}/{case}.nii.gz: the label map must lie on its image's grid, got shapes {labels.shape} and {image.shape}"
        raise ValueError(msg)
    label = out / f"labels/{case}.nii.gz"
    label.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image((np.asarray(labels.dataobj) == value).astype(np.uint8), image.affine), label)
    return _relative({"image": folder / f"images/{case}.nii.gz", "label": label}, out)


def _listed_again(case: Case, out: Path) -> dict[str, Any]:
    """An entry for a training case of another data set."""
    assert case.label is not None
    images = [os.path.relpath(path, out) for path in case.images]
    return {"image": images if len(images) > 1 else images[0], "label": os.path.relpath(case.label, out)}


def _relative(paths: Mapping[str, Path | str], out: Path) -> dict[str, str]:
    return {key: os.path.relpath(path, out) for key, path in paths.items()}


def _listed(text: str) -> list[str]:
    return text.split(",")


def _weighted(text: str) -> dict[str, int]:
    """``a,b:3`` as ``{"a": 1, "b": 3}``."""
    return {case: int(weight or 1) for case, _, weight in (part.partition(":") for part in _listed(text))}


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a data set as the command line asks."""
    parser = argparse.ArgumentParser(
        prog="python -m stseg3d.synthesis.dataset", description="A data set for one class of multi-organ label maps."
    )
    parser.add_argument("folder", type=Path, help="with classes.json, labels/ and images/")
    parser.add_argument("out", type=Path)
    parser.add_argument("--target", required=True, help="name of the class")
    parser.add_argument("--anatomies", type=_weighted, default={}, metavar="CASE,CASE:WEIGHT")
    for name in ("training", "validation"):
        parser.add_argument(f"--{name}", type=_listed, default=[], metavar="CASE,CASE")
    parser.add_argument("--also", type=Path, help="another dataset.json whose training cases are added")
    options = vars(parser.parse_args(arguments))
    print(write_dataset(options.pop("folder"), options.pop("out"), **options))


if __name__ == "__main__":
    main()
