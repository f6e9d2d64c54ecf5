"""HTML that is escaped unless it was made here: captions and urls come from strangers."""

import base64
from html import escape


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(name: str, *children: object, **attributes: str) -> Markup:
    """Children that are no Markup are escaped, and so are attributes; `class_` stands for class."""
    opened = "".join(f' {key.rstrip("_")}="{escape(value)}"' for key, value in attributes.items())
    return Markup(f"<{name}{opened}>{joined(*children)}</{name}>")


def joined(*children: object) -> Markup:
    return Markup("".join(child if isinstance(child, Markup) else escape(str(child)) for child in children))


def image(data: bytes, kind: str, alt: str) -> Markup:
    """kind: png or jpeg."""
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return Markup(f'<img src="{source}" alt="{escape(alt)}">')
