"""JSON to frozen values and back. Reading is strict, so that no typing mistake is accepted in silence."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Generic, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
WIDTH = 110
MAX_WHOLE_NUMBER = 2**63
MAX_RULE = f"less than {MAX_WHOLE_NUMBER}"
WORDS: Mapping[Any, str] = {int: "a whole number", float: "a number", str: "a word", bool: "true or false"}


@dataclass(frozen=True)
class Both(Generic[T]):
    """One value for each of the two stages."""

    rough: T
    fine: T


@dataclass(frozen=True)
class Component:
    """A network, transform, loss or optimiser, by name."""

    name: str  # one of the names in `stseg3d.plan.components`, or a full dotted name
    arguments: Mapping[str, Any]  # its arguments, as plain data


def build(kind: Any, content: Any, where: str) -> Any:
    """A value of a type, from parsed JSON.

    Args:
        kind: A dataclass, ``int``, ``float``, ``str``, ``bool``, ``Literal``, ``X | None``, ``tuple[X, ...]``, ``Mapping[str, X]``,
            ``Any``, or ``Annotated[X, low, high]`` with the smallest and largest number, or length of all else.
        content: Parsed JSON.
        where: Name of the place in messages, such as ``plan.json: rough``.

    Raises:
        ValueError: If a key is unknown or missing, a type is wrong, or a value breaks a rule of its class; the message names the place.
    """
    if kind is Any or (type(kind) is type and kind in WORDS):  # a journal has millions of them
        return content if kind is Any else _plain(kind, content, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Annotated, Literal):
        return _bounded(origin, arguments, content, where)
    if origin in (Union, UnionType):
        inner = next(a for a in arguments if a is not NoneType)
        return None if content is None and NoneType in arguments else build(inner, content, where)
    if kind is Component:
        return _component(content, where)
    if is_dataclass(origin or kind):
        return _value(kind, content, where)
    assert origin in (tuple, Sequence, Mapping), kind
    return _items(origin, arguments, content, where)


def dump(value: Any, like: Any = None, *, whole: bool = False) -> Any:
    """Plain JSON content from which :func:`build` makes the value.

    Args:
        value: A value.
        like: Earlier JSON of the value: its fields are written in its order, even those with their default.
        whole: Write all fields, not only those that differ from their defaults.
    """
    if isinstance(value, Component):
        return {"name": value.name, **{key: dump(item) for key, item in value.arguments.items()}}
    if is_dataclass(value) and not isinstance(value, type):
        like = like if isinstance(like, dict) else {}
        shown = [f.name for f in fields(value) if whole or f.name in like or not _is_default(f, getattr(value, f.name))]
        shown.sort(key=lambda name: [*like, name].index(name))
        return {name: dump(getattr(value, name), like.get(name), whole=whole) for name in shown}
    if isinstance(value, list | tuple):
        return [dump(item, whole=whole) for item in value]
    return {key: dump(item, whole=whole) for key, item in value.items()} if isinstance(value, Mapping) else value


def json_text(content: Any) -> str:
    """JSON text as a person would lay it out: what fits in a line is on one line."""
    return _laid_out(content, 0, top=True) + "\n"


def _laid_out(content: Any, indent: int, before: int = 0, *, top: bool = False) -> str:
    line = json.dumps(content, ensure_ascii=False)
    if not (isinstance(content, dict | list) and content) or (not top and indent + before + len(line) < WIDTH):
        return line
    inside = " " * (indent + 4)
    if isinstance(content, dict):
        names = {key: f"{json.dumps(key, ensure_ascii=False)}: " for key in content}
        parts = [names[key] + _laid_out(item, indent + 4, len(names[key])) for key, item in content.items()]
    else:
        parts = [_laid_out(item, indent + 4) for item in content]
    start, end = "{}" if isinstance(content, dict) else "[]"
    return f"{start}\n" + ",\n".join(inside + part for part in parts) + f"\n{' ' * indent}{end}"


def _value(kind: Any, content: Any, where: str) -> Any:
    """A dataclass; the first parameter of a generic one is the type of all its fields."""
    cls = get_origin(kind) or kind
    _ensure(isinstance(content, dict), "an object", content, where)
    hints, required = _hints(cls)
    if unknown := next((key for key in content if key not in hints), None):
        near = get_close_matches(str(unknown), hints, n=1)
        msg = f"{where} has no entry {unknown!r}" + (f"; is {near[0]!r} meant?" if near else f"; it has {', '.join(hints)}")
        raise ValueError(msg)
    if missing := next((key for key in required if key not in content), None):
        msg = f"{where} must have the entry {missing!r}"
        raise ValueError(msg)
    own = get_args(kind)
    given = {key: build(own[0] if own else hints[key], item, f"{where}#{key}") for key, item in content.items()}
    try:
        return cls(**given)
    except ValueError as error:
        msg = f"{where}: {error}"
        raise ValueError(msg) from error


def _items(origin: Any, kinds: Sequence[Any], content: Any, where: str) -> Any:
    if origin is Mapping:
        _ensure(isinstance(content, dict), "an object", content, where)
        return {key: build(kinds[1], item, f"{where}#{key}") for key, item in content.items()}
    _ensure(isinstance(content, list | tuple), "a list", content, where)
    return tuple(build(kinds[0], item, f"{where}#{n}") for n, item in enumerate(content))


def _component(content: Any, where: str) -> Component:
    _ensure(isinstance(content, dict) and isinstance(content.get("name"), str), 'an object with a "name"', content, where)
    return Component(content["name"], {key: item for key, item in content.items() if key != "name"})


def _plain(kind: type, content: Any, where: str) -> Any:
    if type(content) is int:
        _ensure(abs(content) < MAX_WHOLE_NUMBER, MAX_RULE, content, where)
        content = float(content) if kind is float else content
    _ensure(type(content) is kind, WORDS[kind], content, where)
    return content


def _bounded(origin: Any, arguments: Sequence[Any], content: Any, where: str) -> Any:
    if origin is Literal:
        _ensure(isinstance(content, str) and content in arguments, f"one of {', '.join(arguments)}", content, where)
        return content
    kind, low, high = arguments
    value = build(kind, content, where)
    is_number = type(value) in (int, float)
    if not low <= (value if is_number else len(value)) <= high:
        _ensure(False, f"{'' if is_number else 'of length '}{low:g} to {high:g}", content, where)
    return value


def _ensure(holds: bool, rule: str, content: Any, where: str) -> None:
    if not holds:
        msg = f"{where} must be {rule}, got {json.dumps(content, ensure_ascii=False)[:100]}"
        raise ValueError(msg)


def _is_default(field: Field[Any], value: Any) -> bool:
    if field.default is not MISSING:
        return bool(value == field.default)
    return field.default_factory is not MISSING and bool(value == field.default_factory())


@cache
def _hints(cls: type) -> tuple[dict[str, Any], list[str]]:
    """Types of the fields of a dataclass, and the names of those without a default."""
    hints = get_type_hints(cls, include_extras=True)
    return {f.name: hints[f.name] for f in fields(cls)}, [f.name for f in fields(cls) if f.default is f.default_factory is MISSING]
