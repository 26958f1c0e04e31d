"""Why two models differ: what is different in how they were made, in the order in which one would look."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlops_llm import digest
from mlops_llm.errors import UserError
from mlops_llm.eval import trained
from mlops_llm.record import Grid
from mlops_llm.tracking.lineage import Lineage, Used
from mlops_llm.tracking.origin import Origin
from mlops_llm.tracking.store import Store

_OF_RUN = ("run_name", "output", "resume", "register_as", "project", "hydra.", "launch.", "experiment")
"""What names a run, or where it lies: it differs always and explains nothing."""
_MACHINE = ("python", "host.system", "host.cpu", "host.memory_gb", "host.gpu")
_CODE = ("git.commit", "git.mlops_llm_commit")
_TEMPLATES = ("template", "template source")
_WEIGHTS = ("step", "weights")
_CELL = 100


@dataclass(frozen=True)
class Made:
    """A model with what the record knows of it."""

    ref: str
    origin: Origin
    lineage: Lineage
    identity: Mapping[str, str]
    """What it is by its files: `weights` and `template` (digests), `template source`; of a checkpoint its `step`, too."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Of one that was made of others: how, and of what."""


def differences(one: Made, other: Made, store: Store | None) -> list[Grid]:
    """What differs, a table for each kind: settings, code, environment, data, template, weights; none where nothing does.

    Settings, code and environment are set side by side where the record knows the runs of both.

    Args:
        one: a model.
        other: another.
        store: the record, which keeps the versions of datasets.
    """
    a, b, columns = one.origin, other.origin, [one.ref, other.ref]
    template = Grid("chat template", ["what", *columns], _unequal(*(_some(each.identity, _TEMPLATES) for each in (one, other))))
    weights = Grid("weights", ["what", *columns], _unequal(*(_some(each.identity, _WEIGHTS) for each in (one, other))))
    data = Grid("training data", ["dataset", "use", *columns], _data(one.lineage, other.lineage))
    rows = Grid("rows", ["which", "only in the first", "only in the second", "in both"], _rows(one, other, store))
    if not (a.run and b.run):  # what is known of one alone is no difference
        return [each for each in (data, rows, template, weights) if each.rows]
    settings = [row for row in _unequal(a.params, b.params) if not row[0].startswith(_OF_RUN)]
    start = [", ".join(each.lineage.bases) or each.origin.tags.get("base", "") for each in (one, other)]
    settings += [["start", *map(_cell, start)]] if start[0] != start[1] else []
    code = [*_unequal(_some(a.tags, _CODE), _some(b.tags, _CODE)), *_unequal(_patches(a), _patches(b))]
    environment = [*_unequal(_some(a.tags, _MACHINE), _some(b.tags, _MACHINE)), *_unequal(a.packages, b.packages)]
    found = [
        Grid("settings", ["setting", *columns], settings),
        Grid("code", ["what", *columns], code),
        Grid("environment", ["what", *columns], environment),
        data,
        rows,
        template,
        weights,
    ]
    return [each for each in found if each.rows]


def made_of(one: Made, other: Made) -> Grid | None:
    """What those of two models are made of that were merged, averaged, pruned or took another form; None where none was."""
    rows = []
    for made, beside in ((one, other), (other, one)):
        for source in made.recipe.get("sources", ()):
            is_other = bool(beside.identity["weights"]) and str(source.get("digest", "")).startswith(beside.identity["weights"])
            weight = "" if source.get("weight") is None else f"{source['weight']:g}"
            note = [source.get("role", ""), source.get("note", ""), f"is {beside.ref}" if is_other else ""]
            said = ", ".join(filter(None, note))
            rows.append([made.ref, made.recipe.get("method", ""), source.get("named") or source.get("ref", ""), weight, said])
    return Grid("made of others", ["model", "method", "source", "weight", "what it is"], rows) if rows else None


def _unequal(one: Mapping[str, str], other: Mapping[str, str]) -> list[list[str]]:
    names = sorted({*one, *other})
    return [[name, _cell(one.get(name)), _cell(other.get(name))] for name in names if one.get(name) != other.get(name)]


def _cell(value: str | None) -> str:
    if value is None:
        return "-"
    return value if len(value) <= _CELL else f"{value[:_CELL]}…"


def _some(tags: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    return {name: tags[name] for name in names if name in tags}


def _patches(one: Origin) -> dict[str, str]:
    """Changes that were not committed: how many lines, and a digest by which they are told apart."""
    return {
        f"{name}.patch": f"{sum(line[:1] in '+-' for line in text.splitlines() if line)} lines, {digest.text(text)[:12]}"
        for name, text in one.patches.items()
    }


def _data(one: Lineage, other: Lineage) -> list[list[str]]:
    def told(lineage: Lineage) -> dict[tuple[str, str], Used]:
        return {(each.name, each.context): each for each in reversed(lineage.datasets)}

    first, second = told(one), told(other)
    rows = []
    for name, context in sorted({*first, *second}):
        both = [each.get((name, context)) for each in (first, second)]
        if {used.digests.get("canonical") if used else None for used in both} != {None} and not _alike(*both):
            rows.append([name, context, *("-" if used is None else _used(used) for used in both)])
    return rows


def _alike(one: Used | None, other: Used | None) -> bool:
    return one is not None and other is not None and one.digests.get("canonical") == other.digests.get("canonical")


def _used(used: Used) -> str:
    return f"{used.version}, {used.rows} rows, {used.digests.get('canonical', '')[:12]}"


def _rows(one: Made, other: Made, store: Store | None) -> list[list[str | int]]:
    """Training rows that only one of the models met, whatever their files are called; of a file that cannot be read none."""
    sums = list[Counter[str]]()
    for made in (one, other):
        files, _ = trained.found(made.lineage, store)
        sums.append(sum((_counted(each) for each in files), Counter[str]()))
    first, second = sums
    shared = (first & second).total()
    if first == second:
        return []
    return [["all training rows", first.total() - shared, second.total() - shared, shared]]


def _counted(file: trained.Kept) -> Counter[str]:
    """How often each row was trained on."""
    found = Counter[str]()
    with contextlib.suppress(UserError, OSError):
        for place, (_, row) in enumerate(file.rows()):
            if any(used.context == "training" and trained.belongs(used, place, row) for used in file.users):
                found[digest.row(row)] += 1
    return found
