"""Tables that a command writes on request."""

from __future__ import annotations

from pathlib import Path

from stseg3d.machine.tables import SUFFIXES


def ensure_table(output: Path | None) -> None:
    """Refuse a table that could not be written, before the work is done."""
    if output and output.suffix not in SUFFIXES:
        msg = f"-o must end on {' or '.join(SUFFIXES)}, got {output}"
        raise ValueError(msg)
    if output and not output.parent.is_dir():
        msg = f"-o must lie in a folder that exists, got {output}"
        raise FileNotFoundError(msg)


def write_table(text: str, output: Path) -> None:
    """Write a table, whole or not at all."""
    from stseg3d.machine.files import atomic_write_text

    atomic_write_text(output, text)
