"""Operations of surgery carried out in this process, without a record."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import Any
from unittest import mock

from mlops_llm.files import read_object
from mlops_llm.surgery.certificate import certify
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.execution import made as carried_out
from mlops_llm.surgery.planning import Planned, checked


def request(op: Any, output: Path, **settings: Any) -> Surgery:
    """A request without an engine."""
    return Surgery(op=op, output=str(output), folder=str(output.parent / "run"), run_name="test", **settings)


def plan(op: Any, output: Path, **settings: Any) -> Planned:
    """The plan of an operation, checked."""
    found: Planned = op.plan(request(op, output, **settings))
    return checked(found)


def made(op: Any, output: Path, **settings: Any) -> Any:
    """Make the checkpoint, with recipe and certificate."""
    return carried_out(plan(op, output, **settings))


def written(op: Any, output: Path, **settings: Any) -> Path:
    """Only write the checkpoint."""
    found = plan(op, output, **settings)
    output.mkdir()
    found.write(output)
    return output


def again(planned: Planned) -> Any:
    """Certify a finished folder anew, as it lies there now."""
    return certify(planned, planned.output, read_object(planned.output / "recipe.json")["digest.weights"])


def command(folder: Path, *words: str, code: int = 0, stage: str = "surgery") -> str:
    """Give a command in a folder, in this process; return what it said, or its errors where it is to fail."""
    import importlib

    from mlops_llm.entry import launch

    out, err = io.StringIO(), io.StringIO()
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_TRACKING")}
    with (
        contextlib.chdir(folder),
        mock.patch.dict(os.environ, kept | {"MLOPS_LLM_CACHE": str(folder / "cache")}, clear=True),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        got = launch(importlib.import_module(f"mlops_llm.{stage}.__main__").STAGE, list(words))
    assert got == code, out.getvalue() + err.getvalue()
    return err.getvalue() if code else out.getvalue()
