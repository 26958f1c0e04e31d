"""Registered models of another record: versions, aliases and their history, with the numbers of this one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from mlops_llm.tracking.aliases import register_model
from mlops_llm.tracking.champions import HISTORY
from mlops_llm.tracking.entered import Entered
from mlops_llm.tracking.portable import PortableModel
from mlops_llm.tracking.store import Store

_UNFINISHED = "imported.unfinished"


def enter_model(store: Store, told: PortableModel, move: bool, entered: Entered) -> None:
    """Register versions; an alias that points elsewhere here is moved only where `move` says so.

    The history of champions comes along where the registered model is new here.
    """
    client = store.client
    is_new = not [
        each for each in client.search_registered_models(f"name = '{told.name}'") if each.tags.get(_UNFINISHED) != "true"
    ]
    numbers = dict[int, int]()
    if is_new:
        _named(store, told)
    for each in told.versions:
        if each.checkpoint not in entered.checkpoints:
            continue
        logged = entered.checkpoints[each.checkpoint]
        run = entered.runs.get(each.run, "")
        name = each.tags.get("checkpoint", "")
        numbers[each.number] = int(register_model(store, logged, run, name, told.name, each.description))
        entered.versions[f"{told.name}/{each.number}"] = f"{told.name}/{numbers[each.number]}"
    for each in told.versions:
        if each.number in numbers:
            there = client.get_model_version(told.name, str(numbers[each.number])).tags
            for key, value in each.tags.items():
                if key not in there:
                    client.set_model_version_tag(
                        told.name, str(numbers[each.number]), key, _version_tag(key, value, numbers, entered)
                    )
    aliases = client.get_registered_model(told.name).aliases
    for alias, number in told.aliases.items():
        if number not in numbers or str(aliases.get(alias, "")) == str(numbers[number]):
            continue
        if alias in aliases and not move:
            entered.kept_aliases[f"{told.name}@{alias}"] = f"version {numbers[number]}"
        else:
            client.set_registered_model_alias(told.name, alias, str(numbers[number]))
    if is_new:
        for key, value in told.tags.items():
            if key != "registry.journal" and (text := _history(key, value, numbers, entered)):
                client.set_registered_model_tag(told.name, key, text)
        client.delete_registered_model_tag(told.name, _UNFINISHED)


def _named(store: Store, told: PortableModel) -> None:
    from mlflow.exceptions import MlflowException

    try:
        store.client.create_registered_model(told.name, {_UNFINISHED: "true"}, told.description or None)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _version_tag(key: str, value: str, numbers: Mapping[int, int], entered: Entered) -> str:
    if key in ("decision.against", "champion.from"):
        return {str(old): str(new) for old, new in numbers.items()}.get(value, value)
    return entered.here(value)


def _history(key: str, value: str, numbers: Mapping[int, int], entered: Entered) -> str:
    """A registered model's tag; a move of the champion with the numbers of here, empty where its version was not brought."""
    if not key.startswith(HISTORY):
        return entered.here(value)
    move = json.loads(value)
    if move["version"] not in numbers:
        return ""
    renumbered: Callable[[int | None], int | None] = lambda number: None if number is None else numbers.get(number)  # noqa: E731
    move |= {name: renumbered(move[name]) for name in ("version", "before", "previous")}
    return entered.here(json.dumps(move, ensure_ascii=False))
