"""`python -m tests.security.inherited STAGE WORDS…`: a stage whose own commands are forks too, which saves their imports."""

from __future__ import annotations

import os
import runpy
import sys

from tests import commands, forks


def main(stage: str, *words: str) -> None:
    """Be the stage."""
    forks.inherit()
    commands.START.update(os.environ)
    from mlops_llm.launch import process

    process.subprocess = commands.Stages  # type: ignore[attr-defined]
    sys.argv = ["-m", *words]
    runpy.run_module(f"mlops_llm.{stage}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
