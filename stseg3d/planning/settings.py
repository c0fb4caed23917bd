"""Numbers of the box policy in a bundle's configs: found through references, replaced in the text, everything else left as it is."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stseg3d.bundle import INFERENCE

TRAIN = Path("configs", "train.json")
# Where each config keeps the policy; both may refer to it, and to its numbers, by `@entry#key`.
POLICY = {INFERENCE: ("inferer", "policy"), TRAIN: ("policy",)}
REFERENCE = re.compile(r"@([\w#:]+)")
SPACE = re.compile(r"\s*")

Keys = tuple[str, ...]


def margin_name(bundle: Path) -> str:
    """Margin that the bundle's policy sets: ``margin_mm`` if ``inference.json`` names it, else ``margin_rough_voxels``."""
    path = bundle / INFERENCE
    policy, _ = _policy(json.loads(path.read_text(encoding="utf-8")), POLICY[INFERENCE], path)
    return "margin_mm" if "margin_mm" in policy else "margin_rough_voxels"


def write_policy(bundle: Path, numbers: Mapping[str, float]) -> list[Path]:
    """Put numbers into the policy of ``inference.json`` and, where there is one, ``train.json``: all files, or none.

    Args:
        bundle: Folder of the bundle.
        numbers: By field of the policy. An entry that refers to another, as to ``@displayable_configs#threshold``, is followed, and one
            that the policy lacks is added.

    Returns:
        Files written.

    Raises:
        ValueError: If a config has no policy, or its entry is an expression instead of a number.
    """
    files = [bundle / name for name in POLICY if (bundle / name).is_file()]
    texts = [with_policy(file, POLICY[file.relative_to(bundle)], numbers) for file in files]
    hidden = [file.with_name(f".{file.name}.{os.getpid()}") for file in files]
    try:
        for file, temporary, text in zip(files, hidden, texts, strict=True):
            temporary.write_text(text, encoding="utf-8", newline="")
            temporary.chmod(file.stat().st_mode)
        for file, temporary in zip(files, hidden, strict=True):
            temporary.replace(file)
    finally:
        for temporary in hidden:
            temporary.unlink(missing_ok=True)
    return files


def with_policy(path: Path, policy: Keys, numbers: Mapping[str, float]) -> str:
    """Text of the config ``path`` with other numbers in its policy; every other character stays.

    Raises:
        ValueError: See :func:`write_policy`.
    """
    text = path.read_bytes().decode("utf-8")  # line ends stay, too
    for name, number in numbers.items():
        config = json.loads(text)
        entries, owner = _policy(config, policy, path)
        if name not in entries:
            text = _added(text, owner, name, number)
            continue
        keys = _locate(config, (*owner, name), path)
        value = _value(config, keys)
        if isinstance(value, bool) or not isinstance(value, int | float):
            msg = f"{path}: {'#'.join(keys)} must be a number to be replaced by {number:g}, got {value!r}"
            raise ValueError(msg)
        start, stop = _span(text, keys)
        text = text[:start] + json.dumps(number) + text[stop:]
    return text


def _policy(config: Any, keys: Keys, path: Path) -> tuple[dict[str, Any], Keys]:
    """Entries of the policy, and where they stand."""
    found = _locate(config, keys, path)
    entries = _value(config, found)
    if not isinstance(entries, dict):
        msg = f"{path}: {'#'.join(found)} must be an object with the policy's fields, got {entries!r}"
        raise ValueError(msg)
    return entries, found


def _locate(config: Any, keys: Keys, path: Path) -> Keys:
    """Keys of the entry itself, where those given pass through references."""
    found: Keys = ()
    for key in keys:
        owner = _value(config, found)
        if not isinstance(owner, dict) or key not in owner:
            msg = f"{path}: config must have the entry {'#'.join((*found, key))!r}"
            raise ValueError(msg)
        found = (*found, key)
        if isinstance(owner[key], str) and (reference := REFERENCE.fullmatch(owner[key])):
            found = _locate(config, tuple(re.split("::|#", reference[1])), path)
    return found


def _value(config: Any, keys: Keys) -> Any:
    for key in keys:
        config = config[key]
    return config


def _span(text: str, keys: Keys) -> tuple[int, int]:
    """Where in the text the value of an entry begins and ends."""
    at = _after_space(text, 0)
    for key in keys:
        at = _member(text, at, key)
    return at, json.JSONDecoder().raw_decode(text, at)[1]


def _member(text: str, at: int, key: str) -> int:
    """Where the value of ``key`` begins, in the object that begins ``at``."""
    decode = json.JSONDecoder().raw_decode
    while text[at] != "}":
        name, at = decode(text, _after_space(text, at + 1))
        at = _after_space(text, _after_space(text, at) + 1)  # behind the colon
        if name == key:
            return at
        at = _after_space(text, decode(text, at)[1])
    raise KeyError(key)


def _added(text: str, owner: Keys, name: str, number: float) -> str:
    """The text with one entry more, the first of its object, on a line of its own if the others have one."""
    at = _span(text, owner)[0] + 1
    inside = _after_space(text, at)
    comma = "" if text[inside] == "}" else ","
    return text[:at] + text[at:inside] + f"{json.dumps(name)}: {json.dumps(number)}" + comma + text[at:]


def _after_space(text: str, at: int) -> int:
    match = SPACE.match(text, at)
    assert match is not None
    return match.end()
