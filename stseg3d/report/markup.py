"""HTML and SVG, made so that text can never become markup: every text is escaped where it enters."""

from __future__ import annotations

from html import escape

# Elements without content and without an end tag.
VOID = {"br", "col", "hr", "img", "input", "link", "meta"}


class Markup(str):
    """Text that is HTML already, and is not escaped again."""

    __slots__ = ()


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """One element with what is in it.

    Args:
        name: Its tag.
        children: What is in it, one after the other; :class:`Markup` as it is, all else as text. None is left out.
        attributes: Its attributes: a ``_`` in a name becomes ``-``, one at the end is dropped (``class_``); True stands alone, None and
            False are left out.

    Example:
        >>> element("a", "x < y & z", href="#1", class_="link", hidden=False)
        '<a href="#1" class="link">x &lt; y &amp; z</a>'
    """
    parts = [name]
    for key, value in attributes.items():
        if value is not None and value is not False:
            label = key.removesuffix("_").replace("_", "-")
            parts.append(label if value is True else f'{label}="{escape(str(value))}"')
    start = f"<{' '.join(parts)}>"
    return Markup(start if name in VOID else f"{start}{join(*children)}</{name}>")


def join(*children: object) -> Markup:
    """Pieces one after the other, text escaped.

    Example:
        >>> join(element("b", "1 <"), None, " < ", 2)
        '<b>1 &lt;</b> &lt; 2'
    """
    return Markup("".join(child if isinstance(child, Markup) else escape(str(child)) for child in children if child is not None))


def data_block(text: str, name: str, kind: str) -> Markup:
    """A script element that browsers keep and never run.

    Args:
        text: JSON or base64. In JSON ``<`` is written as an escape, so that no text of it ends the element.
        name: Its id.
        kind: Its MIME type.
    """
    return Markup(f'<script type="{escape(kind)}" id="{escape(name)}">{text.replace("<", chr(92) + "u003c")}</script>')
