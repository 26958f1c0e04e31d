"""What rows ask, and what good answers are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlops_llm.data.kinds import REFERENCES, Kind, infer, kind_of, own
from mlops_llm.data.read import Row, Source
from mlops_llm.data.tokens import View, views
from mlops_llm.digest import canonical
from mlops_llm.errors import UserError
from mlops_llm.record import DatasetInput


@dataclass(frozen=True)
class Question:
    """What a row asks."""

    turns: list[dict[str, Any]]
    """The conversation up to where the model is to answer."""
    tools: list[Any] | None
    references: tuple[str, ...]
    """Good answers, as far as the row tells any."""
    label: str | None = None
    """The class that the row belongs to, where it tells one."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What else the row says of itself, such as a subject."""

    @property
    def text(self) -> str:
        """The last turn, for a person."""
        return str(self.turns[-1].get("content") or "")


def question(row: Row, kind: Kind, where: str) -> Question:
    """What a row asks and what a good answer is: of a pair the chosen one; an answer that is not wanted is none.

    Raises:
        UserError: the row is not of this kind.
    """
    ours = own(row, kind, where)
    view = views(ours, kind)[0]
    turns = view.chat.messages[:-1] if view.answered else view.chat.messages
    references = tuple(each for each in _references(ours, kind, view) if each.strip())
    label = ours.get("label")
    told = str(label) if kind is Kind.eval and isinstance(label, str | int | float) else None
    said = ours.get("metadata")
    metadata = dict(said) if isinstance(said, Mapping) else {}
    short = {str(key): str(value) for key, value in metadata.items() if isinstance(value, str | int | float | bool)}
    return Question(turns, view.chat.tools, references, told, short)


def _references(row: Row, kind: Kind, view: View) -> list[str]:
    if view.answered:
        wanted = kind is not Kind.kto or row["label"] is True
        return [str(view.chat.messages[-1].get("content") or "")] if wanted else []
    found = next((row[field] for field in (*REFERENCES, "label") if row.get(field) is not None), None)
    several = found if isinstance(found, list) else [found]
    return [str(each) for each in several if isinstance(each, str | int | float) and not isinstance(each, bool)]


@dataclass(frozen=True)
class Questions:
    """The first questions of a dataset, each with a reference."""

    source: Source
    rows: list[int]
    asked: list[Question]
    drawn_by: int | None = None
    """Seed by which the rows were drawn; None of the first ones."""

    @property
    def name(self) -> str:
        """The dataset's name; where not all rows are asked with how many, and by which seed they were drawn."""
        if len(self.rows) == len(self.source.rows):
            return self.source.name
        return f"{self.source.name}[{len(self.rows)}{'' if self.drawn_by is None else f' of seed {self.drawn_by}'}]"

    @property
    def title(self) -> str:
        """Name and version; of a file that is no registered version its name, not where it lies on this machine."""
        source = self.source
        return f"{self.name} ({source.path.name if source.version == str(source.path) else source.version})"

    def as_input(self) -> DatasetInput:
        """The rows as the record names them."""
        digests = {"raw": self.source.raw, "canonical": canonical(self.source.rows[row] for row in self.rows)}
        return DatasetInput(self.name, self.source.version, str(self.source.path), "evaluation", len(self.rows), digests)


def first(source: Source, rows: Sequence[int], kinds: Sequence[Kind], most: int, setting: str) -> Questions:
    """The first `most` questions of some rows; answers that are not wanted are passed over.

    Args:
        source: the dataset.
        rows: places of its rows.
        kinds: what the rows may be, the first where fields do not tell; none where each row tells, and is of kind eval if not.
        most: questions at most.
        setting: by which other rows would be named, `evaluate.dataset` of a training.

    Raises:
        UserError: a row has no reference, or none is left; the row is named.
    """
    places, asked = list[int](), list[Question]()
    for place in rows:
        if len(asked) == most:
            break
        row, where = source.rows[place], source.where(place)
        kind = kind_of(row, kinds) if kinds else infer(row) or Kind.eval
        one = question(row, kind, where)
        if not one.references and kind is Kind.kto:
            continue
        if not one.references:
            remedy = f"give the row a 'reference', or take other rows: {setting}=REF"
            raise UserError("has no answer to compare with", where, remedy)
        places.append(place)
        asked.append(one)
    if not asked:
        raise UserError("no row has an answer to compare with", str(source.path), f"take other rows: {setting}=REF")
    return Questions(source, places, asked)
