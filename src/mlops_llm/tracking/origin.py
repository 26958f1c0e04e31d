"""How a model was made: settings, code and packages of its run, and of one made of others its recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlops_llm.errors import UserError
from mlops_llm.tracking import ledger
from mlops_llm.tracking.opening import recorded_text
from mlops_llm.tracking.store import Store

RECIPE = "recipe.json"
"""Beside weights that were made of others, and in the run that made them: of what and how."""
_PATCHES = ("uncommitted", "mlops_llm")


@dataclass(frozen=True)
class Origin:
    """The run that made a model; empty where the record knows none."""

    run: str = ""
    """Its name."""
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)
    """Name -> version."""
    patches: Mapping[str, str] = field(default_factory=dict)
    """Checkout -> changes that were not committed."""


def origin(store: Store, run: str) -> Origin:
    """Read what a run says of itself; a text that is not there any more is empty.

    Args:
        store: the record.
        run: id.

    Raises:
        UserError: there is no such run.
    """
    row = ledger.find_run(store, run)
    lines = _text(store, run, "environment/packages.txt").splitlines()
    packages = dict(line.split("==", 1) for line in lines if "==" in line)
    patches = {name: text for name in _PATCHES if (text := _text(store, run, f"environment/{name}.patch"))}
    return Origin(row.name, row.params, row.tags, packages, patches)


def recipe(store: Store | None, run: str, folder: Path, weights: str) -> dict[str, Any]:
    """What a model was made of and how, by its recipe; empty of one that was trained, or comes from elsewhere.

    Args:
        store: the record; None where there is none.
        run: id of the run that made it, or empty.
        folder: where it lies.
        weights: digest of its weights, which the recipe must be of.
    """
    texts = [(folder / RECIPE).read_text("utf-8", "replace")] if (folder / RECIPE).is_file() else []
    texts += [_text(store, run, RECIPE)] if store and run else []
    for each in texts:
        try:
            told = json.loads(each)
        except (ValueError, RecursionError):
            continue
        if isinstance(told, dict) and told.get("digest.weights") == weights:
            return _readable(told)
    return {}


def _readable(told: dict[str, Any]) -> dict[str, Any]:
    """A recipe, whose method is a text and whose sources are objects of texts and a weight: others may have written it."""
    given = told.get("sources")
    sources = [
        {key: value for key, value in each.items() if isinstance(value, int | float if key == "weight" else str)}
        for each in (given if isinstance(given, list) else ())
        if isinstance(each, dict)
    ]
    return told | {"method": str(told.get("method", "")), "sources": sources}


def _text(store: Store, run: str, name: str) -> str:
    try:
        return recorded_text(store, run, name)
    except UserError:
        return ""
