"""`op=import_runs`."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Optional

from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.record import Result, Run
from mlops_llm.registry.config import Registry, Work


@component("op", "import_runs")
@dataclass
class ImportRuns:
    """Enter the runs of an archive (op=export_runs) into this record; what is there already is left, so it can be repeated."""

    records: ClassVar[bool] = True
    file: Optional[str] = None  # noqa: UP045 (OmegaConf reads Optional)
    """The archive: a folder or a .tar."""
    move_aliases: bool = False
    """Aliases of registered models that point to another version here are moved to the archive's."""

    def prepare(self, request: Registry) -> Work:
        """Check every byte of the archive, before anything is written."""
        from mlops_llm.registry.moving.archive import opened
        from mlops_llm.registry.moving.importing import enter, foresee
        from mlops_llm.tracking import ledger
        from mlops_llm.tracking.store import connect
        from mlops_llm.tracking.turns import turn

        if not self.file:
            raise UserError("names no archive", "op.file", "give the folder or the .tar that op=export_runs wrote")
        store = connect()
        with ExitStack() as stack:
            folder, contents = stack.enter_context(opened(Path(self.file).expanduser(), Path.cwd() / "outputs"))
            foresee(store, contents)
            rest = stack.pop_all()

        def work(run: Run) -> Result:
            # Two that enter the same run would each find it missing.
            with rest, turn(store, ledger.find_run(store, run.name).id, "imports"):
                done = enter(store, folder, contents, self.move_aliases)
            run.artifact("imported.json", json.dumps(asdict(done), ensure_ascii=False, indent=1))
            runs, checkpoints = len(done.new_runs), len(done.new_checkpoints)
            table = {
                "runs": f"{runs} new, {len(done.runs) - runs} were there",
                "checkpoints": f"{checkpoints} new, {len(done.checkpoints) - checkpoints} were there",
                "registered": ", ".join(f"{old} as {new}" if old != new else new for old, new in done.versions.items()),
                "renamed": ", ".join(f"{old} is {new} here" for old, new in done.renamed.items()),
                "missing here": "; ".join(f"{each} ({role})" for each, role in done.missing.items()),
                "aliases left as they are": ", ".join(
                    f"{alias} (the archive: {there})" for alias, there in done.kept_aliases.items()
                ),
            }
            return Result(
                "import_runs: every byte is as it was", {name: said for name, said in table.items() if said}, asdict(done)
            )

        return work
