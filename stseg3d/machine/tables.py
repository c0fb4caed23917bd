"""Tables as text: aligned columns for a terminal, Markdown, CSV, and JSON without NaN."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

SUFFIXES = (".csv", ".json")


@dataclass(frozen=True)
class Table:
    """Cells of text under a head.

    Args:
        head: Name of each column.
        rows: A cell for each column.
        words: How many columns, the first ones, hold words and are aligned to the left; the others hold numbers.
        title: Heading in Markdown.
    """

    head: list[str]
    rows: list[list[str]]
    words: int = 2
    title: str = ""

    def text(self) -> str:
        """Aligned columns under one line of names."""
        lines = [self.head, *self.rows]
        formats = [f"{'<' if n < self.words else '>'}{max(map(len, cells))}" for n, cells in enumerate(zip(*lines, strict=True))]
        return "\n".join("  ".join(map(format, line, formats)).rstrip() for line in lines)

    def markdown(self) -> str:
        """A table of GitHub's Markdown under a heading."""
        marks = [":--" if n < self.words else "--:" for n in range(len(self.head))]
        lines = [f"| {' | '.join(cells)} |" for cells in (self.head, marks, *self.rows)]
        return "\n".join([f"## {self.title}", "", *lines, ""])


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
    """A line for each record under the names of all, in the order in which they first occur; an empty cell where a record lacks one."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for record in records for name in record)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def json_text(content: Any, indent: int = 2) -> str:
    """JSON with null for NaN, which it does not have; NumPy's scalars are numbers."""
    return json.dumps(without_nan(content), indent=indent, allow_nan=False) + "\n"


def without_nan(content: Any) -> Any:
    """Content as JSON holds it: dictionaries with names of text, lists, plain numbers, None for NaN."""
    if isinstance(content, Mapping):
        return {str(key): without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [without_nan(value) for value in content]
    value = content.item() if hasattr(content, "item") else content  # a scalar of NumPy
    return None if isinstance(value, float) and isnan(value) else value
