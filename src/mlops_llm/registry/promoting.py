"""A promotion from its evidence to the new champion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mlops_llm import console
from mlops_llm.errors import RequestError, UserError
from mlops_llm.models import code, digested
from mlops_llm.models.ref import Place
from mlops_llm.record import Checkpoint, Result, Run
from mlops_llm.registry import already, evaluating, recording
from mlops_llm.registry.config import Registry
from mlops_llm.registry.decision import Decision, Evidence, decide
from mlops_llm.registry.evidence import Asked, Gathered, gather
from mlops_llm.registry.hook import Changed, tell
from mlops_llm.tracking import aliases, champions, ledger, models, registered
from mlops_llm.tracking.registered import CHAMPION, VersionRow
from mlops_llm.tracking.store import Store

_ROUNDS = 5
"""Times that a champion may change while evidence against the one before is computed."""


@dataclass(frozen=True)
class Promoting:
    """A promotion that can be carried out."""

    request: Registry
    store: Store
    asked: Asked
    version: VersionRow | None
    """None where a model is to be registered first."""
    place: Place | None
    """The model that is to be registered."""
    evaluate: bool
    force: bool
    reason: str

    def work(self, run: Run) -> Result:
        """Compute what evidence is missing, decide beside the champion of this moment, move it, tell the hooks.

        Raises:
            UserError: evidence is missing that nobody may compute, or it cannot be computed.
        """
        version = self.version or self._registered(run)
        run.tags({"model": version.ref})
        result, hooks = self._decided(version, run), self.request.hook
        if result.failed or not hooks:
            return result
        if result.values["verdict"] == already.CHAMPION:
            changed, hooks = already.untold(self.store, version, hooks)
        else:
            changed = Changed(version.model, version.version, result.values["champion"], result.values["verdict"], self.reason)
        if changed is None or not hooks:
            return result
        grid, said = tell(self.store, hooks, changed, version, run)
        return replace(result, table={**result.table, "hooks": said}, shown=[*result.shown, grid])

    def _decided(self, version: VersionRow, run: Run) -> Result:
        store, name, tried = self.store, version.model, set[tuple[int, str]]()
        own, evaluated = ledger.find_run(store, run.name).id, list[str]()
        for _ in range(_ROUNDS):
            held = champion(store, name)
            if self.evaluate and not already.is_held(version, held):
                lacks = gather(store, self.asked, version, held, self.request.seed).lacks
                tried |= {each.key for each in lacks}
                plans = evaluating.plans(self.request, lacks, first=len(evaluated) + 1)
                evaluated += evaluating.carry_out(plans, Path(self.request.output or "."), run)
            with champions.turn_of(store, own, name):
                held = champion(store, name)
                if already.is_held(version, held):
                    return already.held(store, version, run, self.place)
                found = gather(store, self.asked, version, held, self.request.seed)
                if self.evaluate and any(each.key not in tried for each in found.lacks):
                    continue  # another champion meanwhile, which nobody evaluated
                if not self.force:
                    refuse_lacking(self.request, found)
                decision = decide(self.asked.policy, found.evidence)
                became = recording.verdict(decision, force=self.force)
                return self._done(version, found.evidence, decision, became, evaluated, run)
        raise UserError(f"the champion of {name} changed {_ROUNDS} times meanwhile", "name", "type the command again")

    def _done(
        self, version: VersionRow, evidence: Evidence, decision: Decision, became: str, evaluated: Sequence[str], run: Run
    ) -> Result:
        """Write the decision down, then do what it says; the caller's turn lasts."""
        name, reason = version.model, self.reason or "; ".join(decision.reasons)
        told = recording.values(self.asked.policy, evidence, decision, became, self.reason) | {"ref": version.ref}
        recording.record(told, decision, name, became, run)
        moved = became != recording.REFUSED
        mark = partial(recording.mark, self.store, version, decision, became, self.reason, run)
        if moved:
            kind = champions.FORCE if became == recording.FORCED else champions.PROMOTE
            champions.move(self.store, name, version.version, kind, run.name, reason, begun=mark)
        else:
            mark()
        if became == recording.FORCED:
            console.warn(f"{version.ref} is the champion against the policy '{decision.policy}': {self.reason}")
        table = {
            "version": f"{version.ref} ({version.checkpoint.name if version.checkpoint else '?'})",
            "policy": decision.policy,
            "decision": became,
            **{f"because {number}" if number > 1 else "because": each for number, each in enumerate(decision.reasons, 1)},
            "reason given": self.reason or None,
            "champion": _said(version.version if moved else decision.champion),
            "previous": _said(decision.champion) if moved else None,
            "evaluated now": ", ".join(evaluated) or None,
        }
        return Result(
            f"promote {name}: {became}",
            {key: value for key, value in table.items() if value is not None},
            told,
            [recording.grid(name, decision, became)],
            failed=not moved,
        )

    def _registered(self, run: Run) -> VersionRow:
        """The model as a version, which it becomes where it is none."""
        place, name = self.place, self.request.registered
        assert place is not None
        logged, checkpoint = place.checkpoint, place.name
        if not logged:
            tags = {"digest.weights": digested.weights_digest(place), "ref": place.ref}
            if own := code.of_model(place.folder):
                tags[code.TAG] = own
            outside = Checkpoint(place.ref, place.step, place.folder, tags)
            experiment = ledger.find_run(self.store, run.name).experiment
            logged, checkpoint = models.entered(self.store, experiment, outside), place.ref
        number = aliases.register_model(self.store, logged, place.run, checkpoint, name, f"registered by {run.name}")
        console.say(f"{place.ref} is version {number} of {name}")
        return registered.version(self.store, name, number)


def champion(store: Store, name: str) -> VersionRow | None:
    """The champion of a registered model, if there is one."""
    aliased = registered.model(store, name).aliases
    return registered.version(store, name, CHAMPION) if CHAMPION in aliased else None


def refuse_lacking(request: Registry, found: Gathered) -> None:
    """See that all evidence is there that an evaluation gives.

    Raises:
        UserError: some is not; all of it is named.
    """
    if found.lacks:
        said = "; ".join(dict.fromkeys(map(str, found.lacks)))
        raise RequestError(f"evidence is missing: {said}", "policy", evaluating.remedy(request, found.lacks))


def _said(number: int | None) -> str:
    return f"version {number}" if number is not None else "none"
