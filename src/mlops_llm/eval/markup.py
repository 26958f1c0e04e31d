"""HTML in which everything is text unless it was made here."""

from __future__ import annotations

import html
import re
from typing import Any

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff0-\ufffb\ufffe\uffff"
    "\U000e0000-\U000e0fff]"
)
"""What nobody sees: control characters, half of a pair, marks that turn the direction of what follows, tags. Joiners and
selectors stay, since scripts and emoji are written with them."""


class Html(str):
    """Markup; any other text is escaped where it is put into it."""

    __slots__ = ()


def text(value: Any) -> Html:
    r"""A value as text, whatever is in it: what would be no character on a page is written as `\u202e`."""
    if isinstance(value, Html):
        return value
    plain = str(value).replace("\r\n", "\n")
    return Html(html.escape(_HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", plain)))


def tag(name: str, *inside: Any, **attributes: Any) -> Html:
    """An element.

    Args:
        name: of the element.
        inside: its content; None is left out.
        attributes: `class_` is `class`, `text_anchor` is `text-anchor`; one that is None is left out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"' for key, value in attributes.items() if value is not None
    )
    content = "".join(text(each) for each in inside if each is not None)
    return Html(f"<{name}{written}>{content}</{name}>")
