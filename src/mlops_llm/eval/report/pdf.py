"""A report as PDF: typst's work, with texts as data that no markup is read in."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlops_llm.errors import UserError, first_line, need
from mlops_llm.eval.lang import Lang
from mlops_llm.eval.markup import Html
from mlops_llm.eval.report import glyphs
from mlops_llm.eval.report.document import Document, Section, Table, Text
from mlops_llm.eval.report.glyphs import FAMILY, Readable

_STYLE = (
    f'<style>text{{font-family:"{FAMILY}";font-size:11px;fill:#5b6876}}.count{{font-size:10px}}.track{{fill:#e9edf2}}'
    ".fill{fill:#2f6fb5}.whisker{stroke:#16283c;stroke-width:1.5;fill:none}.axis{stroke:#aab4bf;fill:none}</style>"
)


def check() -> None:
    """See that PDF can be made here.

    Raises:
        UserError: the compiler or the font is not installed.
    """
    need("typst", "report")
    glyphs.folder()


def pdf(document: Document) -> bytes:
    """The report as PDF, A4.

    Raises:
        UserError: a picture or a text cannot be set, which is a fault of ours: what typst says is named.
    """
    import typst

    readable = Readable()
    data = readable.all(_plain(document))
    if readable.replaced:
        data["appendix"]["sections"].append(_plain(_said(readable, Lang(document.lang))))
    try:
        made, warnings = typst.compile_with_warnings(
            Path(__file__).with_name("report.typ").read_bytes(),
            font_paths=typst.Fonts(include_system_fonts=False, include_embedded_fonts=False, font_paths=[str(glyphs.folder())]),
            sys_inputs={"document": json.dumps(data), "font": FAMILY},
            timestamp=datetime.now(UTC).replace(microsecond=0),
        )
    except typst.TypstError as error:
        raise UserError(f"typst cannot set the report ({first_line(error)})", "op.format=pdf", "take another format") from error
    if warnings:
        raise UserError(f"typst warns: {warnings[0].message}", "op.format=pdf", "take another format")
    return bytes(made)


def _said(readable: Readable, lang: Lang) -> Section:
    kinds = " ".join(sorted(f"U+{ord(each):04X}" for each in readable.kinds)[:20])
    said = lang(
        f"字体中没有的 {readable.replaced} 个字符（{len(readable.kinds)} 种：{kinds}）写成了编码，如 \\u1f600；"
        "其他格式里是原字符。",
        f"{readable.replaced} characters ({len(readable.kinds)} kinds: {kinds}) that the font does not have are written as "
        "codes such as \\u1f600; the other formats have them as they are.",
    )
    return Section("", [Text(said, soft=True)])


def _plain(value: Any) -> Any:
    """The report as JSON: each part says what it is, a picture is told from a text."""
    if isinstance(value, Html):
        return {"svg": value.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(">", f">{_STYLE}", 1)}
    if isinstance(value, Table):
        kept = value.kept
        found = {
            "kind": "table",
            "columns": [value.columns[place] for place in kept],
            "rows": [[row[place] for place in kept] for row in value.rows],
            "right": [place in value.right for place in kept],
            "wide": [place in value.wide for place in kept],
        }
        return {key: _plain(each) for key, each in found.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"kind": type(value).__name__.lower(), **fields}
    return [_plain(each) for each in value] if isinstance(value, list | tuple | range) else value
