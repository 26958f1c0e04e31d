"""An archive's runs, entered into the record."""

from __future__ import annotations

from pathlib import Path

from mlops_llm import console
from mlops_llm.registry.moving.contents import ARTIFACTS, FILES, Contents
from mlops_llm.tracking import bringing, enrolling, entering
from mlops_llm.tracking.entered import Entered, find_named
from mlops_llm.tracking.store import Store


def foresee(store: Store, contents: Contents) -> None:
    """See, before anything is written, that what an archive says does not gainsay the record.

    Raises:
        UserError: a dataset version of the same label has other rows here, or an experiment was deleted or cannot be made.
    """
    names = [*(each.experiment for each in contents.runs), *(each.experiment for each in contents.checkpoints)]
    for name in dict.fromkeys(names):
        store.known_experiment(name, "op.file")
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
    brought = {each.id for each in contents.runs} | {each.id for each in contents.checkpoints}
    for run in contents.runs:
        find_named(store, run, brought, entered)
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
        bringing.bring_checkpoint(store, each, files if files.is_dir() else None, entered)
        step(each.name)
    numbers = {each.id: each.metrics for each in contents.checkpoints}
    for run in contents.runs:
        artifacts = folder / ARTIFACTS / run.id
        entering.complete(store, run, numbers, artifacts if artifacts.is_dir() else None, entered)
        step(run.name)
    bar.close()
    for each in contents.checkpoints:
        bringing.finish_checkpoint(store, each, entered)
    for told in contents.datasets:
        entering.tell_dataset(store, told, entered)
    for model in contents.models:
        enrolling.enter_model(store, model, move, entered)
    return entered
