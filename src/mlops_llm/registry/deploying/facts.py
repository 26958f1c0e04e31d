"""What the record knows of a model that is deployed, told without anything of this machine."""

from __future__ import annotations

import getpass
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mlops_llm.eval.recording import BESIDE, PREFIX
from mlops_llm.models.ref import Place, unpinned
from mlops_llm.registry import descent
from mlops_llm.tracking import checkpoints, environment, lineage, registered
from mlops_llm.tracking.lineage import Ancestor
from mlops_llm.tracking.registered import VersionRow
from mlops_llm.tracking.store import Store, connect, exists


@dataclass(frozen=True)
class Known:
    """What the record knows of a model."""

    version: VersionRow | None = None
    """As which it is registered."""
    checkpoint: str = ""
    """Its LoggedModel id."""
    certificate: str = ""
    scores: tuple[Mapping[str, Any], ...] = ()
    """Name, dataset, digest of its rows and value of each."""
    lineage: str = ""
    """Where it comes from, in one line."""

    @property
    def registration(self) -> dict[str, Any] | None:
        """As a manifest has it."""
        if self.version is None:
            return None
        one = self.version
        return {"name": one.model, "version": one.version, "aliases": list(one.aliases), "ref": one.ref}


def known(place: Place, weights: str) -> Known:
    """Ask the record.

    Args:
        place: the model.
        weights: digest of its own weights.

    Raises:
        UserError: the record cannot be reached.
    """
    if not exists():
        return Known()
    store = connect()
    found, _ = lineage.tree(store, place, "" if place.checkpoint else weights)
    row = checkpoints.by_id(store, place.checkpoint) if place.checkpoint else checkpoints.by_weights(store, weights)
    if row is None:
        return Known(lineage=chain(found))
    scores = [
        each for each in registered.measured(store, row.id) if each.name.startswith(PREFIX) and not each.name.endswith(BESIDE)
    ]
    return Known(
        _version(store, place.ref, row.id),
        row.id,
        row.tags.get("certificate", ""),
        tuple(
            {"name": each.name, "dataset": each.dataset, "digest": each.digest, "value": each.value}
            for each in sorted(scores, key=lambda each: (each.name, each.dataset, each.digest))
        ),
        chain(found),
    )


def _version(store: Store, ref: str, checkpoint: str) -> VersionRow | None:
    """The version that a ref names, else the newest that is made of the checkpoint."""
    if found := re.fullmatch(r"models:/([^/@]+)(?:@([^/]+)|/(\d+))", unpinned(ref)):
        return registered.version(store, found[1], found[2] or found[3])
    return registered.of_checkpoint(store, checkpoint)


def chain(found: Mapping[str, Ancestor]) -> str:
    """A lineage in one line: `RUN/checkpoint-20 (sft on sales_sft@v1.0) <- tiny`."""

    def told(key: str, above: tuple[str, ...]) -> str:
        each = found.get(key)
        if each is None or key in above:
            return said(each.name if each else key)
        data = dict.fromkeys(descent.titled(used) for used in each.datasets if used.context == "training")
        how = " on ".join(part for part in (each.how, ", ".join(map(said, data))) if part)
        parents = [told(parent, (*above, key)) for parent in each.parents]
        own = said(each.name) + (f" ({how})" if how else "")
        below = "; ".join(parents) if len(parents) < 2 else f"[{'; '.join(parents)}]"
        return f"{own} <- {below}" if parents else own

    return " ".join(told(next(iter(found)), ()).split()) if found else ""


def said(ref: str) -> str:
    """A ref as another machine may read it: of a folder somewhere here its name alone."""
    return Path(ref).name if ref.startswith(("/", "~")) else ref


def made(run: str) -> dict[str, str]:
    """Who writes a deployment, when, and with what.

    Args:
        run: name of the run that records it; empty of none.
    """
    root = environment.checkout(Path.cwd()) or environment.checkout(Path(__file__).parent)
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "by": getpass.getuser(),
        "commit": environment.git(root, "rev-parse", "HEAD") if root else "",
        "mlops_llm": version("mlops-llm"),
        "run": run,
    }
