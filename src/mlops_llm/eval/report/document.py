"""A report as chapters of plain parts, whatever it is printed with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlops_llm.eval.markup import Html

Cell = str
"""Of a table: a text, or a picture (`Html` that is an SVG element)."""


def cut(said: str, most: int) -> str:
    """A text that is not longer than there is room for."""
    return said if len(said) <= most else f"{said[:most]}…"


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    soft: bool = False
    """It is a remark."""


@dataclass(frozen=True)
class Points:
    """Sentences one below the other."""

    items: Sequence[str]
    warns: bool = False


@dataclass(frozen=True)
class Card:
    """A number that is seen first."""

    title: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Cards:
    """Numbers side by side."""

    items: Sequence[Card]


@dataclass(frozen=True)
class Table:
    """Rows under column names; columns in which nothing stands are left out."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    right: Sequence[int] = ()
    """Columns of numbers."""
    wide: Sequence[int] = (0,)
    """Columns that take the room that is left."""

    @property
    def kept(self) -> list[int]:
        """Columns in which something stands."""
        return [place for place in range(len(self.columns)) if any(row[place] for row in self.rows)]


@dataclass(frozen=True)
class Facts:
    """Names with what they mean here."""

    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Charts:
    """Pictures with a title, side by side."""

    items: Sequence[tuple[str, Html]]


@dataclass(frozen=True)
class Case:
    """One sample."""

    head: str
    chips: Sequence[str]
    rows: Sequence[tuple[str, str]]
    failed: bool = False


@dataclass(frozen=True)
class Cases:
    """Samples one below the other."""

    items: Sequence[Case]


Part = Text | Points | Cards | Table | Facts | Charts | Cases


@dataclass(frozen=True)
class Section:
    """A part of a chapter."""

    title: str
    """Empty of what stands at a chapter's beginning."""
    parts: Sequence[Part]


@dataclass(frozen=True)
class Chapter:
    """A chapter, or the appendix."""

    title: str
    sections: Sequence[Section]


@dataclass(frozen=True)
class Document:
    """A report."""

    lang: str
    """`zh` or `en`."""
    title: str
    subtitle: str
    about: Sequence[tuple[str, str]]
    """What stands beneath the title."""
    contents: str
    """What the table of contents is called."""
    chapters: Sequence[Chapter]
    appendix: Chapter
