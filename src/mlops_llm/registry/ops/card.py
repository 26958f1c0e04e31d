"""`op=card`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mlops_llm.component import component
from mlops_llm.files import write_text
from mlops_llm.record import Result, Run
from mlops_llm.registry.config import Registry, Work


@component("op", "card")
@dataclass
class Card:
    """Write a model card (README.md in the form of the Hugging Face hub) from what the record knows of a model."""

    records: ClassVar[bool] = True

    def prepare(self, request: Registry) -> Work:
        """Find the model."""
        from mlops_llm.models import adapter, digested
        from mlops_llm.registry import subject
        from mlops_llm.registry.card import card
        from mlops_llm.tracking import ledger, lineage, registered
        from mlops_llm.tracking.store import connect

        place = subject.place(request)
        store = connect()
        found = lineage.tree(store, place, "" if place.checkpoint else digested.weights_digest(place))
        maker = ledger.find_run(store, place.run) if place.run else None
        version = registered.of_checkpoint(store, place.checkpoint, request.name or "") if place.checkpoint else None
        title = version.model if version else place.name or Path(place.ref).name

        def work(run: Run) -> Result:
            measured = registered.measured(store, place.checkpoint) if place.checkpoint else ()
            is_adapter = (place.folder / adapter.CONFIG).is_file()
            text = card(title, place.tags, measured, maker, found, version, is_adapter=is_adapter)
            file = write_text(Path(request.output or ".") / "README.md", text, "backslashreplace")
            run.artifact("README.md", file)
            run.tags({"model": place.ref})
            table = {"model": place.ref, "card": str(file)}
            return Result(f"card of {place.ref}", table, {"card": str(file)}, [])

        return work
