"""An archive's runs, entered into the record."""

from __future__ import annotations

from pathlib import Path

from mlops_llm import console
from mlops_llm.registry.moving.contents import ARTIFACTS, FILES, Contents
from mlops_llm.tracking import entering
from mlops_llm.tracking.entering import Entered
from mlops_llm.tracking.store import Store


def foresee(store: Store, contents: Contents) -> None:
    """See, before anything is written, that what an archive says does not gainsay the record.

    Raises:
        UserError: a dataset version of the same label has other rows here.
    """
    for run in contents.runs:
        entering.same_version(store, run)


def enter(store: Store, folder: Path, contents: Contents, move: bool) -> Entered:
    """Enter all of an archive; in this order one that is killed is completed by the next.

    Args:
        store: the record.
        folder: the archive's files.
        contents: the rest of it.
        move: aliases that point elsewhere here are moved.
    """
    entered = Entered()
    bar = console.Progress("import", 2 * len(contents.runs) + len(contents.checkpoints))
    done = 0

    def step(name: str) -> None:
        nonlocal done
        done += 1
        bar.at(done, name)

    for run in contents.runs:
        entering.begin(store, run, entered)
        step(run.name)
    for each in contents.checkpoints:
        files = folder / FILES / each.id
        entering.bring_checkpoint(store, each, files if files.is_dir() else None, entered)
        step(each.name)
    numbers = {each.id: each.metrics for each in contents.checkpoints}
    for run in contents.runs:
        artifacts = folder / ARTIFACTS / run.id
        entering.complete(store, run, numbers, artifacts if artifacts.is_dir() else None, entered)
        step(run.name)
    bar.close()
    for each in contents.checkpoints:
        entering.finish_checkpoint(store, each, entered)
    for told in contents.datasets:
        entering.tell_dataset(store, told, entered)
    for model in contents.models:
        entering.enter_model(store, model, move, entered)
    return entered
