"""What pages are built of: one file that needs nothing from elsewhere, so that it can be sent by mail."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlops_llm.eval.markup import Html, tag, text

LONGEST, CELL = 3000, 300
"""Characters of a text on a page, and in a table."""


def document(title: str, parts: Iterable[Html], script: str = "") -> str:
    """A whole page.

    Args:
        title: in the browser's tab.
        parts: one after the other; nothing stands for an empty one.
        script: file beside this one that alone may run; else nothing may, even if something got through.
    """
    here = Path(__file__)
    style = here.with_name("page.css").read_text("utf-8")
    allowed, written = "default-src 'none'; style-src 'unsafe-inline'", ""
    if script:
        source = here.with_name(script).read_text("utf-8")
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        allowed, written = f"{allowed}; script-src 'sha256-{digest}'", f"<script>{source}</script>\n"
    policy = tag("meta", http_equiv="Content-Security-Policy", content=allowed)
    head = [
        '<meta charset="utf-8">', policy.removesuffix("</meta>"), '<meta name="viewport" content="width=device-width">',
        tag("title", title), f"<style>{style}</style>",
    ]  # fmt: skip
    body = "\n".join(filter(None, parts))
    return f'<!DOCTYPE html>\n<html lang="zh-Hans"><head>\n{"".join(head)}\n</head><body>\n{body}\n{written}</body></html>\n'


def section(title: str, chinese: str, *inside: Any) -> Html:
    """A part of a page under its title."""
    return tag("section", tag("h2", title, tag("span", chinese) if chinese else None), *inside)


def table(
    heads: Sequence[str], rows: Sequence[Sequence[Any]], shapes: Mapping[int, str] | None = None, class_: str | None = None
) -> Html:
    """A table without the columns in which nothing stands.

    Args:
        heads: of the columns.
        rows: cells; what is not `Html` is cut where it is long.
        shapes: CSS classes of columns.
        class_: CSS class of the table.
    """
    kept = [place for place in range(len(heads)) if any(row[place] not in ("", None) for row in rows)]
    shapes = shapes or {}
    head = tag("tr", *(tag("th", heads[place]) for place in kept))
    body = [tag("tr", *(tag("td", _of_cell(row[place]), class_=shapes.get(place)) for place in kept)) for row in rows]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *body), class_=class_), class_="scroll")


def more(count: int, most: int) -> Html | None:
    """That not all are on the page."""
    return tag("p", f"… and {count - most} more in the artifacts", class_="note") if count > most else None


def long(said: str, most: int = LONGEST) -> Html:
    """A text as it is, cut where it is very long, which is said."""
    if len(said) <= most:
        return text(said)
    left = f" … (cut 已截断; {len(said):,} characters, whole in the table of answers)"
    return Html(text(said[:most]) + tag("i", left))


def cut(said: str, most: int) -> str:
    """A text, cut where it is long."""
    return said if len(said) <= most else f"{said[:most]}…"


def _of_cell(cell: Any) -> Any:
    return cell if isinstance(cell, Html) else tag("bdi", cut(str(cell), CELL))
