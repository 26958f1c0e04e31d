"""Dataset versions in MLflow: the experiment `datasets/NAME` holds one finished run a version.

The version that is current is one tag of the experiment, so that moving it is one atomic write. Names that a dataset had
before are another tag; an unlisted dataset keeps all of its versions.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mlops_llm.component import near
from mlops_llm.errors import UserError
from mlops_llm.files import cache_folder, check_part, whole_folder
from mlops_llm.tracking import environment, ledger
from mlops_llm.tracking.rivals import rivals
from mlops_llm.tracking.store import Store, local_path

PREFIX = "datasets/"
_CURRENT, _FORMER, _LISTED, _DESCRIPTION = "dataset.current", "dataset.former_names", "dataset.listed", "dataset.description"
SHORTEST_DIGEST = 6
"""Least digits of a digest that stand for it."""
_NAME = re.compile(r"[^\W_][\w.\-]*")


@dataclass(frozen=True)
class Version:
    """A snapshot of a dataset."""

    run: str
    """MLflow run that keeps it."""
    name: str
    label: str
    description: str
    kind: str
    rows: int
    bytes: int
    raw: str
    canonical: str
    source: str
    """Digest of the bytes that were read; another than `raw` where settings were needed to read them, or for a folder."""
    created: int
    """Unix time in milliseconds."""
    parents: tuple[str, ...]
    """What it was made from, each as NAME@LABEL or a path with its digest."""
    current: bool
    ability: str = ""
    """What an evaluation set asks for, such as 对话质量."""
    method: tuple[str, ...] = ()
    """How an evaluation set is scored where nobody says how: `judge`, names of metrics."""

    @property
    def digests(self) -> dict[str, str]:
        """`raw` and `canonical`."""
        return {"raw": self.raw, "canonical": self.canonical}


@dataclass(frozen=True)
class Registered:
    """A dataset of which there is at least one version."""

    name: str
    former: tuple[str, ...]
    listed: bool
    description: str
    versions: tuple[Version, ...]
    """Oldest first."""

    @property
    def current(self) -> Version | None:
        """The current version."""
        return next((version for version in self.versions if version.current), None)

    @property
    def digests(self) -> dict[str, str]:
        """`raw` and `canonical` of the current version."""
        return self.current.digests if self.current else {}

    def version(self, which: str) -> Version:
        """A version by its label, or by the beginning of a digest.

        Raises:
            UserError: there is none, or several begin so.
        """
        labels = {version.label: version for version in self.versions}
        if which in labels:
            return labels[which]
        found = [each for each in self.versions if each.canonical.startswith(which) or each.raw.startswith(which)]
        found = found if len(which) >= SHORTEST_DIGEST else []
        if len({each.canonical for each in found}) == 1:
            return found[-1]
        if found:
            raise UserError(f"{len(found)} versions begin with this digest", f"{self.name}@{which}", "give more digits")
        remedy = f"it has: {', '.join(labels)}"
        raise UserError(f"'{self.name}' has no version '{which}'{near(which, labels)}", remedy=remedy)


def check_name(name: str) -> str:
    """Return a name that can stand for a dataset.

    Raises:
        UserError: it holds characters that refs, addresses or file names use otherwise.
    """
    if name.lower().endswith((".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet", ".arrow", ".gz", ".zst")):
        raise UserError(f"'{name}' ends like a file, and would be read as one", "name", "leave the ending out")
    if not _NAME.fullmatch(name):
        raise UserError(f"'{name}' cannot be a dataset's name", "name", "use letters (of any script), digits, '-', '_' and '.'")
    return name


def find(store: Store, name: str) -> Registered | None:
    """A registered dataset by its name, or by one it had before."""
    experiment = store.client.get_experiment_by_name(PREFIX + name)
    if experiment is None and "'" not in name:
        like = store.client.search_experiments(filter_string=f"tags.`{_FORMER}` LIKE '%\"{name}\"%'")
        experiment = next((each for each in like if name in _former(each)), None)  # `_` and `%` match anything there
    found = _registered(store, experiment) if experiment is not None else None
    return found if found and found.versions else None  # the first registration may have been cut off


def all_registered(store: Store) -> list[Registered]:
    """Every registered dataset, listed or not, by name."""
    found, token = [], None
    while True:
        page = store.client.search_experiments(filter_string=f"name LIKE '{PREFIX}%'", max_results=500, page_token=token)
        found += [_registered(store, experiment) for experiment in page]
        token = page.token
        if not token:
            return sorted((each for each in found if each.versions), key=lambda each: each.name)


def add(store: Store, name: str, label: str, file: Path, facts: Mapping[str, Any], parents: Sequence[str]) -> Version:
    """Keep a file as a version and make it current.

    Args:
        store: the record.
        name: the dataset's name.
        label: unique within the dataset.
        file: copied whole into the record.
        facts: `kind`, `description`, `rows`, `raw`, `canonical`, `source`; of an evaluation set `ability` and `method` too.
        parents: what it was made from.

    Raises:
        UserError: the label is taken, be it by someone who was faster by a moment.
    """
    experiment = store.experiment(PREFIX + check_name(name), "name=")
    _refuse_taken(name, label, [each for each in _versions(store, experiment, name, "") if each.label == label])
    tags = {
        "stage": "data",
        "dataset.name": name,
        "dataset.label": label,
        "dataset.kind": str(facts["kind"]),
        "dataset.description": str(facts["description"]),
        "dataset.rows": str(facts["rows"]),
        "dataset.bytes": str(file.stat().st_size),
        "dataset.file": f"data/{file.name}",
        "digest.raw": str(facts["raw"]),
        "digest.canonical": str(facts["canonical"]),
        "digest.source": str(facts["source"]),
        "dataset.parents": json.dumps(list(parents), ensure_ascii=False),
        **{f"dataset.{each}": str(facts[each]) for each in ("ability", "method") if facts.get(each)},
        **environment.process_tags(),
    }
    run = store.client.create_run(experiment, run_name=f"{name}@{label}", tags=tags).info.run_id
    try:
        store.client.log_artifact(run, str(file), "data")
        _log_parents(store, run, parents)
        store.client.log_metric(run, "rows", facts["rows"])
        store.client.log_metric(run, "bytes", file.stat().st_size)
        # Two people with one label: a version is there to stay; whoever is still at it looks again, and gives way to the first.
        taken = rivals(
            lambda: _of_label(store, experiment, label),
            lambda each: each.info.run_id == run,
            lambda each: each.info.status == "FINISHED",
        )
        _refuse_taken(name, label, [_version(each, "") for each in taken])
        store.client.set_terminated(run, "FINISHED")
    except BaseException:
        store.client.delete_run(run)
        raise
    store.client.set_experiment_tag(experiment, _CURRENT, run)
    return _version(store.client.get_run(run), run)


def _of_label(store: Store, experiment: str, label: str) -> list[Any]:
    """Runs that are versions of a label or may become one, the first that began first."""
    found = [each for each in _runs(store, experiment, f"tags.`dataset.label` = '{label}'") if _counts(each)]
    return sorted(found, key=lambda each: (each.info.start_time, each.info.run_id))


def _counts(run: Any) -> bool:
    """Whether a run is a version or may become one: its process may have died before the version was whole."""
    return run.info.status == "FINISHED" or (run.info.status == "RUNNING" and environment.believed_alive(run.data.tags))


def use(store: Store, version: Version) -> None:
    """Make a version the current one."""
    store.client.set_experiment_tag(_experiment(store, version.name).experiment_id, _CURRENT, version.run)


def describe(store: Store, name: str, description: str) -> None:
    """Say what a dataset is."""
    store.client.set_experiment_tag(_experiment(store, name).experiment_id, _DESCRIPTION, description)


def rename(store: Store, name: str, new: str) -> None:
    """Give a dataset another name; the old one goes on standing for it.

    Raises:
        UserError: the new name is taken.
    """
    taken = find(store, check_name(new))
    if taken and taken.name != name:
        raise UserError(f"'{new}' is taken" + (f" by '{taken.name}'" if taken.name != new else ""), "name", "choose another")
    experiment = _experiment(store, name)
    former = [each for each in (*_former(experiment), name) if each != new]
    store.client.set_experiment_tag(experiment.experiment_id, _FORMER, json.dumps(former, ensure_ascii=False))
    store.client.rename_experiment(experiment.experiment_id, PREFIX + new)


def list_again(store: Store, name: str, listed: bool) -> None:
    """Take a dataset off the list, or put it back; nothing of it is deleted."""
    store.client.set_experiment_tag(_experiment(store, name).experiment_id, _LISTED, str(listed).lower())


def snapshot(store: Store, version: Version) -> Path:
    """The file of a version: where the record keeps it, or a download of it. It is not to be written.

    Raises:
        UserError: the record has lost it.
    """
    run = store.client.get_run(version.run)
    name = f"data/{check_part(PurePosixPath(run.data.tags['dataset.file']).name, version.name)}"
    place = local_path(run.info.artifact_uri)
    if place is not None and (place / name).is_file():
        return Path(place / name)
    kept = cache_folder() / "versions" / version.run
    if not (kept / name).is_file():
        try:
            with whole_folder(kept) as draft:
                got = Path(store.client.download_artifacts(version.run, name, str(draft)))
                (draft / name).parent.mkdir(parents=True, exist_ok=True)
                got.rename(draft / name)  # behind HTTP the folder that it lies in is left out
        except UserError:
            if not (kept / name).is_file():  # else another process was faster
                raise
        except Exception as error:
            what = f"the file of {version.name}@{version.label} is gone from the record"
            raise UserError(what, remedy="take another") from error
    return Path(kept / name)


def users(store: Store, version: Version) -> list[str]:
    """Names of the runs that trained on a version's content, newest first."""
    experiments = [each.experiment_id for each in store.client.search_experiments()]
    query = f"tags.`data.train.digest.raw` = '{version.raw}'"
    return [str(run.info.run_name) for run in store.client.search_runs(experiments, query, max_results=50)]


def champions_on(store: Store, dataset: Registered) -> list[str]:
    """Registered models whose champion was trained on a version of a dataset."""
    contents = {version.raw for version in dataset.versions}
    found = []
    for model in ledger.registered(store):
        if "champion" not in model.aliases:
            continue
        run = store.client.get_model_version_by_alias(model.name, "champion").run_id
        if run and store.client.get_run(run).data.tags.get("data.train.digest.raw") in contents:
            found.append(f"models:/{model.name}@champion")
    return sorted(found)


def _registered(store: Store, experiment: Any) -> Registered:
    name = experiment.name.removeprefix(PREFIX)
    tags = experiment.tags
    versions = tuple(_versions(store, experiment.experiment_id, name, tags.get(_CURRENT, "")))
    listed = tags.get(_LISTED, "true") == "true"
    return Registered(name, tuple(_former(experiment)), listed, tags.get(_DESCRIPTION, ""), versions)


def _versions(store: Store, experiment: str, name: str, current: str) -> list[Version]:
    runs = _runs(store, experiment, "attributes.status = 'FINISHED'")
    return [_version(run, current, name) for run in sorted(runs, key=lambda each: each.info.start_time)]


def _runs(store: Store, experiment: str, query: str) -> list[Any]:
    found: list[Any] = []
    token = None
    while True:
        page = store.client.search_runs([experiment], query, max_results=1000, page_token=token)
        found += page
        token = page.token
        if not token:
            return [run for run in found if "dataset.label" in run.data.tags]


def _version(run: Any, current: str, name: str = "") -> Version:
    tags = run.data.tags
    return Version(
        run.info.run_id,
        name or tags["dataset.name"],
        tags["dataset.label"],
        tags.get("dataset.description", ""),
        tags["dataset.kind"],
        int(tags["dataset.rows"]),
        int(tags["dataset.bytes"]),
        tags["digest.raw"],
        tags["digest.canonical"],
        tags.get("digest.source", ""),
        int(run.info.start_time),
        tuple(json.loads(tags.get("dataset.parents", "[]"))),
        run.info.run_id == current,
        tags.get("dataset.ability", ""),
        tuple(filter(None, tags.get("dataset.method", "").split(","))),
    )


def _log_parents(store: Store, run: str, parents: Sequence[str]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    from mlops_llm import digest

    inputs = [
        DatasetInput(
            Dataset(parent.rpartition("@")[0] or parent, digest.text(parent)[:32], "local", json.dumps({"uri": parent})),
            [InputTag("mlflow.data.context", "parent"), InputTag("version", parent.rpartition("@")[2])],
        )
        for parent in parents
    ]
    if inputs:
        store.client.log_inputs(run, datasets=inputs)


def _experiment(store: Store, name: str) -> Any:
    return store.client.get_experiment_by_name(PREFIX + name)


def _former(experiment: Any) -> list[str]:
    return list(json.loads(experiment.tags.get(_FORMER, "[]")))


def _refuse_taken(name: str, label: str, taken: Sequence[Version]) -> None:
    if taken:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(taken[0].created / 1000))
        raise UserError(f"'{name}' has a version '{label}' since {when}", "op.label", "choose another label")
