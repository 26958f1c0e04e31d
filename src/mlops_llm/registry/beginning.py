"""What a training began from, named so that it is the same now: rows by their digest, models by their weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlops_llm.data.read import raw_digest
from mlops_llm.errors import UserError
from mlops_llm.registry.reproduction import Difference
from mlops_llm.tracking import checkpoints, datasets, lineage
from mlops_llm.tracking.lineage import Used
from mlops_llm.tracking.origin import Origin
from mlops_llm.tracking.store import Store

_ROWS = {"training": "dataset", "validation": "validation", "evaluation": "evaluate.dataset"}
"""Use of rows -> the setting that names them."""


@dataclass(frozen=True)
class Beginning:
    """How a training is begun again."""

    settings: Mapping[str, str]
    """Setting -> what it must be now to mean the same."""
    missing: tuple[Difference, ...]
    """What is nowhere any more."""


def beginning(store: Store, run: str, origin: Origin) -> Beginning:
    """Find what a training read.

    Args:
        store: the record.
        run: its id.
        origin: what it says of itself.
    """
    settings, missing = dict[str, str](), list[Difference]()
    for setting, found in (*_rows(store, run, origin), *_models(store, origin)):
        if isinstance(found, Difference):
            missing.append(found)
        else:
            settings[setting] = found
    return Beginning(settings, tuple(missing))


def _rows(store: Store, run: str, origin: Origin) -> Iterator[tuple[str, str | Difference]]:
    """Rows that must be named otherwise now, since their file has changed, and those that are nowhere."""
    for context, setting in _ROWS.items():
        used = lineage.used(store, run, context) if origin.params.get(setting, "None") not in ("None", "") else None
        if used is None:
            continue
        file, wanted = Path(used.source), used.digests.get("raw", "")
        now = raw_digest(file, ()) if file.is_file() else ""
        if now == wanted:
            continue
        if label := _label(store, used):
            yield setting, f"{used.name}@{label}"
        elif context == "training" or not now:
            yield setting, Difference("data", f"{used.name} ({file})", f"{wanted[:12]}…", f"{now[:12]}…" if now else "")


def _label(store: Store, used: Used) -> str:
    known = datasets.find(store, used.name)
    return next((each.label for each in known.versions if each.raw == used.digests.get("raw")), "") if known else ""


def _models(store: Store, origin: Origin) -> Iterator[tuple[str, str | Difference]]:
    """The very checkpoints that aliases and the like meant then, and those whose files are gone."""
    tags = origin.tags
    asked = (
        ("model", tags.get("base", ""), tags.get("digest.base", ""), tags.get("base.checkpoint", "")),
        ("algo.teacher", tags.get("teacher", ""), tags.get("digest.teacher", ""), ""),
        ("reward.model.ref", origin.params.get("reward.model.ref", ""), tags.get("digest.reward.model", ""), ""),
    )
    for setting, ref, weights, known in asked:
        if not weights or not ref.startswith(("models:/", "runs:/")):
            continue
        try:
            row = checkpoints.by_id(store, known) if known else checkpoints.by_weights(store, weights)
            if row is None:
                raise UserError("not in the record any more")
            checkpoints.place_of(store, row)
        except UserError as error:
            yield setting, Difference("weights", ref, f"{weights[:12]}…", error.what)
        else:
            yield setting, f"models:/{row.id}"
