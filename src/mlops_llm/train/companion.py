"""Models that a training has beside its own, such as a teacher: a resumed run has the very ones that it began with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from mlops_llm.errors import UserError
from mlops_llm.files import write_text
from mlops_llm.models import digested
from mlops_llm.models.ref import Place, resolve


class Companion(NamedTuple):
    """A model beside the trained one."""

    place: Place
    digest: str
    """Of its weights."""


def companion(folder: Path, role: str, ref: str) -> Companion:
    """Find a model and keep in the run's folder which one it is, wherever an alias points later.

    Args:
        folder: the run's.
        role: what it is to the training; also the file's name.
        ref: the model.

    Raises:
        UserError: there is no such model, or its weights changed since the run began.
    """
    file = _file(folder, role)
    began = _began(file)
    place = resolve(pinned(folder, role, ref))
    now = digested.weights_digest(place)
    before = began.get("digest", now)
    if before != now:
        what = f"the {role} changed since the run began (weights digest {before[:12]}… then, {now[:12]}… now)"
        raise UserError(what, ref, "bring the old weights back, or start a new run")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps({"ref": ref, "checkpoint": place.checkpoint, "digest": now}))
    return Companion(place, now)


def pinned(folder: Path, role: str, ref: str) -> str:
    """The ref of the very checkpoint that a run in this folder began with; the given one where it has none."""
    checkpoint = _began(_file(folder, role)).get("checkpoint")
    return f"models:/{checkpoint}" if checkpoint else ref


def _file(folder: Path, role: str) -> Path:
    return folder / f"{role.replace(' ', '_')}.json"


def _began(file: Path) -> dict[str, str]:
    return dict(json.loads(file.read_text("utf-8"))) if file.is_file() else {}
