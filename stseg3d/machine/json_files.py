"""JSON as a user may have written it: read strictly, so that nothing in it is lost in silence."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

MAX_DEPTH = 32  # of nesting; rendered configs are 8 deep


def read_json(content: bytes, what: str) -> Any:
    """Content of a JSON file in UTF-8, with or without a byte-order mark.

    Args:
        content: The bytes.
        what: Name of the file in messages.

    Raises:
        ValueError: If it is not JSON, or holds a key twice, a number that is not finite, or text that is not Unicode. Bytes of a file
            name that are not UTF-8 are text, as Python has them (``surrogateescape``).
    """

    def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [key for key, _ in pairs]
            msg = f"the key {next(key for key in names if names.count(key) > 1)!r} stands twice"
            raise ValueError(msg)
        return found

    def finite(text: str) -> float:
        number = float(text)
        if number - number != 0:
            msg = f"{text} is not a finite number"
            raise ValueError(msg)
        return number

    try:
        found = json.loads(content.decode("utf-8-sig"), object_pairs_hook=unique, parse_float=finite, parse_constant=finite)
        level, depth = [found], 0
        while level := [part for part in level if isinstance(part, dict | list)]:
            level = [item for part in level for item in (part.values() if isinstance(part, dict) else part)]
            depth += 1
            if depth >= MAX_DEPTH and level:
                msg = f"it is nested more than {MAX_DEPTH} deep"
                raise ValueError(msg)
        if b"\\u" in content:
            json.dumps(found, ensure_ascii=False).encode("utf-8", "surrogateescape")
        return found
    except (ValueError, RecursionError) as error:
        deep = isinstance(error, RecursionError)
        msg = f"{what} must be JSON: {f'it is nested more than {MAX_DEPTH} deep' if deep else error}"
        raise ValueError(msg) from error
