"""What can be seen of a promotion before anything is recorded."""

from __future__ import annotations

from dataclasses import replace

from mlops_llm.models import digested, load
from mlops_llm.models.load import Task
from mlops_llm.models.ref import Place, check_registered, resolve
from mlops_llm.registry import evaluating, subject
from mlops_llm.registry.already import is_held
from mlops_llm.registry.config import Registry
from mlops_llm.registry.evidence import Asked, gather
from mlops_llm.registry.promoting import Promoting, champion, refuse_lacking
from mlops_llm.tracking import checkpoints, registered
from mlops_llm.tracking.checkpoints import CheckpointRow
from mlops_llm.tracking.registered import VersionRow
from mlops_llm.tracking.store import Store, connect


def promotion(request: Registry, *, evaluate: bool, force: bool, reason: str) -> Promoting:
    """Check a promotion.

    Args:
        request: what is asked for.
        evaluate: compute what is missing.
        force: promote whatever the policy says.
        reason: of a person.

    Raises:
        UserError: there is no such version, it cannot be used, or evidence is missing that nobody is to compute.
    """
    store, name = connect(), request.registered
    check_registered(name, "name")
    for hook in request.hook.values():
        hook.check()
    place = resolve(request.model) if request.model else None
    if place and not place.checkpoint:  # whether its own code may run is for the policy to say
        load.inspect(place, replace(request.model_load, trust_remote_code=True), Task.reward, fresh=True)
    version = _there(store, name, place) if place else subject.version(store, request)
    seen = version or _to_be(store, name, place)
    subject.refuse_unusable(store, seen)
    held = champion(store, name) if version or _is_known(store, name) else None
    asked = Asked(request.policy, request.read)
    if is_held(seen, held):
        return Promoting(request, store, asked, version, place, evaluate, force, reason)
    found = gather(store, asked, seen, held, request.seed)
    if evaluate:
        refs = {seen.version: place.ref} if place and version is None else {}
        evaluating.plans(request, found.lacks, refs)
    elif not force:
        refuse_lacking(request, found)
    return Promoting(request, store, asked, version, place, evaluate, force, reason)


def _there(store: Store, name: str, place: Place) -> VersionRow | None:
    """The version that a model is already: the champion where its weights are these, else the newest of its checkpoint."""
    if not _is_known(store, name):
        return None
    held = champion(store, name)
    if held and held.checkpoint and _same(held.checkpoint, place):
        return held
    if not place.checkpoint:
        return None
    same = store.client.search_model_versions(f"source_path = 'models:/{place.checkpoint}'")
    numbers = [int(each.version) for each in same if each.name == name]
    return registered.version(store, name, str(max(numbers))) if numbers else None


def _same(row: CheckpointRow, place: Place) -> bool:
    """Whether a checkpoint and a model are the same: weights, and chat template where both are known."""
    if row.id == place.checkpoint:
        return True
    weights, templates = row.tags.get("digest.weights"), {row.tags.get("digest.template"), place.tags.get("digest.template")}
    return bool(weights) and len(templates - {None}) <= 1 and weights == digested.weights_digest(place)


def _is_known(store: Store, name: str) -> bool:
    return any(each.name == name for each in registered.models(store))


def _to_be(store: Store, name: str, place: Place | None) -> VersionRow:
    """What a model will be once it is registered."""
    assert place is not None
    if place.checkpoint:
        row = checkpoints.by_id(store, place.checkpoint)
    else:
        tags = {"digest.weights": digested.weights_digest(place)}
        row = CheckpointRow("", place.ref, place.step, "READY", place.folder.as_uri(), "", tags, {})
    numbers = [each.version for each in registered.versions(store, name, 1)] if _is_known(store, name) else []
    return VersionRow(name, max(numbers, default=0) + 1, (), 0, "", {}, place.run, row)
