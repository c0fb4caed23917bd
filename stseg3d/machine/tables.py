"""Tables as text: aligned columns for a terminal, Markdown, CSV, and JSON without NaN; and lists in a sentence."""

from __future__ import annotations

import csv
import io
import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from math import isnan
from typing import Any

SUFFIXES = (".csv", ".json")


@dataclass(frozen=True)
class Table:
    """Table of text cells with column names."""

    head: list[str]  # name of each column
    rows: list[list[str]]  # a cell for each column
    words: int = 2  # number of leading columns that are aligned to the left, as words; the others hold numbers
    title: str = ""  # heading in Markdown

    def text(self, width: int | None = None) -> str:
        """Aligned columns under one line of names.

        Args:
            width: Characters in a line: longer cells of words go on below, where they have a space. None for any number.
        """
        lines = [self.head, *self.rows]
        widths = self._widths(width)
        formats = [f"{'<' if n < self.words else '>'}{most}" for n, most in enumerate(widths)]
        wrapped = [part for line in lines for part in zip_longest(*map(_wrapped, line, widths), fillvalue="")]
        return "\n".join("  ".join(map(format, part, formats)).rstrip() for part in wrapped)

    def _widths(self, width: int | None) -> list[int]:
        """Width of each column; the widest of words are narrowed until all fit, but to no less than their longest word."""
        columns = list(zip(self.head, *self.rows, strict=True))
        widths = [max(map(len, cells)) for cells in columns]
        least = [max(len(word) for cell in cells for word in (*cell.split(), "")) for cells in columns[: self.words]]
        gaps = 2 * (len(widths) - 1)
        while width and sum(widths) + gaps > width and (wide := [n for n, few in enumerate(least) if widths[n] > few]):
            widths[max(wide, key=widths.__getitem__)] -= 1
        return widths

    def markdown(self) -> str:
        """GitHub Markdown table under a heading."""
        marks = [":--" if n < self.words else "--:" for n in range(len(self.head))]
        lines = [f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |" for cells in (self.head, marks, *self.rows)]
        return "\n".join([f"## {self.title}", "", *lines, ""])


def _wrapped(cell: str, width: int) -> list[str]:
    return [cell] if len(cell) <= width else textwrap.wrap(cell, width, break_long_words=False, break_on_hyphens=False)


def records_text(suffix: str, records: Sequence[Mapping[str, Any]], content: Mapping[str, Any]) -> str:
    """Records as CSV, or the whole content as JSON.

    Raises:
        ValueError: If the suffix is neither ``.csv`` nor ``.json``.
    """
    if suffix not in SUFFIXES:
        msg = f"tables are written as {' or '.join(SUFFIXES)}, got {suffix!r}"
        raise ValueError(msg)
    return csv_text(records) if suffix == ".csv" else json_text(content)


def csv_text(records: Sequence[Mapping[str, Any]]) -> str:
    """CSV with a line per record; columns in order of first occurrence, empty cells where a record lacks a value."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for record in records for name in record)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def json_text(content: Any, indent: int = 2) -> str:
    """JSON text with null for NaN; NumPy scalars become numbers."""
    return json.dumps(without_nan(content), indent=indent, allow_nan=False) + "\n"


def without_nan(content: Any) -> Any:
    """Content as plain JSON values: string keys, lists, plain numbers, None for NaN."""
    if isinstance(content, Mapping):
        return {str(key): without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [without_nan(value) for value in content]
    value = content.item() if hasattr(content, "item") else content  # a NumPy scalar
    return None if isinstance(value, float) and isnan(value) else value


def abbreviated(names: Iterable[Any], most: int = 3) -> str:
    """First names, and the number of the others."""
    listed = [str(name) for name in names]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
