"""`op=verify`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.files import expanded
from mlops_llm.record import Result, Run
from mlops_llm.registry.config import Registry, Work


@component("op", "verify")
@dataclass
class Verify:
    """See that a deployment folder (op=deploy) holds every file as its manifest says, and nothing beside the model's."""

    records: ClassVar[bool] = False

    def prepare(self, request: Registry) -> Work:
        """Read every file."""
        from mlops_llm import console
        from mlops_llm.registry.deploying import manifest

        if not request.model:
            raise UserError("names no folder", "model", "give model=DIR, a folder that op=deploy wrote")
        folder = expanded(request.model)
        told = manifest.verify(folder)

        def work(run: Run) -> Result:
            made, registered = told["deployed"], told["registered"]
            table = {
                "folder": str(folder),
                "files": f"{len(told['files'])}, {console.size(sum(each['bytes'] for each in told['files'].values()))}",
                "model": told["ref"],
                "registered": registered["ref"] if registered else None,
                "weights digest": told["digest.weights"],
                "chat template digest": told["digest.template"],
                "written": f"{made['time']} by {made['by']}" + (f" (run {made['run']})" if made["run"] else ""),
            }
            shown = {name: value for name, value in table.items() if value is not None}
            return Result("verify: every file is as it was written", shown, {"digest.weights": told["digest.weights"]})

        return work
