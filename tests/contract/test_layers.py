"""Imports run downwards only, and no module is a drawer for everything."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import mlops_llm

PACKAGE = Path(mlops_llm.__file__).parent
ROOT = Path(__file__).resolve().parents[2]
DRAWERS = {"utils", "util", "common", "helpers", "helper", "misc"}


@pytest.mark.skipif(
    importlib.util.find_spec("importlinter") is None, reason="import-linter is not installed (make install-test)"
)
def test_the_contracts_of_imports_hold():
    code = "import sys; from importlinter.cli import lint_imports_command; lint_imports_command(['--no-cache'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 kept, 0 broken" in done.stdout


def test_there_is_no_drawer():
    found = [path for path in PACKAGE.rglob("*") if path.stem.lower() in DRAWERS and "__pycache__" not in path.parts]
    assert found == []
