"""Arguments: the parser, the types of its values, and rules that several commands share."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from stseg3d.cli.terminal import BAD
from stseg3d.machine.tables import SUFFIXES

SECONDS = {"s": 1, "min": 60, "h": 3600}
PARTS = ("training", "validation", "test")
Value = TypeVar("Value")
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


def add_settings(command: argparse.ArgumentParser, what: str) -> None:
    """Add ``--set``, as ``overrides``."""
    command.add_argument("--set", dest="overrides", type=setting, action="append", default=[], metavar="KEY=JSON", help=what)


def ensure_table(output: Path | None) -> None:
    """Refuse a table that could not be written, before the work is done."""
    if output and output.suffix not in SUFFIXES:
        msg = f"-o must end on {' or '.join(SUFFIXES)}, got {output}"
        raise ValueError(msg)
    if output and not output.parent.is_dir():
        msg = f"-o must lie in a folder that exists, got {output}"
        raise FileNotFoundError(msg)


# --- types -------------------------------------------------------------------


def matching(pattern: str, rule: str, value: Callable[[str], Value]) -> Callable[[str], Value]:
    """Type of an argument: its value, if the text matches a pattern as a whole; else the rule is told."""

    def read(text: str) -> Value:
        if not re.fullmatch(pattern, text):
            msg = f"must be {rule}, got {text!r}"
            raise argparse.ArgumentTypeError(msg)
        return value(text)

    return read


device = matching(r"auto|cpu|cuda(:\d+)?", "auto, cpu, cuda or cuda:N", str)
positive = matching(r"0*[1-9]\d*", "a whole number above 0", int)
length = matching(r"\d+(\.\d+)?|\.\d+", "a number of mm, 0 or more", float)
share = matching(r"0?\.\d*[1-9]\d*", "a share above 0 and below 1, such as 0.99", float)
numbers = matching(r"\d*\.?\d+(,\d*\.?\d+)*", "numbers such as 0.5,0.3,0.1", lambda text: tuple(map(float, text.split(","))))
sizes = matching(r"[1-9]\d*(,[1-9]\d*)*", "sizes such as 32,48,64", lambda text: [*map(int, text.split(","))])
seconds = matching(
    r"(?=.*[1-9])[0-9]+(\.[0-9]+)?\s*(s|min|h)",
    "a time such as 90s, 30min or 2h",
    lambda text: float(text.rstrip("sminh ")) * SECONDS[text.lstrip("0123456789. ")],
)


def setting(text: str) -> tuple[str, Any]:
    """Entry of a plan and its value, from ``KEY=JSON``."""
    key, _, value = text.partition("=")
    try:
        return key, json.loads(value if key else "")
    except ValueError as error:
        msg = f"must be KEY=JSON, such as training#ema_decay=0.99, fine#rough_channel=true or training#target='\"component\"', got {text!r}"
        raise argparse.ArgumentTypeError(msg) from error
