"""Arguments: the parser, the types of its values, and rules that several commands share."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from stseg3d.cli.terminal import BAD

SECONDS = {"s": 1, "min": 60, "h": 3600}
PARTS = ("training", "validation", "test")
Command = tuple[argparse.ArgumentParser, Callable[[argparse.Namespace], int]]


class Parser(argparse.ArgumentParser):
    """Parser whose errors are one sentence."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Exit with the message."""
        self.exit(BAD, f"{self.prog}: error: {message}\n")


def add_machine(command: argparse.ArgumentParser) -> None:
    """Add ``--device`` and ``--threads``."""
    command.add_argument("--device", default="auto", type=device, help="auto, cpu, cuda or cuda:N (default: auto)")
    command.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: all cores)")


def add_trust(command: argparse.ArgumentParser) -> None:
    """Add ``--trust``."""
    command.add_argument(
        "--trust", action="store_true", help="run a bundle that is more than data, as you would a program from where it came"
    )


def ensure_own(given: str, bundle: Path, verb: str) -> None:
    """Refuse to change an embedded bundle."""
    if not Path(given).expanduser().is_dir():
        msg = f"DIR must be a folder of your own, got the embedded {bundle.name}: copy {bundle} and {verb} the copy"
        raise ValueError(msg)


# --- types -------------------------------------------------------------------


def device(text: str) -> str:
    """Name of a device."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        msg = f"must be auto, cpu, cuda or cuda:N, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return text


def positive(text: str) -> int:
    """Whole number above 0."""
    if not re.fullmatch(r"0*[1-9]\d*", text):
        msg = f"must be a whole number above 0, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def length(text: str) -> float:
    """Length in mm, 0 or more."""
    if not re.fullmatch(r"\d+(\.\d+)?|\.\d+", text):
        msg = f"must be a number of mm, 0 or more, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return float(text)


def share(text: str) -> float:
    """Share above 0 and below 1."""
    if not re.fullmatch(r"0?\.\d+", text) or not float(text):
        msg = f"must be a share above 0 and below 1, such as 0.99, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return float(text)


def numbers(text: str) -> tuple[float, ...]:
    """Numbers between commas."""
    if not re.fullmatch(r"\d*\.?\d+(,\d*\.?\d+)*", text):
        msg = f"must be numbers such as 0.5,0.3,0.1, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return tuple(float(part) for part in text.split(","))


def setting(text: str) -> tuple[str, Any]:
    """Entry of a plan and its value, from ``KEY=JSON``."""
    key, _, value = text.partition("=")
    try:
        return key, json.loads(value if key else "")
    except ValueError as error:
        msg = f"must be KEY=JSON, such as training#ema_decay=0.99, fine#rough_channel=true or training#target='\"component\"', got {text!r}"
        raise argparse.ArgumentTypeError(msg) from error


def sizes(text: str) -> list[int]:
    """Whole numbers above 0 between commas."""
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text):
        msg = f"must be sizes such as 32,48,64, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return [int(part) for part in text.split(",")]


def seconds(text: str) -> float:
    """Time with its unit, in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h)", text)
    if not match or not float(match[1]):
        msg = f"must be a time such as 90s, 30min or 2h, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return float(match[1]) * SECONDS[match[2]]
