"""Datasets as files for other programs."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from mlops_llm.data.chat import Conversation, conversation, read_from
from mlops_llm.data.delimited import AS_JSON, HEADING, is_number
from mlops_llm.data.kinds import Kind
from mlops_llm.data.read import Row, Source
from mlops_llm.data.rows import SHOWN
from mlops_llm.data.suspects import SURROGATE
from mlops_llm.errors import UserError, printable
from mlops_llm.files import replace, write_lines, write_text


class Form(Enum):
    """Form of an exported file."""

    auto = "auto"
    jsonl = "jsonl"
    json = "json"
    csv = "csv"
    parquet = "parquet"
    alpaca = "alpaca"
    sharegpt = "sharegpt"


def form_of(form: Form, path: Path) -> Form:
    """Decide `auto` from a file's ending.

    Raises:
        UserError: the ending tells nothing.
    """
    if form is not Form.auto:
        return form
    found = {".jsonl": Form.jsonl, ".json": Form.json, ".csv": Form.csv, ".parquet": Form.parquet}.get(path.suffix.lower())
    if found is None:
        raise UserError(
            f"the ending '{path.suffix}' names no form", str(path), "end it in .jsonl, .json, .csv or .parquet, or set op.form"
        )
    return found


def write(source: Source, kind: Kind, form: Form, path: Path) -> Path:
    """Write a dataset in a form; the file appears whole or not at all.

    CSV and Parquet keep nested values, and those that they have no place for, as JSON texts in columns NAME:json, which reading
    takes back; alpaca and sharegpt hold conversations (of calls of tools, sharegpt has no place for their ids).

    Raises:
        UserError: rows of this kind have no such form, or a row says something that the form cannot hold.
    """
    return _WRITERS[form](source, kind, path)


def _jsonl(source: Source, kind: Kind, path: Path) -> Path:
    return write_lines(path, (json.dumps(row, ensure_ascii=False) for row in source.rows))


def _json(source: Source, kind: Kind, path: Path) -> Path:
    return write_text(path, _array(source.rows), "backslashreplace")


def _csv(source: Source, kind: Kind, path: Path) -> Path:
    columns = _columns(source.rows, (str,), lambda name: bool(name.strip()) and not is_number(name))
    _check_names(columns, path, HEADING)
    with replace(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(["" if value is None else value for value in row] for row in zip(*columns.values(), strict=True))
    return path


def _parquet(source: Source, kind: Kind, path: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    columns = _columns(source.rows, (str, bool, int, float), lambda name: True)
    _check_names(columns, path)
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    with replace(path) as draft:
        parquet.write_table(table, draft)
    return path


def _columns(rows: Sequence[Row], types: tuple[type, ...], named: Callable[[str], bool]) -> dict[str, list[Any]]:
    """Columns of cells: values as they are where all rows have one and all are of one plain type, else JSON texts.

    A column of JSON texts is called NAME:json, and a row without the field has nothing in it; reading takes both back.

    Args:
        rows: the rows.
        types: what a cell may hold as it is.
        named: whether a name may be that of a column as it is.
    """
    found: dict[str, list[Any]] = {}
    for name in dict.fromkeys(key for row in rows for key in row):
        alike = len({type(row[name]) if name in row else None for row in rows}) == 1 and isinstance(rows[0].get(name), types)
        if alike and named(name) and not name.endswith(AS_JSON) and all(_fits(row[name]) for row in rows):
            found[name] = [row[name] for row in rows]
        else:
            found[name + AS_JSON] = [_cell(row[name]) if name in row else None for row in rows]
    return found


def _fits(value: Any) -> bool:
    """Whether a cell holds a value: texts are UTF-8, and whole numbers have 64 bits."""
    if isinstance(value, str):
        return SURROGATE.search(value) is None
    return not isinstance(value, int) or -(2**63) <= value < 2**63


def _cell(value: Any) -> str:
    said = json.dumps(value, ensure_ascii=False)
    return said if _fits(said) else json.dumps(value)


def _check_names(columns: Iterable[str], path: Path, longest: int = 0) -> None:
    for name in columns:
        if not _fits(name) or (longest and len(name) > longest):
            shown = printable(name[:SHOWN])
            raise UserError(f"field '{shown}' has a name that no column can have", str(path), "export as jsonl: op.form=jsonl")


def _alpaca(source: Source, kind: Kind, path: Path) -> Path:
    rows = []
    for place, chat in enumerate(_conversations(source, kind, Form.alpaca)):
        system = [turn for turn in chat.messages[:1] if turn["role"] == "system"]
        rest = chat.messages[len(system) :]
        others = _others(source.rows[place])
        flaw = _no_alpaca(chat, rest, others)
        if flaw:
            other = "jsonl" if _no_sharegpt(chat, others) else "sharegpt"
            raise UserError(f"{flaw}, which alpaca cannot hold", source.where(place), f"export it with op.form={other}")
        row = {"instruction": rest[0]["content"], "input": "", "output": rest[1]["content"]}
        rows.append({**row, **({"system": system[0]["content"]} if system else {}), **others})
    return write_text(path, _array(rows), "backslashreplace")


def _no_alpaca(chat: Conversation, turns: list[dict[str, Any]], others: Row) -> str:
    """What of a conversation alpaca has no place for; empty where it holds all."""
    if chat.tools or any(turn.get("tool_calls") for turn in turns):
        return "has tools"
    if [turn["role"] for turn in turns] != ["user", "assistant"]:
        return "has several turns"
    if not chat.messages[0]["content"]:
        return "has an empty system turn"
    more = next((key for turn in chat.messages for key in _beside(turn)), "")
    if more:
        return f"has a turn with '{more[:SHOWN]}'"
    return _taken(others, ("instruction", "input", "output", "history", "prompt", "response", "messages", "conversations"))


def _sharegpt(source: Source, kind: Kind, path: Path) -> Path:
    names = {"user": "human", "assistant": "gpt", "tool": "observation", "system": "system"}
    rows = []
    for place, chat in enumerate(_conversations(source, kind, Form.sharegpt)):
        others = _others(source.rows[place])
        flaw = _no_sharegpt(chat, others)
        if flaw:
            raise UserError(f"{flaw}, which sharegpt cannot hold", source.where(place), "export it as jsonl: op.form=jsonl")
        said: list[dict[str, Any]] = []
        for turn in chat.messages:
            if turn.get("tool_calls"):
                calls = [call.get("function", call) for call in turn["tool_calls"]]
                value = json.dumps(calls[0] if len(calls) == 1 else calls, ensure_ascii=False)
                said.append({"from": "function_call", "value": value, **_beside(turn)})
            else:
                said.append({"from": names[turn["role"]], "value": turn["content"], **_beside(turn)})
        rows.append({"conversations": said, **({"tools": chat.tools} if chat.tools else {}), **others})
    return write_text(path, _array(rows), "backslashreplace")


def _no_sharegpt(chat: Conversation, others: Row) -> str:
    """What of a conversation sharegpt has no place for; empty where it holds all."""
    for turn in chat.messages:
        if turn.get("tool_calls") and (turn.get("content") or "").strip():
            return "has a text beside a tool call"
        clash = next((key for key in ("from", "value") if key in turn), "")
        if clash:
            return f"has a turn with '{clash}'"
    return _taken(others, ("conversations", "messages", "prompt", "response"))


def _beside(turn: Mapping[str, Any]) -> dict[str, Any]:
    """What a turn says beside who and what: a weight of 1 is that of any other, a loss is read as weight, ids are of calls."""
    read = ("role", "content", "tool_calls", "tool_call_id", "loss")
    kept = {key: value for key, value in turn.items() if key not in read and value is not None}
    if kept.get("weight") == 1:
        del kept["weight"]
    return kept


def _taken(others: Row, fields: Sequence[str]) -> str:
    """Whether a field beside the conversation has the name of one of the form's."""
    name = next((field for field in fields if field in others), "")
    return f"has a field '{name}' beside the conversation" if name else ""


def _others(row: Row) -> Row:
    """The fields beside the conversation."""
    read = read_from(row)
    return {key: value for key, value in row.items() if key not in read}


def _conversations(source: Source, kind: Kind, form: Form) -> Iterator[Conversation]:
    if kind is not Kind.sft:
        raise UserError(f"rows of kind {kind.name} are no conversations", f"op.form={form.name}", "export them as jsonl")
    for place, row in enumerate(source.rows):
        yield conversation(row, source.where(place))


def _array(rows: Sequence[Row]) -> str:
    return "[\n" + ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n"


_WRITERS: dict[Form, Callable[[Source, Kind, Path], Path]] = {
    Form.jsonl: _jsonl,
    Form.json: _json,
    Form.csv: _csv,
    Form.parquet: _parquet,
    Form.alpaca: _alpaca,
    Form.sharegpt: _sharegpt,
}
