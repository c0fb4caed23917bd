"""HTML and SVG in which text never becomes markup: all text is escaped on entry."""

from __future__ import annotations

from html import escape

# Elements without content and without an end tag.
VOID = {"br", "col", "hr", "img", "input", "link", "meta"}


class Markup(str):
    """Text that is already HTML and is not escaped again."""

    __slots__ = ()


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """Element with its content.

    Args:
        name: Tag.
        children: Content in order: :class:`Markup` as it is, all else as text; None is left out.
        attributes: Attributes; ``_`` in a name becomes ``-``, or is dropped at the end (``class_``). True gives an attribute without value;
            None and False are left out.

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
    """Pieces joined in order, text escaped.

    Example:
        >>> join(element("b", "1 <"), None, " < ", 2)
        '<b>1 &lt;</b> &lt; 2'
    """
    return Markup("".join(child if isinstance(child, Markup) else escape(str(child)) for child in children if child is not None))


def data_block(text: str, name: str, kind: str) -> Markup:
    """Script element with data, which browsers do not run.

    Args:
        text: JSON or base64; ``<`` is escaped, so that the text cannot end the element.
        name: Id of the element.
        kind: MIME type.
    """
    return Markup(f'<script type="{escape(kind)}" id="{escape(name)}">{text.replace("<", chr(92) + "u003c")}</script>')
