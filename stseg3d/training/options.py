"""Options of the recipe that are set from outside: written down beside the log, and into ``inference.json`` where it must agree."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from stseg3d.bundle import INFERENCE, METADATA, read_config, read_metadata
from stseg3d.inference.stages import Stage
from stseg3d.machine.files import atomic_write_text
from stseg3d.networks.composite import STAGES

logger = logging.getLogger(__name__)


def remember_options(options: Mapping[str, Any], path: Path, *, going_on: bool) -> None:
    """Write down what a stage is trained with; one that goes on must be of the same.

    Args:
        options: Entries of ``train.json`` that were set.
        path: The file, ``.json``.
        going_on: Whether the stage was begun before.

    Raises:
        ValueError: If it was begun with others.
    """
    text = json.dumps(options)
    if going_on and path.is_file():
        before, now = json.loads(path.read_text(encoding="utf-8")), json.loads(text)  # both as JSON has it: a tuple is a list
        if before != now:
            msg = f"{path}: a stopped stage must go on with the options it was begun with, {before}, got {now}"
            raise ValueError(msg)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(path, f"{text}\n")


def shared_options(bundle: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that ``inference.json`` has too, with the value of ``train.json``: what makes the networks and their inputs."""
    training, inference = read_config(bundle, "train.json"), read_config(bundle)
    return {key: value for key, value in options.items() if key in inference and inference[key] == training[key]}


def check_agreement(bundle: Path, trained: ConfigParser, options: Mapping[str, Any]) -> None:
    """Refuse to train what inference will not load.

    Args:
        bundle: Bundle folder.
        trained: Parser of ``train.json``, with its options.
        options: Entries that will be set in ``inference.json``.

    Raises:
        ValueError: If a network or the input of a stage is another in ``inference.json``.
    """
    used = read_config(bundle, overrides=options)
    for name in STAGES:
        ours, theirs = trained.get_parsed_content(f"{name}_stage"), used.get_parsed_content(f"{name}_stage")
        for what in ("size", "spacing_mm", "multiple", "rough_channel"):
            _check_same(f"{name}_stage.{what}", getattr(ours, what), getattr(theirs, what), bundle)
    one, other = (_shapes(parser) for parser in (trained, used))
    differing = next((name for name in (*one, *other) if one.get(name) != other.get(name)), None)
    if differing:
        _check_same(f"network_def, at {differing}", one.get(differing), other.get(differing), bundle)


def _shapes(parser: ConfigParser) -> dict[str, tuple[int, ...]]:
    return {name: tuple(t.shape) for name, t in parser.get_parsed_content("network_def").state_dict().items()}


def _check_same(what: str, trained: Any, used: Any, bundle: Path) -> None:
    if trained != used:
        msg = f"{bundle}: {what} must be the same in train.json and inference.json, got {trained} and {used}"
        raise ValueError(msg)


def write_shared(bundle: Path, options: Mapping[str, Any]) -> None:
    """Set entries of the bundle's ``inference.json`` and ``train.json``; without options the files are not touched."""
    for path in (bundle / "configs" / "train.json", bundle / INFERENCE):
        parser = ConfigParser(json.loads(path.read_text(encoding="utf-8")))
        changed = {key: value for key, value in options.items() if parser[key] != value}
        if not changed:
            continue
        for key, value in changed.items():
            parser[key] = value
        atomic_write_text(path, config_text(parser.get()))
        logger.warning("%s: as trained, %s", path, ", ".join(f"{key}={json.dumps(value)}" for key, value in changed.items()))


def write_channels(bundle: Path, stage: Stage, image_channels: int) -> None:
    """Let the bundle's metadata say how many channels the fine network takes, as MONAI's ``verify_net_in_out`` asks for."""
    metadata = read_metadata(bundle)
    entry = metadata.get("network_data_format", {}).get("inputs", {}).get("image", {})
    channels = network_channels(stage, image_channels)
    if entry.get("num_channels", channels) == channels:
        return
    names = dict(list(entry.get("channel_def", {}).items())[:image_channels])
    entry |= {"num_channels": channels, "channel_def": names | ({str(image_channels): "rough probability"} if stage.rough_channel else {})}
    atomic_write_text(bundle / METADATA, config_text(metadata))


def config_text(content: Any) -> str:
    """JSON of a config, lists of numbers and words on one line."""
    text = json.dumps(content, indent=4, ensure_ascii=False) + "\n"
    return re.sub(r"\[\n\s+([^\[\]{}]{1,100}?)\n\s+\]", lambda m: "[" + re.sub(r",\n\s+", ", ", m[1]) + "]", text)


def network_channels(stage: Stage, image_channels: int) -> int:
    """Channels that the network of a stage takes."""
    return image_channels + int(stage.rough_channel)


def without_rough_channel(network: Any) -> Any:
    """A network's definition as it is without ``rough_channel``: for a rough network of the fine one's architecture."""
    if isinstance(network, dict):
        return {key: without_rough_channel(value) for key, value in network.items()}
    return network.replace("int(@rough_channel)", "0") if isinstance(network, str) else network
