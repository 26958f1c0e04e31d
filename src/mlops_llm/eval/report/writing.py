"""The files of a report."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from mlops_llm.errors import UserError
from mlops_llm.eval.report.chapters import Report, document
from mlops_llm.eval.report.document import Document
from mlops_llm.eval.report.html import html
from mlops_llm.eval.report.pdf import pdf
from mlops_llm.eval.report.xlsx import xlsx
from mlops_llm.files import is_disk_full, replace

STEM = "report"


def as_json(about: Report) -> dict[str, Any]:
    """A report as JSON (schema.json): all that the other forms are made from."""
    return {**about.found, "words": about.words.as_json(about.lang)}


def made(about: Report, forms: Iterable[str], samples: int) -> dict[str, bytes]:
    """A report in several forms: file name -> content.

    Args:
        about: what is reported.
        forms: of `pdf`, `xlsx`, `json`, `html`.
        samples: how many stand in PDF and HTML.

    Raises:
        UserError: one cannot be made.
    """
    chapters: Document = document(about, samples)
    makers: dict[str, Callable[[], bytes]] = {
        "pdf": lambda: pdf(chapters),
        "xlsx": lambda: xlsx(about),
        "json": lambda: json.dumps(as_json(about), ensure_ascii=False, indent=1).encode("utf-8", "backslashreplace"),
        "html": lambda: html(chapters).encode("utf-8"),
    }
    return {f"{STEM}.{form}": makers[form]() for form in forms}


def write(files: Mapping[str, bytes], folder: Path) -> list[Path]:
    """Write files, all of them or none.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    written = list[Path]()
    try:
        for name, content in files.items():
            with replace(folder / name) as draft:
                draft.write_bytes(content)
            written.append(folder / name)
    except BaseException as error:
        for file in written:
            file.unlink(missing_ok=True)
        if isinstance(error, OSError):
            what = "the disk is full" if is_disk_full(error) else f"cannot be written ({error.strerror})"
            raise UserError(what, str(folder), "make room there, or choose another output=") from error
        raise
    return [file.absolute() for file in written]
