"""A sweep from its plan to its end: every point is asked, only the winner is written."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mlops_llm import console
from mlops_llm.eval import recording, shown
from mlops_llm.eval.plan import Plan
from mlops_llm.record import Checkpoint, Grid, Result, Run
from mlops_llm.surgery import publishing
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.execution import carry_out
from mlops_llm.surgery.merging import Merging
from mlops_llm.surgery.planning import Planned, Source
from mlops_llm.surgery.sweep import showing
from mlops_llm.surgery.sweep.asking import Point, Room
from mlops_llm.surgery.sweep.ending import asked, undecided, unproven, unwritten
from mlops_llm.surgery.sweep.memory import Merged
from mlops_llm.surgery.sweep.points import Space
from mlops_llm.surgery.sweep.search import Searching, followed
from mlops_llm.surgery.sweep.verdict import RECOMMENDED, Verdict, verdict


@dataclass(frozen=True)
class Swept:
    """A sweep that can be carried out."""

    request: Surgery
    space: Space
    sources: Sequence[Source]
    merged: Merged
    plans: Sequence[Plan]
    """The evaluation of each model alone."""
    search: Callable[[bool], Searching]
    """From whether higher is better to the way through the places."""
    score: str | None
    """Name of the score that decides."""
    written: Callable[[Merging], Planned]
    """The ordinary merge that writes a point."""

    def work(self, run: Run) -> Result:
        """Ask every point, write the best one, and say what came out.

        Raises:
            UserError: a model is broken, or the evaluation cannot go on; points that are asked are not asked again when the
                run is resumed.
        """
        began = time.perf_counter()
        self._inputs(run)
        folder = Path(self.request.folder or ".")
        room = Room(self.space, self.merged, self.plans, folder, self.score, self.request.seed, run)
        try:
            parents = [room.parent(place) for place in range(self.space.models)]
            followed(self.search(bool(parents[0].score.higher_is_better)), lambda at: room.at(at).score.value)
        finally:
            self.merged.close()
        console.detail(f"{len(room.points)} points in {console.seconds(time.perf_counter() - began)}")
        found = verdict(room.points, self.request.seed)
        refs = [each.ref for each in self.sources]
        run.artifact("sweep.json", showing.columns(room.points, self.space, refs))
        run.figure("plots/sweep.png", showing.curve(room.points, self.space, found))
        run.tags({"sweep.best": found.best.name, "sweep.gain": str(found.is_gain).lower(), "sweep.said": found.said})
        grid = showing.table(room.points, self.space, refs, found, console.width())
        return self._ended(room.points, found, grid, run, time.perf_counter() - began)

    def _inputs(self, run: Run) -> None:
        for each in self.sources:
            run.uses(publishing.used(each))
        recording.rows(self.plans[0], run)

    def _ended(self, points: Sequence[Point], found: Verdict, grid: Grid, run: Run, seconds: float) -> Result:
        best, refs = found.best, [each.ref for each in self.sources]
        ended = Result(
            "sweep: done",
            {
                "best": self._said(best, refs),
                best.score.name: shown.value(best.score),
                "parents": found.said,
                "points": f"{len(points)} in {console.seconds(seconds)}",
            },
            {
                "best": best.name,
                "recommended": best.name if found.mark == RECOMMENDED else None,
                "gain": found.is_gain,
                "p": found.p if found.found else None,
                "points": [{"point": each.name, "at": each.at, "score": each.score.value} for each in points],
            },
            [grid],
            score=best.score.value,
            higher_is_better=bool(best.score.higher_is_better),
            score_name=recording.named(best.score.name),
        )
        if best.parent is not None:
            return unwritten(ended, self.request, refs[best.parent])
        if not found.is_gain and not asked(self.request):
            return undecided(ended, self.request, found)
        return self._written(ended, found, run)

    def _written(self, ended: Result, found: Verdict, run: Run) -> Result:
        """Write the best merge; one that may be no better than its parents moves no alias."""
        best = found.best
        assert best.at is not None
        planned = self.written(self.space.merging(best.at))
        if not self.request.then.evaluate:  # else it is asked once more, as it lies there
            self._score(planned, best, run)
        made = carry_out(planned, run)
        if not found.is_gain:
            made = unproven(made, planned, found)
        run.tags({"operation": "sweep"})
        values = {"registered": made.best.model if made.best else None}
        return replace(
            ended,
            title=f"sweep: {'done' if not made.failed else 'the certificate failed'}",
            table={**ended.table, **made.table},
            values={**ended.values, **made.values, **values},
            shown=[*ended.shown, *made.shown],
            failed=made.failed,
            best=made.best,
        )

    def _score(self, planned: Planned, best: Point, run: Run) -> None:
        """Put the winner's scores on its checkpoint: it has the very weights that were asked in memory."""
        checkpoint = Checkpoint(planned.name, 0, planned.output)
        for each in best.outcome.scores:
            values = {recording.named(each.name): each.value}
            if each.interval:
                values |= {
                    f"{recording.named(each.name)}_{end}": at for end, at in zip(("low", "high"), each.interval, strict=True)
                }
            run.metrics(values, 0, checkpoint, "evaluation" if self.plans[0].questions else None)

    def _said(self, best: Point, refs: Sequence[str]) -> str:
        weights = self.space.weights(best.at) if best.at else None
        shares = f" ({', '.join(f'{100 * w:.4g} % {ref}' for w, ref in zip(weights, refs, strict=True))})" if weights else ""
        return best.name + shares if best.parent is None else f"{refs[best.parent]} alone"

    def shown(self, planned: Planned, places: int | None) -> Result:
        """The plan as a person reads it."""
        lines = {
            **planned.lines,
            "varied": self.space.over,
            "points": "as the search asks" if places is None else str(places),
            "memory": f"{console.size(self.merged.memory)} at most, all models loaded",
        }
        lines |= {f"op.settings.{name}": str(value) for name, value in self.space.settings.items()}
        return Result("plan of sweep", lines, {}, [planned.grid])
