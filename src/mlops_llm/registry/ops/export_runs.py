"""`op=export_runs`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Optional

from mlops_llm import console
from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.record import Result, Run
from mlops_llm.registry.config import Registry, Work


@component("op", "export_runs")
@dataclass
class ExportRuns:
    """Write runs with their models, numbers and files into an archive, for a backup or another record (op=import_runs)."""

    records: ClassVar[bool] = False
    file: Optional[str] = None  # noqa: UP045 (OmegaConf reads Optional)
    """The archive: a folder that is not there yet, or a file whose name ends in .tar."""
    runs: list[str] = field(default_factory=list)
    """Runs by name or id; their jobs come along."""
    of: Optional[str] = None  # noqa: UP045
    """Instead: all runs of this project."""
    past: bool = True
    """Also what they rest on: runs that made what their models were made of or measured them, and dataset versions."""
    registered: bool = True
    """Also the versions and aliases of registered models that are made of their checkpoints."""

    def prepare(self, request: Registry) -> Work:
        """Find the runs."""
        from mlops_llm.registry.moving.exporting import asked, export
        from mlops_llm.tracking.store import connect

        if not self.file:
            raise UserError("names no archive", "op.file", "give a folder, or a file that ends in .tar")
        out, store = Path(self.file).expanduser(), connect()
        if out.exists():
            raise UserError("exists already", str(out), "choose another op.file")
        first = asked(store, self.runs, self.of or "")

        def work(run: Run) -> Result:
            done = export(store, first, out, self.past, self.registered)
            files = done.manifest["files"]
            table = {
                "archive": str(out),
                "runs": str(len(done.contents.runs)) + (f", without {', '.join(done.running)} at work" if done.running else ""),
                "checkpoints": str(len(done.contents.checkpoints))
                + (f", {len(done.without)} of them without files" if done.without else ""),
                "left out": ", ".join(done.behind)
                + (" (they rest on these; op.past=true takes them along)" if done.behind else ""),
                "registered": ", ".join(each.name for each in done.contents.models),
                "files": f"{len(files)}, {console.size(sum(each['bytes'] for each in files.values()))}",
                "next": f"python -m mlops_llm.registry op=import_runs op.file={self.file}",
            }
            values = {"runs": [each.id for each in done.contents.runs], "weights": dict(done.contents.weights)}
            return Result("export_runs: written", {name: said for name, said in table.items() if said}, values)

        return work
