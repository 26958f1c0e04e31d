"""`op=reproduce`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Optional

from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.record import Grid, Result, Run
from mlops_llm.registry.config import Registry, Work

if TYPE_CHECKING:
    from mlops_llm.registry.reproduction import Difference
    from mlops_llm.registry.rerunning import Again
    from mlops_llm.tracking.ledger import RunRow
    from mlops_llm.tracking.store import Store


@component("op", "reproduce")
@dataclass
class Reproduce:
    """Train once more from what the record says (settings, code, rows, seed), and say whether every step is the same."""

    records: ClassVar[bool] = True
    steps: Optional[int] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Step after which the rerun is stopped; null trains to the end."""

    def __post_init__(self) -> None:
        """Check the range."""
        if self.steps is not None and self.steps < 1:
            raise UserError(f"is {self.steps}", "op.steps", "give a whole number from 1, or null")

    def prepare(self, request: Registry) -> Work:
        """Read what the run began from."""
        from mlops_llm.registry import reproduction, rerunning
        from mlops_llm.tracking import environment, ledger
        from mlops_llm.tracking.opening import recorded_text
        from mlops_llm.tracking.origin import origin
        from mlops_llm.tracking.store import connect

        if not request.run:
            raise UserError("names no training", "run", "give run=RUN, its id or name")
        store = connect()
        row = ledger.find_run(store, request.run)
        if row.tags.get("stage") != "train" or row.tags.get("kind") == "multirun":
            raise UserError(f"'{row.name}' is no training", "run", "name one; what surgery made has its command in recipe.json")
        before = reproduction.steps(recorded_text(store, row.id, "steps.jsonl"))
        if not before:
            raise UserError(f"'{row.name}' has no steps", "run", "take another training")
        began = origin(store, row.id)
        wanted = rerunning.again(store, began, recorded_text(store, row.id, "environment/overrides.txt"), row.id)
        now = environment.describe(environment.argv_of("train", list(wanted.words)))
        versions = dict(line.split("==", 1) for line in now.packages.splitlines() if "==" in line)
        differs = [
            *wanted.beginning.missing,
            *reproduction.packages(began.packages, versions),
            *reproduction.hardware(began.tags, now.tags),
        ]

        return partial(_carried_out, _Asked(store, row, before, wanted, differs, self.steps), Path(request.output or "."))


@dataclass(frozen=True)
class _Asked:
    """What is to be reproduced."""

    store: Store
    row: RunRow
    before: Sequence[Mapping[str, Any]]
    """Every step as it was."""
    wanted: Again
    differs: Sequence[Difference]
    """Inputs that are known to be others now."""
    steps: int | None


def _carried_out(asked: _Asked, folder: Path, run: Run) -> Result:
    """Train again in a folder, and compare."""
    from mlops_llm.registry import reproduction, rerunning
    from mlops_llm.tracking import ledger

    found, drift, after = list(asked.differs), None, list[Mapping[str, Any]]()
    if not asked.wanted.beginning.missing:
        with rerunning.code(asked.wanted, folder) as (source, of_code):
            found = [*of_code, *found]
            name = f"{run.name}-again"
            text = rerunning.rerun(asked.wanted, source, folder / "again", name, asked.steps, asked.store.address)
        now, own = ledger.find_run(asked.store, name), {*rerunning.ITS_OWN, *asked.wanted.beginning.settings}
        read = reproduction.inputs(asked.row.tags, now.tags)
        found = [*reproduction.settings(asked.row.params, now.params, own), *read, *found]
        after = list(reproduction.steps(text))
        drift = reproduction.drift(asked.before, after, asked.steps)
        if drift is None and asked.steps is None:
            drift = reproduction.weights(rerunning.weights(asked.store, asked.row.id), rerunning.weights(asked.store, name))
    compared = len([each for each in asked.before if asked.steps is None or each["step"] <= asked.steps]) if after else 0
    return _told(asked, found, drift, compared, run)


def _told(asked: _Asked, found: Sequence[Difference], drift: Any, compared: int, run: Run) -> Result:
    """The verdict, recorded and as a table."""
    from mlops_llm.registry import reproduction

    is_same = not asked.wanted.beginning.missing and drift is None
    verdict = reproduction.REPRODUCED if is_same else reproduction.DRIFTED
    run.tags({"reproduces": asked.row.name, "verdict": verdict})
    table = {
        "run": asked.row.name,
        "verdict": verdict,
        "steps compared": compared,
        "first difference": str(drift) if drift else None,
        ("because" if not is_same else "though"): str(found[0]) if found else None,
        "weights": "the same" if is_same and asked.steps is None else None,
    }
    values = {
        "verdict": verdict,
        "drift": asdict(drift) if drift else None,
        "differences": [asdict(each) for each in found],
        "steps": compared,
    }
    run.artifact("reproduction.json", json.dumps(values, ensure_ascii=False, indent=1))
    grid = Grid("what is another now", ["", "what", "then", "now"], [[*asdict(each).values()] for each in found[:20]])
    title = f"reproduce {asked.row.name}: {verdict}"
    told = {key: value for key, value in table.items() if value is not None}
    return Result(title, told, values, [grid] if found else [], failed=not is_same)
