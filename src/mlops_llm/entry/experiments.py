"""Which stage an experiment is for: its first line is the command that runs it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mlops_llm.errors import UserError


def misplaced(stage: str, words: Sequence[str], folders: Sequence[Path]) -> UserError | None:
    """Say which command runs an experiment that was given to another stage; None where that is not so.

    Args:
        stage: the one that was called.
        words: of the command line.
        folders: with the presets; the first that has the experiment counts.
    """
    for word in words:
        chosen = re.fullmatch(r"\+?experiment=([\w.-]+)", word)
        files = [folder / "experiment" / f"{chosen[1]}.yaml" for folder in folders] if chosen else []
        for file in [file for file in files if file.is_file()][:1]:
            command = re.match(r"#\s*(python -m mlops_llm\.(\w+) .*)", file.read_text("utf-8", errors="replace"))
            if command and command[2] != stage:
                return UserError(f"is an experiment of mlops_llm.{command[2]}", file.stem, f"type: {command[1].strip()}")
    return None
