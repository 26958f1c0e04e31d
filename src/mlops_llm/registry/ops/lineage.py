"""`op=lineage`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from mlops_llm.component import component
from mlops_llm.files import write_text
from mlops_llm.record import Grid, Result, Run
from mlops_llm.registry.config import Registry, Work


@component("op", "lineage")
@dataclass
class ShowLineage:
    """Show what a model was made of, down to its base: as a tree, as a picture (lineage.svg) and as a page (lineage.html)."""

    records: ClassVar[bool] = True

    def prepare(self, request: Registry) -> Work:
        """Find the model."""
        from mlops_llm.data.preview import safe
        from mlops_llm.models import digested
        from mlops_llm.registry import descent, subject
        from mlops_llm.tracking import lineage
        from mlops_llm.tracking.store import connect

        place = subject.remembered(request)
        store = connect()
        found, told = lineage.tree(store, place, "" if place.checkpoint else digested.weights_digest(place))

        def work(run: Run) -> Result:
            boxes = descent.boxes(found)
            tree = descent.lines(boxes)
            folder = Path(request.output or ".")
            page = descent.page(f"Lineage of {place.ref}", boxes, told)
            svg = write_text(folder / "lineage.svg", f"{descent.picture(boxes)}\n", "backslashreplace")
            run.artifact("lineage.svg", svg)
            run.artifact("lineage.html", write_text(folder / "lineage.html", page, "backslashreplace"))
            run.tags({"model": place.ref})
            shown: list[Grid | str] = [f"[bold]{safe(place.ref)}[/]", *(safe(each) for each in tree)]
            table = {name: said for name, said in descent.summary(told) if said}
            values = {"models": [asdict(each) for each in found.values()], "unknown": list(told.unknown)}
            return Result(f"lineage of {place.ref}", {**table, "picture": str(svg)}, values, shown)

        return work
