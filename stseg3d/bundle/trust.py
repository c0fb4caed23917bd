"""Whether a bundle's configs call anything but what a segmentation needs, found out before anything of them runs.

A seat belt, not a sandbox: it reads what MONAI would make and evaluate, and refuses what :mod:`stseg3d.bundle.allowed` does not list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from stseg3d.bundle.allowed import fetches, is_allowed
from stseg3d.bundle.expressions import find_calls, read_import

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

# Entries of a component that are not its arguments; MONAI stops in a debugger for `_debug_`.
MODES = ("default", "callable")
# Imports of the standard library that configs may make, beside what is allowed to be called.
IMPORTS = ("importlib.util.find_spec", "math", "monai", "numpy", "torch", "torch.distributed")


class UntrustedError(ValueError):
    """A config calls something that is not allowed without trust."""


def ensure_trusted(parser: ConfigParser, what: str) -> None:
    """Refuse configs that call anything outside the allow-list.

    What counts is what MONAI's own parser takes for a component or an expression. Nothing is made, evaluated or imported by name.

    Args:
        parser: Its content as read from the files; not changed.
        what: Names bundle and files in the message.

    Raises:
        UntrustedError: If they do; the message names the first entry and what it calls.
    """
    found = list(find_untrusted(parser))
    if not found:
        return
    entry, call = found[0]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    msg = f"{what} must call only what is known to compute, got {call} in {entry!r}{more}; a bundle is a program: "
    msg += "if you would run one from where it came, give --trust (in Python trust=True)"
    raise UntrustedError(msg)


def find_untrusted(parser: ConfigParser) -> Iterator[tuple[str, str]]:
    """Each entry's id (``network_def#rough``) and what it calls that is not allowed."""
    content = parser.get()
    foreign = [*_file_macros(content)]
    yield from foreign
    if foreign:
        return  # to go on would read them
    try:
        items = _parsed(parser, content)
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        yield "", f"references that lead nowhere ({' '.join(str(error).split()) or type(error).__name__})"
        return
    expressions = {key: item.config for key, item in items.items() if _is_expression(item.config)}
    imported: dict[str, str] = {}
    for key, text in expressions.items():
        yield from ((_shown(key), call) for call in _import(text[1:], imported))
    for key, item in items.items():
        if isinstance(item.config, Mapping) and "_target_" in item.config:
            yield from ((_shown(key), call) for call in _component(item.config, parser))
    for key, text in expressions.items():
        yield from ((_shown(key), call) for call in _expression(text, imported))


def _parsed(parser: ConfigParser, content: Any) -> Mapping[str, Any]:
    """Items as MONAI would resolve them, of a copy; nothing is made."""
    copy = type(parser)(deepcopy(content))
    copy.locator = parser.locator  # it knows MONAI's components by name, which takes a while
    copy.parse()
    items: Mapping[str, Any] = copy.ref_resolver.items
    return items


def _file_macros(content: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Strings that MONAI replaces by what stands in another file."""
    from monai.bundle import ConfigParser

    if isinstance(content, str) and content.startswith("%") and ConfigParser.split_path_id(content[1:])[0]:
        yield key, f"the file {content[1:]}"
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for name, value in pairs:
        yield from _file_macros(value, f"{key}#{name}" if key else str(name))


def _is_expression(config: Any) -> bool:
    return isinstance(config, str) and config.startswith("$")


def _shown(key: str) -> str:
    return key.replace("::", "#")


def _import(text: str, imported: dict[str, str]) -> Iterator[str]:
    """What an import brings that is not allowed; otherwise it is put among ``imported``."""
    try:
        bound = read_import(text)
    except (SyntaxError, RecursionError, MemoryError):
        return  # no import; an expression with references looks so
    except ValueError as error:
        yield f"an import of {error}"
        return
    if bound is None:
        return
    name, path = bound
    if not (path in IMPORTS or is_allowed(path)) or imported.get(name, path) != path:
        yield f"an import of {path}"
        return
    imported[name] = path


def _expression(text: str, imported: Mapping[str, str]) -> list[str]:
    from monai.bundle import ReferenceResolver

    # MONAI replaces references as text, also inside of strings, so what it makes of them is what has to be read.
    written = ReferenceResolver.update_refs_pattern(text, dict.fromkeys(ReferenceResolver.match_refs_pattern(text)))[1:]
    try:
        if read_import(written) is not None:
            return []  # judged above
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        pass
    return find_calls(written, imported)


def _component(config: Mapping[str, Any], parser: ConfigParser) -> Iterator[str]:
    target, mode = config["_target_"], config.get("_mode_", "default")
    if not isinstance(target, str) or target[:1] in {"$", "@", "%"}:
        yield "whatever its _target_ comes to"
        return
    if mode not in MODES or "_debug_" in config:
        yield f"a debugger (_mode_ {mode!r})" if "_debug_" not in config else "a debugger (_debug_)"
    homes = parser.locator.get_component_module_name(target) or []
    paths = [f"{home}.{target}" for home in ([homes] if isinstance(homes, str) else homes)] or [target]
    if not all(is_allowed(path) for path in paths):
        yield target if len(paths) > 1 or paths == [target] else paths[0]
        return
    fetched = fetches(paths[0], config)
    if fetched:
        yield f"{target} with {fetched}"
