"""Cases that a file lists: a ``dataset.json`` of the Decathlon or of nnU-Net, or a CSV."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from stseg3d.machine.json_files import read_json
from stseg3d.planning.findings import Finding
from stseg3d.planning.layouts.found import PARTS, DataFound, Entry
from stseg3d.planning.layouts.match import ALL_CHANNELS, NNUNET_LEVELS, match
from stseg3d.planning.layouts.walk import volumes_below
from stseg3d.volumes.label_values import LabelValues
from stseg3d.volumes.names import SEPARATOR, case_id
from stseg3d.volumes.open import volume_suffix

ENTRY = 'an entry gives "image", one path or several, and "label"'
LISTED = "a file lists cases"
PART = f"part is empty or one of {', '.join(PARTS)}"
NUM_TRAINING = '"numTraining" is the number of cases'
NO_ANATOMIES = '"anatomies" are label maps without images; they are left out'
MOST = 100  # letters of an entry in a report
FIRST_CHANNEL = "_0000"  # of nnU-Net's files, which its first version does not list
IMAGE_COLUMN = re.compile(r"image(?:[-_ ]?(\d+))?")


def read_dataset_json(path: Path) -> DataFound:
    """Data of a ``dataset.json``: with lists of cases as the Decathlon has them, or for ``imagesTr`` and ``labelsTr`` as nnU-Net has them.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not JSON, or its ``"labels"`` contradict themselves.
    """
    content = read_json(path.read_bytes(), str(path))
    if not isinstance(content, dict):
        return _unreadable(path, type(content).__name__)
    known: dict[str, Any] = {
        "labels": dict(content["labels"]) if isinstance(content.get("labels"), dict) else {},
        "channels": _channel_names(content.get("channel_names", content.get("modality"))),
        "name": str(content.get("name", path.absolute().parent.name)),
    }
    LabelValues.parse(known["labels"], path)
    if not any(content.get(part) for part in PARTS) and isinstance(content.get("dataset"), dict):  # nnU-Net's other way
        cases = [{"id": str(key), "image": v.get("images"), "label": v.get("label")} for key, v in content["dataset"].items()]
        content |= {"training": cases}
    if content.get("training"):
        found = replace(_of_lists(content, path), **known)
    elif (path.parent / "imagesTr").is_dir():
        found = _of_nnunet(content, path, **known)
    else:
        return _unreadable(path, f"the keys {', '.join(map(repr, content)) or 'none'}, and no folder imagesTr beside it")
    extra = (Finding("warning", "", NO_ANATOMIES, f"{len(content['anatomies'])}"),) if content.get("anatomies") else ()
    return replace(found, findings=found.findings + extra)


def read_csv(path: Path) -> DataFound:
    """Data of a CSV with the columns ``image`` or ``image_0``, ``image_1``, ...; ``label``; perhaps ``id``, ``group`` and ``part``.

    Commas, semicolons or tabs separate them; upper case does not matter in the header. Paths are relative to the file.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not text.
    """
    text = path.read_text(encoding="utf-8-sig")
    lines = text.splitlines()
    head = lines[0] if lines else ""
    rows = csv.reader(lines, delimiter=max(",;\t", key=head.count))
    names = [name.strip().lower() for name in next(rows, [])]
    columns = sorted((int(column[1] or 0), n) for n, name in enumerate(names) if (column := IMAGE_COLUMN.fullmatch(name)))
    if not columns or "label" not in names:
        return _unreadable(path, f"the columns {', '.join(map(repr, names)) or 'none'}, not image (or image_0, ...) and label")
    content: dict[str, list[Any]] = {part: [] for part in PARTS}
    findings = []
    for row in (row for row in rows if any(row)):
        cells = {name: cell.strip() for name, cell in zip(names, row, strict=False)}
        part = cells.get("part", "").lower() or "training"
        if part not in PARTS:
            findings.append(Finding("error", f"{path.name}, line {rows.line_num}", PART, cells["part"]))
            continue
        images = [row[n].strip() for _, n in columns if n < len(row)]
        content[part].append({"image": images, **{key: cells[key] for key in ("id", "label", "group") if cells.get(key)}})
    found = _of_lists(content, path)
    return replace(found, layout="CSV", name=path.stem, findings=(*findings, *found.findings))


def _unreadable(path: Path, value: str) -> DataFound:
    return DataFound(findings=(Finding("error", path.name, LISTED, value),))


def _channel_names(names: Any) -> tuple[str, ...]:
    if isinstance(names, Mapping):
        return tuple(str(names[key]) for key in sorted(names, key=lambda key: (len(str(key)), str(key))))  # "0", ..., "10"
    return tuple(map(str, names)) if isinstance(names, list) else ()


# --- lists of cases ----------------------------------------------------------


def _of_lists(content: Mapping[str, Any], path: Path) -> DataFound:
    parts: dict[str, list[Entry]] = {}
    findings = []
    for part in PARTS:
        listed = content.get(part) or []
        found = [(entry, _entry(entry, part, path.parent)) for entry in (listed if isinstance(listed, list) else [listed])]
        parts[part] = [entry for _, entry in found if entry is not None]
        wrong = [(f"{part}[{n}]", str(entry)) for n, (entry, read) in enumerate(found) if read is None]
        findings += [Finding("error", where, ENTRY, text if len(text) <= MOST else f"{text[:MOST]}...") for where, text in wrong]
    names = iter(_ids([entry for part in PARTS for entry in parts[part]]))
    lists: dict[str, Any] = {part: tuple(replace(entry, id=next(names)) for entry in parts[part]) for part in PARTS}
    return DataFound(**lists, layout="dataset.json with lists of cases", findings=tuple(findings))


def _entry(entry: Any, part: str, folder: Path) -> Entry | None:
    """Case of an entry, its id empty if it gives none; None if it is not one."""
    found = {"image": entry} if isinstance(entry, str) else entry
    if not isinstance(found, dict):
        return None
    images = [found["image"]] if isinstance(found.get("image"), str) else found.get("image")
    label = found.get("label")
    if not isinstance(images, list) or not images or not all(isinstance(image, str) and image for image in images):
        return None
    if not isinstance(label, str) and part != "test":
        return None
    paths = [file for image in images for file in _channel_files(folder / image)]
    return Entry(
        str(found.get("id") or ""), tuple(paths), folder / label if isinstance(label, str) else None, str(found.get("group") or "")
    )


def _channel_files(path: Path) -> list[Path]:
    """The file, or if there is none its channels as nnU-Net's first version has them: ``a.nii.gz`` lists ``a_0000.nii.gz``, ..."""
    suffix = volume_suffix(path)
    stem = path.name.removesuffix(suffix)
    if path.exists() or not suffix or not path.with_name(f"{stem}{FIRST_CHANNEL}{suffix}").exists():
        return [path]
    pattern = re.compile(rf"{re.escape(stem)}_\d{{4}}{re.escape(suffix)}")
    return sorted(file for file in path.parent.iterdir() if pattern.fullmatch(file.name))


def _ids(entries: list[Entry]) -> list[str]:
    """Given ids, or names of the images, with the names of their folders where they alone are not unique."""
    deepest = max((len(entry.images[0].parts) for entry in entries), default=1)
    for parts in range(1, deepest):
        names = [entry.id or _name(entry, parts) for entry in entries]
        if len({name.casefold() for name in names}) == len(names):
            return names
    return [entry.id or _name(entry, 1) for entry in entries]


def _name(entry: Entry, parts: int) -> str:
    image = entry.images[0]
    name = case_id(image)
    folders = image.absolute().parts[1:-1]
    return SEPARATOR.join([*folders[len(folders) - parts + 1 :], name.removesuffix(FIRST_CHANNEL) if len(entry.images) > 1 else name])


# --- nnU-Net -----------------------------------------------------------------


def _of_nnunet(content: Mapping[str, Any], path: Path, *, labels: dict[str, Any], channels: tuple[str, ...], name: str) -> DataFound:
    ending = str(content.get("file_ending", ""))
    named = [n for n in volumes_below(path.parent) if n.path.name.endswith(ending) and n.path.parent.parent == path.parent and n.part]
    images, maps = ([n for n in named if n.role == role] for role in ("image", "label"))
    in_one_file = all(n.stem.endswith(FIRST_CHANNEL) for n in images)  # colours of a picture, as nnU-Net allows
    found = match(images, maps, NNUNET_LEVELS, channels=[f"{n:04d}" for n in range(1 if in_one_file else len(channels))])
    findings = list(found.findings)
    due, got = content.get("numTraining"), len(found.training)
    if isinstance(due, int) and due != got and not any(f.rule == ALL_CHANNELS for f in findings):
        findings.append(Finding("warning", "", NUM_TRAINING, f"{due} for {got} cases"))
    return replace(found, labels=labels, channels=channels or found.channels, name=name, layout="nnU-Net", findings=tuple(findings))
