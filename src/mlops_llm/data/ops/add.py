"""`op=add`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mlops_llm import digest
from mlops_llm.component import component
from mlops_llm.data import ref, versions
from mlops_llm.data.config import Data, Work
from mlops_llm.data.folders import here, shipped
from mlops_llm.data.kinds import Kind, of_rows, own
from mlops_llm.data.purpose import Purpose, given
from mlops_llm.data.read import Row, Source
from mlops_llm.data.rows import names
from mlops_llm.errors import UserError
from mlops_llm.record import DatasetInput, Result, Run


@component("op", "add")
@dataclass
class Add:
    """Check a file, turn its rows into our fields, copy it into ./datasets and register it as version v1.0."""

    records: ClassVar[bool] = True
    description: str = ""
    """What the dataset is, shown by op=list."""
    label: str = versions.FIRST
    """Label of its first version."""
    ability: str = ""
    """What an evaluation set asks for, such as 对话质量 or arithmetic; its later versions keep it."""
    method: Any = None
    """How an evaluation set is scored where the command does not say: judge, or metrics such as [bleu,rouge]."""

    def prepare(self, request: Data) -> Work:
        """Read and check all rows."""
        from mlops_llm.tracking import datasets
        from mlops_llm.tracking.store import connect

        source = ref.open_dataset(request.wanted(), request.read)
        name = datasets.check_name(request.name or source.name)
        kind = of_rows(source.rows, source.path.name, request.kind)
        purpose = given(kind, self.ability, self.method)
        rows = [own(row, kind, source.where(place)) for place, row in enumerate(source.rows)]
        known = datasets.find(connect(), name)
        if known and known.name != name:
            raise UserError(f"'{name}' is a former name of '{known.name}'", "name", "choose another name=")
        if known:
            raise UserError(
                f"'{name}' is registered already",
                "name",
                f"for a new version copy the file there, then: python -m mlops_llm.data op=version dataset={name}",
            )
        there = versions.working_file(name)
        if there is None and source.path.parent != shipped():
            versions.refuse_shadow(name)
        if there and there.is_dir() and (rows != source.rows or source.translated or not there.samefile(source.path)):
            what = "is a folder of shards, which stays as it is, and its rows have to be turned into our fields"
            what = what if there.samefile(source.path) else "is there already"
            raise UserError(what, f"datasets/{there.name}", "give the new dataset another name=")
        if there and not there.samefile(source.path) and not versions.holds(there, digest.canonical(rows)):
            raise UserError(f"datasets/{there.name} is there already", "name", "choose another name= or move the file away")
        return lambda run: self._add(request, source, name, kind, purpose, rows, there, run)

    def _add(
        self,
        request: Data,
        source: Source,
        name: str,
        kind: Kind,
        purpose: Purpose,
        rows: list[Row],
        there: Path | None,
        run: Run,
    ) -> Result:
        from mlops_llm.tracking.store import connect

        converted = rows != source.rows or source.translated
        parents = [versions.reference(source)] if converted or there is None else []
        kept = ""
        if there and not converted:
            version = versions.register(
                connect(), source, self.label, self.description, kind, parents, name=name, purpose=purpose
            )
            path = there
        else:
            if there and there.samefile(source.path):
                run.artifact(f"original/{there.name}", there)
                kept = f" (the file as it was is kept in this run: original/{there.name})"
            with versions.written(name, rows) as draft:
                made = Source(name, draft, name, rows, list(range(1, len(rows) + 1)), digest.raw(draft))
                version = versions.register(connect(), made, self.label, self.description, kind, parents, purpose=purpose)
            path = here() / f"{name}.jsonl"
        digests = version.digests
        run.input(DatasetInput(name, version.label, str(path), "dataset", version.rows, digests))
        fields = names(dict.fromkeys(key for row in rows[:100] for key in row))
        table = {
            "name": name,
            "kind": kind.name + ("" if request.kind else " (told from the fields)"),
            "rows": version.rows,
            "fields": fields,
            "converted": f"yes, from {names(source.rows[0])}" if converted else "no, the rows had our fields",
            "file": f"datasets/{path.name}{kept}",
            "version": f"{name}@{version.label}",
            "digest": version.canonical[:12],
            **{key: value for key, value in (("ability", purpose.ability), ("method", ", ".join(purpose.method))) if value},
        }
        return Result(f"{name}: added", table, {"digests": digests, "path": str(path), "version_run": version.run})
