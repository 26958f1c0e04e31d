"""Datasets as files for other programs."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from mlops_llm.data.chat import conversation
from mlops_llm.data.kinds import Kind
from mlops_llm.data.read import AS_JSON, Row, Source
from mlops_llm.errors import UserError
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

    CSV and Parquet keep nested values as JSON texts in columns NAME:json, which reading takes back; alpaca and sharegpt hold
    conversations (of calls of tools, sharegpt has no place for their ids).

    Raises:
        UserError: rows of this kind have no such form.
    """
    return _WRITERS[form](source, kind, path)


def _jsonl(source: Source, kind: Kind, path: Path) -> Path:
    return write_lines(path, (json.dumps(row, ensure_ascii=False) for row in source.rows))


def _json(source: Source, kind: Kind, path: Path) -> Path:
    return write_text(path, _array(source.rows), "backslashreplace")


def _csv(source: Source, kind: Kind, path: Path) -> Path:
    columns = _columns(source.rows, (str,))
    with replace(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(["" if value is None else value for value in row] for row in zip(*columns.values(), strict=True))
    return path


def _parquet(source: Source, kind: Kind, path: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    table = pa.table({name: pa.array(values) for name, values in _columns(source.rows, (str, bool, int, float)).items()})
    with replace(path) as draft:
        parquet.write_table(table, draft)
    return path


def _columns(rows: Sequence[Row], plain: tuple[type, ...]) -> dict[str, list[Any]]:
    """Columns of cells: values as they are where all rows have one and all are of one plain type, else JSON texts.

    A column of JSON texts is called NAME:json, and a row without the field has nothing in it; reading takes both back.
    """
    found: dict[str, list[Any]] = {}
    for name in dict.fromkeys(key for row in rows for key in row):
        if len({type(row[name]) if name in row else None for row in rows}) == 1 and isinstance(rows[0].get(name), plain):
            found[name] = [row[name] for row in rows]
        else:
            found[name + AS_JSON] = [json.dumps(row[name], ensure_ascii=False) if name in row else None for row in rows]
    return found


def _alpaca(source: Source, kind: Kind, path: Path) -> Path:
    rows = []
    for place, turns in enumerate(_conversations(source, kind, Form.alpaca)):
        system = turns[0]["content"] if turns[0]["role"] == "system" else ""
        rest = turns[1:] if system else turns
        if [turn["role"] for turn in rest] != ["user", "assistant"]:
            raise UserError(
                "has several turns, which alpaca cannot hold", source.where(place), "export it with op.form=sharegpt"
            )
        row = {"instruction": rest[0]["content"], "input": "", "output": rest[1]["content"]}
        rows.append(row | ({"system": system} if system else {}) | _others(source.rows[place], {*row, "tools"}))
    return write_text(path, _array(rows), "backslashreplace")


def _sharegpt(source: Source, kind: Kind, path: Path) -> Path:
    names = {"user": "human", "assistant": "gpt", "tool": "observation", "system": "system"}
    rows = []
    for place, turns in enumerate(_conversations(source, kind, Form.sharegpt)):
        said: list[dict[str, Any]] = []
        for turn in turns:
            if turn.get("tool_calls"):
                if (turn.get("content") or "").strip():
                    raise UserError(
                        "has a text beside a tool call, which sharegpt cannot hold", source.where(place), "export it as jsonl"
                    )
                calls = [call.get("function", call) for call in turn["tool_calls"]]
                value = json.dumps(calls[0] if len(calls) == 1 else calls, ensure_ascii=False)
                said.append({"from": "function_call", "value": value})
            else:
                said.append({"from": names[turn["role"]], "value": turn["content"]})
            if turn.get("weight") == 0:
                said[-1]["weight"] = 0
        rows.append({"conversations": said, **_others(source.rows[place], {"conversations"})})
    return write_text(path, _array(rows), "backslashreplace")


def _others(row: Row, taken: set[str]) -> Row:
    """The fields beside the conversation."""
    return {key: value for key, value in row.items() if key not in {*taken, "prompt", "response", "messages", "system"}}


def _conversations(source: Source, kind: Kind, form: Form) -> Iterator[list[dict[str, Any]]]:
    if kind is not Kind.sft:
        raise UserError(f"rows of kind {kind.name} are no conversations", f"op.form={form.name}", "export them as jsonl")
    for place, row in enumerate(source.rows):
        yield conversation(row, source.where(place)).messages


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
