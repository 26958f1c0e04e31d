"""Taking a promotion back."""

from __future__ import annotations

from dataclasses import dataclass

from mlops_llm.errors import RequestError
from mlops_llm.record import Result, Run
from mlops_llm.registry import subject
from mlops_llm.registry.config import Registry
from mlops_llm.registry.hook import Changed, tell
from mlops_llm.tracking import champions, ledger, registered
from mlops_llm.tracking.champions import Move
from mlops_llm.tracking.registered import CHAMPION, PREVIOUS, ModelRow
from mlops_llm.tracking.store import Store, connect


@dataclass(frozen=True)
class RollingBack:
    """A rollback that can be carried out."""

    request: Registry
    store: Store
    reason: str

    def work(self, run: Run) -> Result:
        """Move the champion back, and tell the hooks."""
        store, name = self.store, self.request.registered
        with champions.turn_of(store, ledger.find_run(store, run.name).id, name):
            known = registered.model(store, name)
            to = target(known, champions.known_versions(store, name))
            subject.refuse_unusable(store, registered.version(store, name, str(to)))
            made = champions.move(store, name, to, champions.ROLLBACK, run.name, self.reason)
            for key, value in {"at": made.time, "by": made.by, "why": made.reason, "to": str(to)}.items():
                store.client.set_model_version_tag(name, str(made.before), f"rolled_back.{key}", value)
        run.tags({"registered": f"{name}/{to}", "model": f"models:/{name}/{to}", "rollback.from": str(made.before)})
        table = {
            "champion": f"version {to}",
            "before": f"version {made.before}",
            "next rollback to": f"version {made.previous}" if made.previous is not None else "none",
            "reason": self.reason,
        }
        result = Result(f"rollback {name}", table, {"version": to, "before": made.before, "previous": made.previous})
        return self._told(result, made, run)

    def _told(self, result: Result, made: Move, run: Run) -> Result:
        if not self.request.hook:
            return result
        name = self.request.registered
        changed = Changed(name, made.version, made.before, champions.ROLLBACK, self.reason)
        version = registered.version(self.store, name, str(made.version))
        grid, said = tell(self.store, self.request.hook, changed, version, run)
        return Result(result.title, {**result.table, "hooks": said}, result.values, [grid])


def rollback(request: Registry, reason: str) -> RollingBack:
    """Check a rollback.

    Raises:
        UserError: there is no champion, none before it, or that one's files are gone.
    """
    store = connect()
    for hook in request.hook.values():
        hook.check()
    name = request.registered
    to = target(registered.model(store, name), champions.known_versions(store, name))
    subject.refuse_unusable(store, registered.version(store, name, str(to)))
    return RollingBack(request, store, reason)


def target(known: ModelRow, there: set[int]) -> int:
    """The version to which a rollback leads: the champion of before, as the history tells, else what `previous` points to.

    Args:
        known: the registered model.
        there: versions that were not deleted.

    Raises:
        UserError: there is no champion, or none before it.
    """
    left = champions.pending(known.tags)
    now = left.version if left else known.aliases.get(CHAMPION)
    if now is None:
        raise RequestError(f"'{known.name}' has no champion", "name", "op=promote makes one")
    moves = [*champions.history(known.tags), *([left] if left else [])]
    below = champions.beneath(moves, now, there)
    by_hand = known.aliases.get(PREVIOUS) if now not in champions.reign(moves) else None
    before = below[-1] if below else by_hand
    if before is None or before == now:
        raise RequestError(f"'{known.name}' had no champion before version {now}", "name", "op=promote makes another one")
    return before
