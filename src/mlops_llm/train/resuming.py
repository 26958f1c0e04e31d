"""A run that is resumed: the model that it began with, its data as they were, and the checkpoint that it goes on from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlops_llm.errors import UserError
from mlops_llm.eval.questions import Questions
from mlops_llm.models import digested
from mlops_llm.models.ref import Place, resolve
from mlops_llm.train.config import Train

if TYPE_CHECKING:
    from mlops_llm.train.plan import Known, Part


def start(settings: Train, known: Known | None) -> Place:
    """The model to start from; a resumed run starts from the very weights it began with, wherever an alias points now."""
    if known is not None:
        return resolve(known.start)
    if not settings.resume:
        return resolve(settings.model)
    tags = _tags_of(settings)
    checkpoint = tags.get("base.checkpoint")
    place = resolve(f"models:/{checkpoint}" if checkpoint else settings.model)
    before, now = tags.get("digest.base"), digested.weights_digest(place)
    if before and before != now:
        raise UserError(
            f"the start model changed since the run began (weights digest {before[:12]}… then, {now[:12]}… now)",
            settings.model,
            "bring the old weights back, or start a new run",
        )
    return place


def last(settings: Train, train: Part, validation: Part | None, asked: Questions | None, known: Known | None) -> Path | None:
    """The last whole checkpoint of the run that is resumed, once its data is known to be the same."""
    if not settings.resume:
        return None
    from mlops_llm.train.checkpoints import is_average, whole

    tags = _tags_of(settings) if known is None else {}
    settings.distributed.same(tags.get("processes", ""))
    for part, prefix, said in (
        (train, "data.train", "training"),
        (validation, "data.validation", "held-out"),
        (asked, "data.evaluation", "asked"),
    ):
        now = part.as_input().digests if part else {}
        for kind in ("canonical", "seen"):
            before = tags.get(f"{prefix}.digest.{kind}")
            if before and before != now.get(kind):
                raise UserError(
                    f"the {said} rows changed since the run began "
                    f"({kind} digest {before[:12]}… then, {now.get(kind, 'none')[:12]}… now)",
                    part.source.path.name if part else settings.dataset,
                    "bring the old file back, or start a new run",
                )
    found = [each for each in whole(Path(str(settings.output))) if not is_average(each)]
    return found[-1].folder if found else None


def step_of(checkpoint: Path | None) -> int:
    """Steps that a checkpoint has behind it."""
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0


def _tags_of(settings: Train) -> dict[str, str]:
    from mlops_llm.tracking import ledger
    from mlops_llm.tracking.store import connect

    return ledger.find_run(connect(), str(settings.resume)).tags
