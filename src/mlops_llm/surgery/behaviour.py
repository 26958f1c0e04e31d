"""Fixed prompts through what a checkpoint was made of and through the checkpoint itself, one whole model at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mlops_llm import console
from mlops_llm.errors import UserError
from mlops_llm.files import intended
from mlops_llm.models import load
from mlops_llm.models.load import Task
from mlops_llm.models.ref import Place
from mlops_llm.surgery.outputs import Distance, distance, outputs, prompts
from mlops_llm.surgery.planning import Check, Planned, Source
from mlops_llm.surgery.weights import finite

NOT_ASKED = "not_asked"
"""The check that stands for all outputs where there is no memory to ask for them."""
_UNCHANGED = 0.5
"""Share of the way from the base to the wanted outputs that a result must have gone at least."""
_NOTHING = 1e-7
"""Nats a token that are rounding."""


def unasked(planned: Planned, free: int) -> Check:
    """What is said where whole models do not fit into memory; it fails where something was demanded of them."""
    checks = planned.checks
    needed = f"{console.size(planned.opened)} of memory are needed to open a whole model"
    said = f"not asked: {needed} and {console.size(free)} are free"
    demanded = checks.more is not None or (checks.like is not None and checks.most_kl is not None)
    return Check(NOT_ASKED, said, False if demanded else None, said)


def asked(planned: Planned, folder: Path) -> Iterator[Check]:
    """Fixed prompts through the sources and the result."""
    checks = planned.checks
    ids = prompts(folder, planned.sources[0].files)
    try:
        given = _of_result(planned, folder, ids)
    except UserError as error:
        yield Check("loads", error.what, False, str(error))
        return
    infinite = sum(not finite(each) for each in given)
    yield Check("outputs_finite", infinite, not infinite, "all logits are finite" if not infinite else "NaN in the logits")
    if infinite:
        return
    wanted: Sequence[Any] = ()
    about = {id(each): each for each in (checks.like, *planned.sources, checks.changed_from) if each}
    for number, source in enumerate(about.values(), 1):
        of_source = _of(source, planned, ids)
        if source is checks.like:
            wanted = of_source
        found = distance(of_source, given) if of_source else None
        if found is None:
            yield Check("outputs", source.ref, None, f"against {source.ref}: not compared, its vocabulary is another")
            continue
        yield from _compared(number, source, found, planned)
        if source is checks.changed_from and wanted and source is not checks.like:
            whole = distance(of_source, wanted)
            if whole is not None and whole.kl > _NOTHING:
                moved = found.kl >= _UNCHANGED * whole.kl
                said = f"{found.kl:.3g} nats a token away from {source.ref}, {whole.kl:.3g} wanted"
                yield Check("changed", found.kl, moved, said if moved else f"is {source.ref}: {said}")


def _compared(number: int, source: Source, found: Distance, planned: Planned) -> Iterator[Check]:
    checks = planned.checks
    limited = source is checks.like
    if planned.task is Task.reward:
        yield Check("scores", found.most, None, f"against {source.ref}: scores differ by {found.most:.3g} at most", number)
        return
    most, least = (checks.most_kl, checks.least_agreement) if limited else (None, None)
    limit = f" (at most {most:g})" if most is not None else ""
    within = found.kl <= most if most is not None else None
    yield Check("logit_kl", found.kl, within, f"against {source.ref}: {found.kl:.3g} nats a token{limit}", number)
    limit = f" (at least {least:.1%})" if least is not None else ""
    enough = found.agreement >= least if least is not None else None
    said = f"against {source.ref}: {found.agreement:.1%} of {found.tokens} tokens{limit}"
    yield Check("greedy_agreement", found.agreement, enough, said, number)


def _of_result(planned: Planned, folder: Path, ids: Sequence[Sequence[int]]) -> list[Any]:
    how = planned.request.model_load
    files = load.inspect(Place(str(intended(folder)), folder), how, planned.task)
    return outputs(files, how, ids, planned.task)


def _of(source: Source, planned: Planned, ids: Sequence[Sequence[int]]) -> Sequence[Any]:
    """A source's outputs; none where its tokens are others."""
    rows = source.files.config.get("vocab_size")
    if rows is not None and any(token >= rows for one in ids for token in one):
        return ()
    if prompts(source.files.place.folder, source.files) != ids:
        return ()
    return outputs(source.files, planned.request.model_load, ids, planned.task)
