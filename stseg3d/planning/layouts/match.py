"""Images matched with labels by name, at the first level of understanding at which most labels find an image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

from stseg3d.machine.tables import abbreviated
from stseg3d.planning.findings import Finding
from stseg3d.planning.layouts.found import PARTS, DataFound, Entry
from stseg3d.planning.layouts.walk import Named
from stseg3d.planning.layouts.words import Role, without_channel, without_words
from stseg3d.volumes.names import SEPARATOR

ONE_LABEL = "a case has one label map; put several together first"
ONE_IMAGE = "a case has one image a channel"
ALL_CHANNELS = "a case has all channels"
KNOWN_CHANNELS = "a channel is one that most cases have, or that was asked for; it is left out"
LABELLED = "an image has a label; it is left out"
IMAGED = "a label has an image; it is left out"
SOME_MATCH = "names of images and labels match"


@dataclass(frozen=True)
class Level:
    """A way to understand names.

    Args:
        text: What it is called in reports.
        image: Key of an image and the name of its channel; images and labels with one key are one case. Empty if it says none.
        label: Key of a label.
        any_channel: Whether names of channels are only what is left of a file's name, which means nothing where a case has one image.
        guess: Whether it takes more for equal than names say, so that few lone images do not speak for it.
    """

    text: str
    image: Callable[[Named], tuple[str, str]]
    label: Callable[[Named], str]
    any_channel: bool = False
    guess: bool = False


@dataclass
class _Group:
    """Images by channel and labels with one key."""

    images: dict[str, list[Named]] = field(default_factory=dict)
    labels: list[Named] = field(default_factory=list)
    part: str = ""


_Groups = dict[tuple[str, str], _Group]  # by key, and part where that matters


def match(images: Sequence[Named], labels: Sequence[Named], levels: Sequence[Level], *, channels: Sequence[str] = ()) -> DataFound:
    """Cases of images and labels whose names match, and findings for all that do not.

    Args:
        images: Images.
        labels: Labels.
        levels: Ways to understand names; the first at which most cases have both an image and a label is taken.
        channels: Which channels to take, in order; by default those that most cases have.
    """
    with_parts = bool({i.part for i in images} & {label.part for label in labels} - {""})
    understood = [(_grouped(images, labels, level=level, with_parts=with_parts), level) for level in levels]
    if max(_matched(groups) for groups, _ in understood) < len(labels):
        understood += [(_grouped(images, labels, level=level, with_parts=with_parts), level) for level in map(_folded, levels)]
    by_key, level = max(understood, key=_worth)
    if not _matched(by_key):
        return DataFound(findings=(_no_match(images, labels),))
    groups = _with_ids(by_key)
    whole = [(name, group) for name, group in groups if group.images and (group.labels or group.part == "test")]
    names = list(channels) or _common_channels([group for _, group in whole], level)
    findings = [finding for name, group in groups for finding in _lone(name, group)]
    parts: dict[str, list[Entry]] = {part: [] for part in PARTS}
    for name, group in whole:
        found = _ambiguities(name, group, names)
        findings += found
        if all(finding.level == "warning" for finding in found):
            files = tuple(group.images[channel][0].path for channel in names or group.images)
            parts[group.part or "training"].append(Entry(name, files, group.labels[0].label_path if group.labels else None))
    lists: dict[str, Any] = {part: tuple(entries) for part, entries in parts.items()}
    return DataFound(**lists, channels=tuple(name for name in names if name), layout=level.text, findings=tuple(findings))


def _grouped(images: Iterable[Named], labels: Iterable[Named], *, level: Level, with_parts: bool) -> _Groups:
    groups: _Groups = {}
    for image in images:
        key, channel = level.image(image)
        key = key or f"{image.path.name} "  # no key of a label
        group = groups.setdefault((key, image.part if with_parts else ""), _Group(part=image.part))
        group.images.setdefault(channel, []).append(image)
    for label in labels:
        key = level.label(label) or f" {label.path.name}"
        groups.setdefault((key, label.part if with_parts else ""), _Group(part=label.part)).labels.append(label)
    return groups


def _with_ids(groups: _Groups) -> list[tuple[str, _Group]]:
    """Groups with the ids of their cases, in order."""
    counts = Counter(key for key, _ in groups)
    return [(_id(key, part if counts[key] > 1 else ""), group) for (key, part), group in sorted(groups.items(), key=lambda i: i[0])]


def _id(key: str, part: str) -> str:
    """Id of a case: its key, without a folder's name that is repeated at the beginning of the next."""
    *folders, last = [part, *key.strip().split("/")]
    kept = [
        name
        for name, below in zip(folders, [*folders[1:], last], strict=True)
        if name and not f"{below}_".startswith((f"{name}_", f"{name}-"))
    ]
    return SEPARATOR.join([*kept, last])


def _matched(groups: _Groups) -> int:
    return sum(bool(group.images and group.labels) for group in groups.values())


def _worth(understood: tuple[_Groups, Level]) -> tuple[int, float]:
    """How many cases a level finds, and then how few images it leaves alone."""
    groups, level = understood
    lone = -inf if level.guess else -sum(len(group.images) for group in groups.values() if not group.labels)
    return _matched(groups), lone


def _no_match(images: Sequence[Named], labels: Sequence[Named]) -> Finding:
    sides = (("images", images), ("labels", labels))
    texts = [f"{len(found)} {what} ({abbreviated((n.path.name for n in found), 2)})" for what, found in sides]
    return Finding("error", "", SOME_MATCH, " and ".join(texts))


def _lone(name: str, group: _Group) -> list[Finding]:
    if not group.images:
        return [Finding("warning", name, IMAGED, label.path.name) for label in group.labels]
    if not group.labels and group.part != "test":
        return [Finding("warning", name, LABELLED, image.path.name) for found in group.images.values() for image in found]
    return []


def _common_channels(groups: Sequence[_Group], level: Level) -> list[str]:
    """Channels that half of the cases have, in order of name; none where the names of single images tell nothing."""
    channels = {channel for group in groups for channel in group.images}
    alike = level.any_channel or ("" in channels and len(channels) == 2)
    if alike and all(len(group.images) == 1 for group in groups):
        return []
    counts = Counter(channel for group in groups for channel in group.images)
    return sorted(channel for channel, count in counts.items() if 2 * count >= len(groups))


def _ambiguities(name: str, group: _Group, channels: Sequence[str]) -> list[Finding]:
    found = [
        Finding("error", name, ONE_IMAGE, abbreviated(image.path.name for image in images))
        for channel, images in group.images.items()
        if len(images) > 1 and (channel in channels or not channels)
    ]
    if len(group.labels) > 1:
        value = f"{len(group.labels)}: {abbreviated((label.path.name for label in group.labels), 3)}"
        found.append(Finding("error", name, ONE_LABEL, value))
    extra = [channel or "the one without a name" for channel in group.images if channels and channel not in channels]
    found += [Finding("warning", name, KNOWN_CHANNELS, channel) for channel in extra]
    missing = [channel or "the one without a name" for channel in channels if channel not in group.images]
    if missing:
        found.append(Finding("error", name, ALL_CHANNELS, f"no {', '.join(missing)}"))
    return found


# --- levels ------------------------------------------------------------------


def _joined(names: Iterable[str]) -> str:
    return "/".join(name for name in names if name)


def _plain(named: Named) -> str:
    """Path below the folder of images or labels, without suffix."""
    return _joined([*named.folders, named.stem])


def _stripped(named: Named, role: Role) -> str:
    """Path without the words that say the role."""
    return _joined([*named.folders, without_words(named.stem, role)])


def _alone(named: Named) -> Named:
    """The file without its folders."""
    return replace(named, folders=())


def _folded(level: Level) -> Level:
    """The level without regard to upper and lower case."""

    def image(named: Named) -> tuple[str, str]:
        key, channel = level.image(named)
        return key.casefold(), channel

    return replace(level, text=f"{level.text}, whatever their case", image=image, label=lambda named: level.label(named).casefold())


def _channelled(named: Named, role: Role) -> tuple[str, str]:
    """Path without words and channel, and the channel."""
    stem, channel = without_channel(without_words(named.stem, role))
    return _joined([*named.folders, without_words(stem, role)]), channel


def _label_channelled(named: Named) -> str:
    """Key of a label named after one of the channels, as ``p1_t1_seg``; a number is part of the case's name."""
    key, channel = _channelled(named, "label")
    return _stripped(named, "label") if channel.isdigit() else key


def _nnunet(named: Named) -> tuple[str, str]:
    stem, channel = without_channel(named.stem)
    return (_joined([*named.folders, stem]), channel) if channel.isdigit() else (_plain(named), "")


def _in_folder(named: Named) -> tuple[str, str]:
    """The folder of a file, or the folder that is a series."""
    folders = [*named.folders, named.stem] if named.path.is_dir() else named.folders
    return _joined(folders), named.stem.removeprefix(folders[-1] if folders else "").lstrip("-_. ")


def _in_top_folder(named: Named) -> tuple[str, str]:
    top = named.folders[0] if named.folders else named.stem if named.path.is_dir() else ""
    return top, named.stem.removeprefix(top).lstrip("-_. ")


NNUNET_LEVELS = (Level("nnU-Net", _nnunet, _plain),)
NAME_LEVELS = (
    Level("equal names", lambda n: (_plain(n), ""), _plain),
    Level("names of labels with a word such as seg or mask", lambda n: (_plain(n), ""), lambda n: _stripped(n, "")),
    Level("names with words such as image, seg or mask", lambda n: (_stripped(n, "image"), ""), lambda n: _stripped(n, "label")),
    Level("names with channels", lambda n: _channelled(n, "image"), lambda n: _stripped(n, "label")),
    Level("names with channels, labels too", lambda n: _channelled(n, "image"), _label_channelled),
    Level("a folder a case", _in_folder, lambda n: _in_folder(n)[0], any_channel=True, guess=True),
    Level("a folder a case, with folders in it", _in_top_folder, lambda n: _in_top_folder(n)[0], any_channel=True, guess=True),
    Level("names alone", lambda n: (_stripped(_alone(n), "image"), ""), lambda n: _stripped(_alone(n), "label"), guess=True),
    Level("names alone, with channels", lambda n: _channelled(_alone(n), "image"), lambda n: _stripped(_alone(n), "label"), guess=True),
)
