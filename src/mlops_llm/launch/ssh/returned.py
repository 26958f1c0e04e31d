"""What a command made on the other machine comes here: files to where a command here would have made them, then the record."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path, PurePosixPath

from mlops_llm import console, files
from mlops_llm.errors import UserError
from mlops_llm.launch.ssh.connection import Connection
from mlops_llm.tracking import moved
from mlops_llm.tracking.checkpoints import CheckpointRow
from mlops_llm.tracking.moved import There
from mlops_llm.tracking.store import Store

_WEIGHTS = ("*.safetensors", "*.gguf", "*.bin", "*.pt")
_NEVER = (".lock", ".spool/", ".upload*/", "__pycache__/")
_OF_A_TRAINING = "checkpoint-*/"


class Checkpoints(Enum):
    """Which checkpoints come back."""

    best = "best"
    all = "all"
    none = "none"


@dataclass(frozen=True)
class Ground:
    """The folder there in which a command ran, and the one here that it stands for."""

    there: str
    here: Path
    output_there: str
    """Folder of the run's files there."""
    output_here: Path
    made: Mapping[str, str] = field(default_factory=dict)
    """What the command made there in place of a path outside of its folder here -> that path."""
    others: Mapping[str, str] = field(default_factory=dict)
    """What it read there -> what that is here."""

    @property
    def names(self) -> dict[str, str]:
        """All folders there -> what they are here, the innermost first."""
        return {**self.made, self.output_there: str(self.output_here), self.there: str(self.here), **self.others}

    def place(self, path: str) -> Path:
        """Where a path of the other machine's lies here."""
        for there, here in self.names.items():
            if path == there or path.startswith(f"{there}/"):
                return Path(here) / PurePosixPath(path).relative_to(there)
        return self.here / PurePosixPath(path).name


def wanted(run: There, which: Checkpoints) -> list[CheckpointRow]:
    """The checkpoints of a run that come back; where none was chosen as the best, the last one is, to go on from."""
    if which is Checkpoints.none:
        return []
    if which is Checkpoints.all or len(run.checkpoints) < 2:
        return list(run.checkpoints)
    best = [row for row in run.checkpoints if row.name == run.run.tags.get("best.checkpoint")]
    raw = [row for row in run.checkpoints if not row.name.endswith("-ema")]
    return best or raw[-1:] or list(run.checkpoints[-1:])


def filters(run: There, others: Sequence[str], keep: Sequence[CheckpointRow], everything: bool) -> list[str]:
    """What rsync is to leave out of a run's folder.

    Args:
        run: whose folder.
        others: folders there of other runs, which come by themselves.
        keep: the checkpoints that come.
        everything: also checkpoints of which the record knows nothing, such as one that was cut off.
    """
    inside = [f"--exclude=/{_below(each, run.output)}/" for each in others if each.startswith(f"{run.output}/")]
    rules = [f"--exclude={each}" for each in _NEVER] + inside
    kept = {row.id for row in keep}
    for row in run.checkpoints:
        place = run.place(row)
        if place.startswith(f"{run.output}/"):
            rules.append(f"--{'include' if row.id in kept else 'exclude'}=/{_below(place, run.output)}/")
        elif place == run.output and row.id not in kept:
            rules += [f"--exclude=/{each}" for each in _WEIGHTS]
    return rules if everything else [*rules, f"--exclude={_OF_A_TRAINING}"]


def bring(to: Connection, store: Store, run: str, ground: Ground, which: Checkpoints) -> list[str]:
    """Bring back what there is of a run and those below it, and let the record name it; return lines that say what.

    Args:
        to: the machine.
        store: the record.
        run: id of the one that was sent.
        ground: where it ran, and what that is here.
        which: checkpoints that come.

    Raises:
        LostError: the connection broke; what has come stays, and the rest comes at the next call.
        UserError: weights are others than those in the record, or there is no space here.
    """
    found = moved.runs(store, run, ground.there)
    outputs = [each.output for each in found]
    said = [_brought(to, store, each, outputs, ground, which) for each in found]
    places = [each.place(row) for each in found for row in each.checkpoints]
    for there, here in ground.made.items():
        if there not in places and to.ask('[ -e "$1" ] && echo yes; exit 0', there).strip():
            folder = _is_there(to, there)
            to.fetch(f"{there}/" if folder else there, files.writable(Path(here) if folder else Path(here).parent))
    rest = [f"--exclude=/{_below(each, ground.there)}/" for each in (*outputs, *places)]
    rest += [f"--exclude=/{each}" for each in ("conf/", ".*", "outputs/", "made/")]
    to.fetch(f"{ground.there}/", ground.here, "--ignore-existing", "--no-links", "--prune-empty-dirs", *rest)
    return said


def _brought(to: Connection, store: Store, run: There, outputs: Sequence[str], ground: Ground, which: Checkpoints) -> str:
    """Bring one run's folder, then tell the record; return a line that says what came."""
    keep, target = wanted(run, which), ground.place(run.output)
    rules = filters(run, outputs, keep, which is Checkpoints.all)
    moved_bytes = to.fetch(f"{run.output}/", files.writable(target), *rules) if _is_there(to, run.output) else 0
    whole = [row for row in keep if _checked(to, run, row, ground)]
    moved.rename_in_result(store, run.run.id, target, ground.names)
    for row in whole:
        moved.settle(store, row, ground.place(run.place(row)))
    moved.rename_in_settings(store, run.run.id, ground.names)
    moved.rename_in_tags(store, run.run, ground.names)
    moved.point(store, run.run.id, target, ground.here)
    names = "".join(f", {row.name}" for row in whole)
    left = len(run.checkpoints) - len(whole)
    stay = f"; {left} more stay{'s' if left == 1 else ''} on {to.host}" if left else ""
    return f"brought {run.run.name}: {_shown(target)} ({console.size(moved_bytes)}{names}){stay}"


def _checked(to: Connection, run: There, row: CheckpointRow, ground: Ground) -> bool:
    """Whether a checkpoint's weights are here; sent once more by content where they differ."""
    there, here = run.place(row), ground.place(run.place(row))
    if moved.is_whole(row, here):
        return True
    if not _is_there(to, there):
        return False
    to.fetch(f"{there}/", files.writable(here), "--checksum")
    if moved.is_whole(row, here):
        return True
    raise UserError(f"the weights of {row.name} are others than the record says", f"{to.host}:{there}", "see what changed them")


def _is_there(to: Connection, folder: str) -> bool:
    return to.ask('[ -d "$1" ] && echo yes; exit 0', folder).strip() == b"yes"


def _below(path: str, folder: str) -> str:
    return str(PurePosixPath(path).relative_to(folder))


def _shown(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
