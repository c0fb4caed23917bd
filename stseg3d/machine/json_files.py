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
        ValueError: If it is not JSON, or holds a key twice or a number that is not finite.
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
        level = [found]
        for _ in range(MAX_DEPTH):
            level = [
                item for part in level for item in (part.values() if isinstance(part, dict) else part if isinstance(part, list) else ())
            ]
        if level:
            msg = f"it is nested more than {MAX_DEPTH} deep"
            raise ValueError(msg)
        return found
    except (ValueError, RecursionError) as error:
        msg = f"{what} must be JSON: {error}"
        raise ValueError(msg) from error
