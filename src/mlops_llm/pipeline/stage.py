"""One start of a stage's command: with a run of its own, or going on with one that was cut off."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlops_llm import files
from mlops_llm.launch.place import Again, Command
from mlops_llm.launch.process import last_error
from mlops_llm.pipeline import process
from mlops_llm.pipeline.earlier import STAGE
from mlops_llm.pipeline.identity import Identity
from mlops_llm.pipeline.process import Look
from mlops_llm.pipeline.words import Words
from mlops_llm.tracking import nested, queued
from mlops_llm.tracking.ledger import RunRow
from mlops_llm.tracking.run import Opening
from mlops_llm.tracking.store import Store


@dataclass(frozen=True)
class Try:
    """A command that is about to start, and its run."""

    run: RunRow
    words: Words
    pipeline: str
    """Id of the pipeline's run."""
    adopts: bool
    """The run waits for the process; else the process goes on with it."""

    def carried_out(self, name: str, look: Look) -> int:
        """Run it to its end; return its exit code, negative for a signal.

        Args:
            name: of the stage.
            look: at it while it runs.
        """
        command = Command(self.words.room, self.words.settings, self.run.name, self.run.id, "", Again.no)
        mark = f"{self.pipeline}/{name}"
        return process.carried_out(name, command, self.words.settings, mark, look, adopt=self.adopts)

    def measure(self, store: Store, row: RunRow, seconds: float) -> None:
        """Note what it took, for plans; of one that went on only its disk is known."""
        folder = Path(row.tags.get("output", ""))
        tags = {nested.BYTES: str(files.size(folder))} if folder.is_dir() else {}
        nested.note(store, row.id, tags | ({nested.SECONDS: f"{seconds:.2f}"} if self.adopts else {}))

    def closed(self, store: Store, row: RunRow, code: int, log: Path) -> str:
        """Close its run where the process could not; return why it failed."""
        said = last_error(log)
        if code < 0:
            said = f"its process was killed (signal {-code})"
        elif code == 0:
            said = f"its process ended, but its run is {row.status}"
        queued.close(store.address, row.id, "KILLED" if code < 0 else "FAILED", said or f"exit code {code}")
        return f"{said} (exit code {code})" if said and code > 0 else said or f"exit code {code}"


def begun(store: Store, name: str, words: Words, which: Identity, parent: RunRow, folder: str, more: Mapping[str, str]) -> Try:
    """A start with a new run, which knows what its result depends on.

    Args:
        store: the record.
        name: of the stage.
        words: the command, with all refs put in.
        which: what its result depends on.
        parent: the pipeline's run.
        folder: the setting that names the folder of the command's files; empty where it has none.
        more: tags of the run.
    """
    tags = {STAGE: name, nested.INPUTS: which.inputs, nested.LIKE: which.settings, nested.PARTS: json.dumps(which.parts)[:5000]}
    called, output = f"{parent.name}-{name}", Path(parent.tags["output"]) / name
    opening = Opening(
        words.room, parent.project, called, output, overrides=words.settings, parent=parent.id, tags={**tags, **more}
    )
    run = nested.begin(store, opening)
    own = [f"run_name={run.name}", *([f"{folder}={run.tags['output']}"] if folder else [])]
    return Try(run, words.plus(own), parent.id, adopts=True)


def resumed(store: Store, row: RunRow, parent: RunRow) -> Try:
    """A start that goes on with a run, which moves below this pipeline."""
    nested.reopen(store, row.id, parent.id)
    return Try(row, Words(row.tags["stage"], (f"resume={row.id}",)), parent.id, adopts=False)
