"""Lists of cases that a user writes: ``.csv``, ``.json``, and ``dataset.json`` in the layout of the Medical Segmentation Decathlon."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

from stseg3d.machine.json_files import read_json
from stseg3d.volumes.names import Place, ensure_file_name, told_apart

LIST_SUFFIXES = (".csv", ".json")
PARTS = ("training", "validation", "test")


def read_list(path: Path, part: str | None = None) -> list[Place]:
    """Places of the cases in a list, told apart among all that it holds.

    Args:
        path: The list.
        part: One of :data:`PARTS`, to take only its cases; a CSV, and a JSON list without parts, have none.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it has another form, or names no case in this part.
    """
    if path.suffix.lower() == ".csv":
        by_part = {"": told_apart([_place(entry, path, f"row {n}") for n, entry in enumerate(_rows(path), start=1)])}
    else:
        by_part = places_by_part(read_json(path.read_bytes(), f"{path}: file"), path)
    places = [place for name, places in by_part.items() if part in (None, name) for place in places]
    if not places:
        msg = f"{path}: list of cases must name one at least{f' under {part!r}' if part else ''}, got none"
        raise ValueError(msg)
    return places


def places_by_part(content: Any, path: Path) -> dict[str, list[Place]]:
    """Places by part of the data set, told apart over all parts, so that a name does not depend on the part that is looked at.

    Args:
        content: A list of paths and of ``{"image": ..., "id": ..., "label": ...}``, where ``"image"`` may be a list of paths, of files that
            hold the channels of one image in this order; or such lists under ``"training"``, ``"validation"``
            and ``"test"``.
        path: The file; paths in it are relative to its folder.

    Returns:
        The parts that there are; a list alone is the part ``""``.

    Raises:
        ValueError: If it has another form; the message names the entry.
    """
    if isinstance(content, list):
        content = {"": content}
    elif isinstance(content, dict):
        content = {part: content[part] for part in PARTS if part in content}
    else:
        msg = f"{path}: list of cases must be a list, or hold some under {', '.join(PARTS)}, got {type(content).__name__}"
        raise ValueError(msg)
    for part, entries in content.items():
        if not isinstance(entries, list):
            msg = f"{path}: {part!r} must be a list of cases, got {type(entries).__name__}"
            raise ValueError(msg)
    places = [_place(entry, path, f"{part} entry {n}".strip()) for part in content for n, entry in enumerate(content[part], start=1)]
    apart = iter(told_apart(places))
    return {part: [next(apart) for _ in entries] for part, entries in content.items()}


def _rows(path: Path) -> list[Any]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            several = [name for name in reader.fieldnames or () if re.fullmatch(r"image_\d+", name)]
            if several and "image" not in (reader.fieldnames or ()):
                return [row | {"image": [row[name] for name in several]} for row in reader]
            if "image" in (reader.fieldnames or ()) and not several:
                return list(reader)
            msg = f"got the columns {reader.fieldnames}"
            raise ValueError(msg)
    except (ValueError, csv.Error) as error:
        msg = f"{path}: list of cases must be a .csv in UTF-8 with a column image, or image_0, image_1 and so on: {error}"
        raise ValueError(msg) from error


def _place(entry: Any, path: Path, where: str) -> Place:
    found = {"image": entry} if isinstance(entry, str) else entry if isinstance(entry, dict) else {}
    image, name, label = ("" if found.get(key) is None else found[key] for key in ("image", "id", "label"))
    files = image if isinstance(image, list) else [image]
    if not all(isinstance(value, str) for value in (*files, name, label)) or not files or not all(files):
        msg = f"{path}: {where} must give its image, and perhaps id and label, as text, got {entry!r:.200}"
        raise ValueError(msg)
    images = tuple(path.parent / file for file in files)
    try:
        return Place(
            images if len(images) > 1 else images[0], path.parent / label if label else None, ensure_file_name(name) if name else ""
        )
    except ValueError as error:
        msg = f"{path}: {where}: {error}"
        raise ValueError(msg) from error
