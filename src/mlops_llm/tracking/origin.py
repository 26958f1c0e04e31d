"""How the record says that a model was made: settings, code and packages of its run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mlops_llm.errors import UserError
from mlops_llm.tracking import ledger
from mlops_llm.tracking.opening import recorded_text
from mlops_llm.tracking.store import Store

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


def _text(store: Store, run: str, name: str) -> str:
    try:
        return recorded_text(store, run, name)
    except UserError:
        return ""
