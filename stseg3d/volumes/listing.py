"""Cases at the paths that a user gives, each with a unique name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from stseg3d.machine.files import visible_files
from stseg3d.volumes.cases import Case, cases_at, without_faults
from stseg3d.volumes.dicom.elements import sop_class
from stseg3d.volumes.dicom.kinds import DICOM_SUFFIXES, is_dicom, kind_without_image
from stseg3d.volumes.lists import LIST_SUFFIXES, read_list
from stseg3d.volumes.names import NUMBERED, Place, ensure_file_name, paths_of, stem, told_apart
from stseg3d.volumes.open import is_segmentation, is_volume_file, volume_suffix

logger = logging.getLogger(__name__)


def find_cases(inputs: Iterable[Path | str], *, channels: int = 1) -> list[Case]:
    """Cases at the given paths, each named after its file or folder.

    Args:
        inputs: Files, DICOM series folders, and folders of either (not searched any deeper), in order of name.
        channels: Number of files that may form one case, see :func:`list_cases`.

    Raises:
        FileNotFoundError: If a path does not exist.
        ValueError: If a folder holds no volume, a file is not one, or two cases have one name.
    """
    places = [Place(image) for source in inputs for image in _images_at(Path(source))]
    return without_faults(cases_at(told_apart(_joined(places, channels))))


def list_cases(
    inputs: Iterable[Path | str],
    *,
    leave_out: Path | None = None,
    on_error: Callable[[Exception], object] | None = None,
    channels: int = 1,
    part: str | None = None,
) -> list[Case]:
    """Cases at the given paths, at any depth, under names that do not clash.

    A case below a folder is named by its path from there, ``patient1/DICOM`` as ``patient1__DICOM``, so its name does not depend on other
    files. One of a list is named after its file, or by the ``id`` that the list gives; if two of a list or two inputs would share a name,
    as in ``a/ct.nii.gz b/ct.nii.gz``, the folders above are added. Outputs of
    ``stseg3d segment`` are left out, and a file or folder given twice is one case. Two that nothing tells apart, as ``x.png`` and ``x.jpg``
    in one folder, and a case whose name is not safe in a folder, have a fault.

    Args:
        inputs: Files; folders of volumes or of DICOM series, searched to the bottom in order of name; lists of cases, whose paths are
            relative to them: a ``.csv`` with a column ``image`` (or ``image_0``, ``image_1`` and so on, one for each channel) and perhaps
            ``id`` and ``label``, or a ``.json``, see :func:`stseg3d.volumes.lists.places_by_part`. Listed files need not exist.
        leave_out: Folder that is not searched, if it lies below an input.
        on_error: Called with the error of an input that cannot be listed, instead of raising it; the others are listed.
        channels: Number of files that form one case, ``ct``, if a folder holds ``ct_0000.nii.gz``, ``ct_0001.nii.gz`` and so on to this
            number and no further, as nnU-Net has it; other files are a case each. With 1 the number is a part of the name.
        part: Take only this part of each list, ``training``, ``validation`` or ``test``, under the names that its cases have among all
            parts; all inputs must then be lists with parts, such as a ``dataset.json``.

    Raises:
        FileNotFoundError: If an input does not exist.
        ValueError: If a folder holds no volume, a file is not one, or a list has another form or no such part.
    """
    sources: list[list[Place]] = []
    for source in inputs:
        try:
            sources.append(_places_at(Path(source), leave_out, part))
        except (ValueError, OSError) as error:
            if on_error is None:
                raise
            on_error(error)
    return [_checked(case) for case in cases_at(told_apart(_joined(_each_once(sources), channels)))]


def _each_once(sources: Iterable[list[Place]]) -> list[Place]:
    """The places, without images that came up before, but for those that a later source gives an id."""
    found: dict[tuple[Path, ...], tuple[int, dict[str, Place]]] = {}
    for n, place in ((n, place) for n, places in enumerate(sources) for place in places):
        before = found.get(place.images)
        if before is None or (place.id and before[0] != n):
            found[place.images] = n, {place.id: place}
        elif before[0] == n:
            before[1][place.id] = place
    return [place for _, same in found.values() for place in same.values()]


def _joined(places: list[Place], channels: int) -> list[Place]:
    """The places, with files numbered from 0000 to the last channel put together; those of another count stay apart."""
    groups: dict[tuple[Path, str], list[Place]] = {}
    for place in places if channels > 1 else ():
        numbered = NUMBERED.fullmatch(stem(place.images[0]))
        if isinstance(place.image, Path) and not place.id and numbered:
            groups.setdefault((place.images[0].parent, numbered[1]), []).append(place)
    found: dict[tuple[Path, ...], Place | None] = {place.images: place for place in places}
    for (_, name), group in groups.items():
        files = {stem(place.images[0]): place for place in group}
        due = [f"{name}_{n:04}" for n in range(channels)]
        if len(group) == channels and set(due) == set(files):
            joined = replace(files[due[0]], image=tuple(path for d in due for path in paths_of(files[d].image)))
            found |= {place.images: None for place in group} | {group[0].images: joined}
    return [place for place in found.values() if place] if groups else places


def _checked(case: Case) -> Case:
    """The case, with a fault if its name is no name of files."""
    try:
        ensure_file_name(case.id)
    except ValueError as error:
        return replace(case, fault=f"{case.images[0]}: {error}")
    return case


# --- searching -----------------------------------------------------------------


def _places_at(path: Path, leave_out: Path | None, part: str | None) -> list[Place]:
    if path.suffix.lower() in LIST_SUFFIXES and path.is_file():
        return read_list(path, part)
    if part and path.exists():
        msg = f"{path}: input must be a list with parts, such as a dataset.json, for part {part!r}, got another file or a folder"
        raise ValueError(msg)
    if not path.is_dir():
        return [Place(image) for image in _images_at(path)]
    seen = set() if leave_out is None or leave_out.resolve() == path.resolve() else {leave_out.resolve()}
    images = list(_images_below(path, seen))
    if not images:
        msg = f"{path}: folder must hold volumes, such as .nii.gz, or DICOM series, at any depth, got none"
        raise ValueError(msg)
    return [Place(image, parts=max(len(image.relative_to(path).parts), 1)) for image in images]


def _images_below(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Volumes and series in the folder and all below; a folder reached twice through links is searched once."""
    if folder.resolve() in seen:
        return
    seen.add(folder.resolve())
    yield from _images_in(folder, labels=False)
    for inner in sorted(folder.iterdir()):
        if inner.is_dir() and not inner.name.startswith("."):
            yield from _images_below(inner, seen)


def _images_at(path: Path) -> list[Path]:
    """The file, or the volumes and series in the folder, labels too; or else the series in the folders in it."""
    if not path.exists():
        msg = f"{path}: file or folder must exist, got none"
        raise FileNotFoundError(msg)
    if not path.is_dir():
        if not is_volume_file(path):
            msg = f"{path}: file must be a volume, such as .nii.gz, got {path.suffix or 'no suffix'!r}"
            raise ValueError(msg)
        return [path]
    inner = (d for d in sorted(path.iterdir()) if d.is_dir())
    images = _images_in(path, labels=True) or [d for d in inner if any(is_dicom(p) for p in visible_files(d))]
    if not images:
        msg = f"{path}: folder must hold volumes, such as .nii.gz, or DICOM series, got {len(visible_files(path))} other files"
        raise ValueError(msg)
    return images


def _images_in(folder: Path, *, labels: bool) -> list[Path]:
    """Volumes in the folder itself, or the folder if it holds only a DICOM series; and what ``stseg3d segment`` wrote, if ``labels``."""
    files = visible_files(folder)
    volumes = [p for p in files if is_volume_file(p) and volume_suffix(p).lower() not in DICOM_SUFFIXES]
    volumes = [p for p in volumes if not _is_rough_map(p) and (labels or not is_output(p))]
    volumes = _without_twins(volumes, labels=labels)
    if not volumes:
        return _dicom_in(folder, files, labels=labels)
    slices = sum(volume_suffix(p).lower() in DICOM_SUFFIXES for p in files)
    if slices:
        logger.warning("%s: %d DICOM files are left out, as there are %d other volumes beside them", folder, slices, len(volumes))
    return volumes


def _dicom_in(folder: Path, files: list[Path], *, labels: bool) -> list[Path]:
    """The folder if a DICOM image is in it; else its segmentations if they are wanted as labels; other objects are left out and told."""
    if any(is_dicom(p, segmentations=False) for p in files):
        return [folder]
    if labels:
        return [p for p in files if is_dicom(p)]
    kinds = {kind_without_image(sop_class(p)) for p in files} - {"", "DICOMDIR"}
    if kinds:
        logger.warning("%s: left out, as its DICOM files hold no image: %s", folder, ", ".join(sorted(kinds)))
    return []


def _without_twins(volumes: list[Path], *, labels: bool) -> list[Path]:
    """Volumes with only one of ``a.nrrd`` and its segmentation ``a.seg.nrrd``: the image, or the segmentation if ``labels``."""
    segmented = {stem(p): p for p in volumes if is_segmentation(p)}
    names = {stem(p) for p in volumes if not is_segmentation(p)} & segmented.keys()
    return [p for p in volumes if stem(p) not in names or is_segmentation(p) == labels]


def is_output(path: Path) -> bool:
    """Whether ``stseg3d segment`` wrote it: ``<case>_seg.*`` with ``<case>_seg.json`` beside it."""
    name = stem(path)
    return name.endswith("_seg") and path.with_name(f"{name}.json").is_file()


def _is_rough_map(path: Path) -> bool:
    """Whether it is a rough map of ``stseg3d segment --keep-rough``: neither an image nor a prediction."""
    name = stem(path)
    return name.endswith("_rough") and path.with_name(f"{name.removesuffix('_rough')}_seg.json").is_file()
