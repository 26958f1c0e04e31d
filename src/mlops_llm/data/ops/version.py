"""`op=version`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Optional

from mlops_llm.component import component
from mlops_llm.data import ref, versions
from mlops_llm.data.config import Data, Work
from mlops_llm.data.kinds import of_rows, own
from mlops_llm.data.purpose import Purpose, given
from mlops_llm.errors import UserError
from mlops_llm.record import Result, Run


@component("op", "version")
@dataclass
class Version:
    """Keep a dataset's file as it is now, as an immutable version; it becomes the current one."""

    records: ClassVar[bool] = True
    label: Optional[str] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Label, unique within the dataset; null counts on (v1.0, v1.1, …)."""
    description: str = ""
    """What changed."""
    ability: Optional[str] = None  # noqa: UP045
    """What an evaluation set asks for; null keeps what the version before says."""
    method: Any = None
    """How an evaluation set is scored where the command does not say; null keeps what the version before says."""
    allow_same: bool = False
    """Keep a version also if another one holds the same rows for the same purpose."""

    def prepare(self, request: Data) -> Work:
        """Read the rows and look for a version of this label or content."""
        from mlops_llm.tracking import datasets
        from mlops_llm.tracking.store import connect

        source = ref.read_file(request.wanted(), request.read)
        kind = of_rows(source.rows, source.path.name, request.kind)
        for place, row in enumerate(source.rows):
            own(row, kind, source.where(place))
        store = connect()
        known = datasets.find(store, request.name or source.name)
        name = known.name if known else datasets.check_name(request.name or source.name)
        if known and known.name != (request.name or source.name):
            what = f"'{request.name or source.name}' is a former name of '{known.name}'"
            raise UserError(what, "name", f"keep the file under another name=, or as a version of it: name={known.name}")
        if known:
            versions.refuse_other(known, kind)
        before = known.versions if known else ()
        label = versions.check_label(self.label or versions.next_label(before))
        if label in {each.label for each in before}:
            raise UserError(
                f"'{name}' has a version '{label}' already", "op.label", f"the next is {versions.next_label(before)}"
            )
        last = known.current if known else None
        purpose = given(kind, self.ability, self.method, last)
        same = [each for each in before if each.canonical == source.canonical and Purpose.of(each) == purpose]
        if same and not self.allow_same:
            raise UserError(
                f"the rows are those of {name}@{same[-1].label}", source.path.name, "nothing to keep; or set op.allow_same=true"
            )

        def work(run: Run) -> Result:
            run.input(source.as_input())
            parents = [f"{name}@{last.label}"] if last else []
            made = versions.register(store, source, label, self.description, kind, parents, name=name, purpose=purpose)
            run.metrics({"data/rows": made.rows}, 0)
            table = {
                "version": f"{name}@{made.label} (current)",
                "before": f"{last.label}: {last.rows} rows" if last else None,
                "rows": made.rows,
                "description": made.description or None,
                "ability": purpose.ability or None,
                "method": ", ".join(purpose.method) or None,
                "digest": made.canonical[:12],
            }
            table = {key: value for key, value in table.items() if value is not None}
            digests = made.digests
            return Result(f"{name}: version kept", table, {"digests": digests, "label": made.label, "version_run": made.run})

        return work
