"""What a stage leaves behind, and what of it is handed on."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlops_llm.data.ref import locate
from mlops_llm.errors import UserError
from mlops_llm.eval.recording import higher
from mlops_llm.models.ref import resolve
from mlops_llm.pipeline import condition
from mlops_llm.tracking import nested
from mlops_llm.tracking.ledger import RunRow
from mlops_llm.tracking.store import Store

_RUN, _DATASET, WINNER, _RESULT = "run", "dataset", "winner", "result."


@dataclass(frozen=True)
class Made:
    """A stage that is behind us."""

    name: str
    run: RunRow | None = None
    """None of one that was left out."""
    result: Mapping[str, Any] = field(default_factory=dict)
    """Its result.json."""
    model: str = ""
    """The model that it was given: what a stage that was left out hands on."""
    dataset: str = ""
    """The rows that it was given: what a stage that makes none hands on."""

    def handed(self, what: str) -> str:
        """A ref that means the same for ever.

        Args:
            what: `best`, `last`, `checkpoint-100`, `run`, `dataset`, `winner` of a comparison, `result.KEY`; empty is the model
                that it made.

        Raises:
            UserError: it made no such thing.
        """
        if what == _DATASET:
            return self._rows()
        if self.run is None:
            if what in (_RUN, WINNER) or what.startswith(_RESULT) or not self.model:
                raise UserError(f"was left out, and has no '{what or 'model'}'", f"stage:{self.name}", "name another stage")
            return self.model
        if what == _RUN:
            return self.run.name
        if what.startswith(_RESULT):
            return str(self._result(what.removeprefix(_RESULT)))
        if what == WINNER:
            return self._winner()
        ref = self.result.get("ref")
        if ref and (not what or str(ref).endswith(f"/{what}")):
            return str(ref)
        try:
            place = resolve(f"runs:/{self.run.id}/{what or self.run.tags.get('best.checkpoint') or 'last'}")
        except UserError as error:
            has = f"; it made {ref}" if ref else ""
            raise UserError(error.what, f"stage:{self.name}/{what}".rstrip("/"), f"{error.remedy}{has}") from error
        return f"runs:/{self.run.name}/{place.name}"

    def number(self, what: str) -> float | str:
        """A metric of its run, or a value of its result, by name.

        Raises:
            UserError: there is none.
        """
        if self.run is None:
            raise UserError("was left out, and has no numbers", f"stage:{self.name}/{what}", "name another stage")
        if what.startswith(_RESULT):
            found = self._result(what.removeprefix(_RESULT))
            return float(found) if isinstance(found, int | float) else str(found)
        return condition.metric(what, self.run.metrics, f"stage:{self.name}")

    @property
    def is_there(self) -> bool:
        """Whether what it made can still be opened."""
        if self.run is None:
            return True
        with contextlib.suppress(UserError):
            if self.run.tags.get("stage") == "registry" and (folder := self.result.get("folder")) and not Path(folder).is_dir():
                return False
            if ref := self.result.get("ref"):
                return resolve(str(ref)).folder.is_dir()
            if "written" in self.result:
                return locate(self._rows()).path.exists()
            if isinstance(paths := self.result.get("paths"), Mapping):
                return all(Path(str(each)).exists() for each in paths.values())
            if self.run.tags.get("stage") == "train":
                return resolve(f"runs:/{self.run.id}/{self.run.tags.get('best.checkpoint') or 'last'}").folder.is_dir()
            return True
        return False

    def _rows(self) -> str:
        written, version = self.result.get("written"), self.result.get("version")
        if isinstance(written, Mapping) and "version" in written:
            return f"{written['name']}@{written['version']}"
        found = next((each for each in (written, version) if isinstance(each, str) and "@" in each), None)
        if found:
            return found.split()[0]
        if self.dataset:
            return self.dataset
        raise UserError("makes no rows, and was given none", f"stage:{self.name}/dataset", "name another stage")

    def _winner(self) -> str:
        """The model with the best of the first score of which more is better, else less; of equals the one named first."""
        scores = self._result("scores")
        models = {str(ref): values for ref, values in scores.items() if isinstance(values, Mapping)}
        names = [name for values in models.values() for name in values if higher(name) is not None]
        name = next((name for name in names if higher(name)), names[0] if names else "")
        if not name:
            raise UserError("compared no scores of models", f"stage:{self.name}/{WINNER}", "name a stage with op=compare")
        known = {ref: float(values[name]) for ref, values in models.items() if values.get(name) is not None}
        return (max if higher(name) else min)(known, key=lambda ref: known[ref])

    def _result(self, key: str) -> Any:
        found: Any = self.result
        for part in key.split("."):
            if not isinstance(found, Mapping) or part not in found:
                there = ", ".join(map(str, found)) if isinstance(found, Mapping) else "none"
                raise UserError(f"its result has no '{key}'", f"stage:{self.name}", f"it has: {there}")
            found = found[part]
        return found


def of_run(store: Store, name: str, run: RunRow, given: Mapping[str, Any]) -> Made:
    """What a run left.

    Args:
        store: the record.
        name: of the stage.
        run: its run.
        given: the stage's settings, flat.
    """
    return Made(name, run, nested.result(store, run.id), *inputs(given))


def inputs(given: Mapping[str, Any]) -> tuple[str, str]:
    """The model and the rows that a stage was given, as far as there is one of each."""
    named = [given["model"]] if given.get("model") else list(given.get("models") or ())
    return str(named[0]) if len(named) == 1 else "", str(given.get("dataset") or "")
