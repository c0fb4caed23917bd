"""Training cases made of label maps, as MONAI transforms: a body opened once, scanned anew each time it is drawn."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from monai.transforms.transform import Randomizable, Transform
from numpy.typing import NDArray

from stseg3d.geometry import Grid
from stseg3d.machine.json_files import read_json
from stseg3d.ops.resample import resample
from stseg3d.synthesis.ct import SyntheticCT
from stseg3d.synthesis.deformation import deformed
from stseg3d.synthesis.label_maps import Anatomy, build_anatomy, class_names, random_box
from stseg3d.synthesis.scanner import draw_scan
from stseg3d.synthesis.tissues import tissue_of
from stseg3d.volumes import CanonicalVolume, OpenCase, open_volume

Data = Mapping[Hashable, Any]


def anatomy_cases(dataset_json: Path | str, bodies: int = 1) -> list[dict[str, Any]]:
    """Cases without an image that a ``dataset.json`` lists under ``"anatomies"``; none where it lists none.

    An entry is ``{"labels": path, "classes": path of a JSON with a name for each value, "weight": 1}``, paths relative to the file.

    Args:
        dataset_json: The file.
        bodies: Number of bodies made from each label map, times its weight; maps that show more may weigh more.

    Returns:
        Dictionaries with ``id``, ``anatomy`` (the label map's path), ``classes`` (names by value) and ``body`` (its number).

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If an entry gives no such paths, or its weight is no whole number from 1.
    """
    path = Path(dataset_json)
    cases = []
    for entry in read_json(path.read_bytes(), f"{path}: file").get("anatomies", []):
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("labels", "classes")):
            msg = f'{path}: each entry under "anatomies" must give labels and classes as paths, got {entry!r}'
            raise ValueError(msg)
        weight = entry.get("weight", 1)
        if not isinstance(weight, int) or weight < 1:
            msg = f'{path}: the weight of an entry under "anatomies" must be a whole number from 1, got {weight!r}'
            raise ValueError(msg)
        labels, classes = path.parent / entry["labels"], path.parent / entry["classes"]
        missing = [file for file in (labels, classes) if not file.is_file()]
        if missing:
            msg = f"{path}: files listed must exist, got none at {missing[0]}"
            raise FileNotFoundError(msg)
        names = class_names(classes)
        cases += [{"id": f"{labels.name}#{n}", "anatomy": str(labels), "classes": names, "body": n} for n in range(bodies * weight)]
    return cases


class OpenAnatomyd(Transform):
    """Opens cases of :func:`anatomy_cases` as ``{"case": OpenCase}`` with an :class:`Anatomy` as their image; others as usual.

    Body 0 of a label map is the patient's own, the others are deformed, each always in the same way.

    Args:
        open_case: Opens cases that have an image, such as :class:`stseg3d.training.OpenCased`.
        target: Name of the class to segment.
        spacing_mm: Approximate spacing to which the label map is resampled, as the rough network needs no finer one; None keeps its own.
    """

    def __init__(self, open_case: Callable[[Data], dict[Hashable, Any]], target: str, spacing_mm: float | None = None) -> None:
        super().__init__()
        self.open_case, self.target, self.spacing_mm = open_case, target, spacing_mm

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """The open case.

        Raises:
            ValueError: If the label map has a class without a name, or its classes are no small whole numbers.
        """
        if "anatomy" not in data:
            return self.open_case(data)
        names: Mapping[int, str] = data["classes"]
        path = str(data["anatomy"])
        labels, grid = self._labels(path)
        target = next((k for k, name in names.items() if name == self.target), None)
        if data["body"]:
            rng = np.random.default_rng([int(data["body"]), crc32(Path(path).name.encode())])
            bones = [k for k, name in names.items() if tissue_of(name) == "spongy_bone"]
            labels, grid = deformed(labels, grid, rng, vessel=target, keep=bones)
        truth = (labels == target).astype(np.uint8) if target is not None else np.zeros_like(labels)
        return {"case": OpenCase(build_anatomy(labels, grid, names, path, target), truth, str(data["id"]))}

    def _labels(self, path: str) -> tuple[NDArray[np.uint8], Grid]:
        view = CanonicalVolume(open_volume(path), "RAS")
        found = view.read()
        if found.dtype.kind not in "iu" or found.min() < 0 or found.max() > 250 or len(found) != 1:
            msg = f"{path}: a label map must have one channel of whole numbers from 0 to 250, got {found.min():g} to {found.max():g}"
            raise ValueError(msg)
        shape = view.grid.shape
        if self.spacing_mm is not None:
            shape = tuple(min(n, max(round(n * mm / self.spacing_mm), 1)) for n, mm in zip(shape, view.grid.spacing_mm, strict=True))
        return np.ascontiguousarray(resample(found, shape, "nearest")[0].astype(np.uint8)), view.grid.resized(shape)


class RandSyntheticCTd(Randomizable, Transform):
    """Gives the anatomy of a case a new :class:`SyntheticCT` each time, often of a part of it; cases with an image are unchanged.

    Args:
        partial: Probability that the scan shows a part of the label map only.
        least: Smallest part of each axis that it then shows.
    """

    def __init__(self, partial: float = 0.0, least: Sequence[float] = (0.4, 0.4, 0.25)) -> None:
        super().__init__()
        self.partial, self.least = partial, tuple(least)

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """The case, with the scan as its image."""
        case: OpenCase = data["case"]
        if not isinstance(case.image, Anatomy):
            return dict(data)
        rng = np.random.default_rng(self.R.randint(2**31))
        anatomy, label = case.image, case.label
        if rng.uniform() < self.partial:
            # Each axis is whole with a chance of one half, so that scans may be long and narrow, or short and wide.
            least = np.where(rng.uniform(size=3) < 0.5, self.least, 1.0)
            box = random_box(rng, label.shape, least)
            anatomy, label = anatomy.cut(box), label[box.slices]
        return {**data, "case": replace(case, image=SyntheticCT(anatomy, draw_scan(rng)), label=label)}
