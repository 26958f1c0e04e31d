"""`op=use`."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import ClassVar

from mlops_llm.component import component
from mlops_llm.data import ref, versions
from mlops_llm.data.config import Data, Work
from mlops_llm.data.read import name as name_of
from mlops_llm.errors import UserError
from mlops_llm.files import replace
from mlops_llm.record import Result, Run


@component("op", "use")
@dataclass
class Use:
    """Make a version the current one, and its rows those of the file in ./datasets."""

    records: ClassVar[bool] = True
    keep_file: bool = False
    """Leave the file in ./datasets as it is."""

    def prepare(self, request: Data) -> Work:
        """Find the version, and see that the file's own rows are kept by some version."""
        from mlops_llm.tracking import datasets
        from mlops_llm.tracking.store import connect

        name, at, which = request.wanted().rpartition("@")
        if not at:
            raise UserError("names no version", "dataset", f"write dataset={which}@LABEL; op=versions shows them")
        known = ref.registered(name)
        version, before = known.version(which), known.current
        there = versions.working_file(known.name)
        if there and there.is_dir() and not self.keep_file:
            remedy = "set op.keep_file=true and read the version as dataset=NAME@LABEL, or move the folder away"
            raise UserError("is a folder of shards, which op=use does not rewrite", f"datasets/{there.name}", remedy)
        if there and not self.keep_file:
            versions.refuse_loss(there, known)
        store = connect()

        def work(run: Run) -> Result:
            snapshot = datasets.snapshot(store, version)
            written = "left as it is"
            if there and not self.keep_file:
                target = there.with_name(known.name + snapshot.name.removeprefix(name_of(snapshot)))
                with replace(target) as draft:
                    shutil.copyfile(snapshot, draft)
                if target != there:
                    there.unlink()
                written = f"datasets/{target.name} holds its rows now"
            datasets.use(store, version)
            table = {
                "current": f"{known.name}@{version.label} ({version.rows} rows)",
                "before": f"{before.label} ({before.rows} rows)" if before else "none",
                "file": written if there else "none in datasets/: the version itself is read",
            }
            digests = version.digests
            return Result(f"{known.name}: current version moved", table, {"digests": digests, "label": version.label})

        return work
