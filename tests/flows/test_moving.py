"""Runs between two records: what went in comes out, once, whole, and nothing that an archive says is believed."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from mlops_llm import digest
from mlops_llm.entry import launch
from mlops_llm.registry.__main__ import STAGE
from mlops_llm.tracking.store import connect_to
from tests.commands import start
from tests.flows.conftest import copy
from tests.record import artifacts_of, checkpoints_of, client, run_of


@pytest.fixture
def registry(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """A function that runs a registry command in a folder; it returns exit code and output, or the error line."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def run(folder: Path, *words: str) -> tuple[int, str]:
        monkeypatch.chdir(folder)
        capfd.readouterr()
        code = launch(STAGE, list(words))
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        errors = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(errors) <= 1
        return code, errors[0] if errors else out + err

    return run


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record without runs: to make one takes a second."""
    file = tmp_path_factory.mktemp("empty") / "mlflow.db"
    connect_to(f"sqlite:///{file}")
    return file


@pytest.fixture(autouse=True)
def _record(empty: Path, tmp_path: Path) -> None:
    copy(empty, tmp_path / "mlflow.db")


@pytest.fixture(scope="module")
def archive(beside: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training `first`, exported as a tar."""
    out = tmp_path_factory.mktemp("archive") / "first.tar"
    process = start(beside, "op=export_runs", "op.runs=[first]", f"op.file={out}", stage="registry")
    said, err = process.communicate(timeout=200)
    assert process.returncode == 0, said + err
    return out


def seen(store: Any, name: str) -> dict[str, Any]:
    """What a record says of a run, without ids and places."""
    made = run_of(store, name)
    models = checkpoints_of(store, made)
    ids = {made.info.run_id: "RUN", **{each.model_id: f"MODEL {key}" for key, each in models.items()}}

    def plain(text: str) -> str:
        for known, said in ids.items():
            text = text.replace(known, said)
        return text

    own = ("imported.", "mlflow.modelVersions", "checkpoint.storage", "checkpoint.uri", "checkpoint.host", "mlflow.runName")
    return {
        "info": (made.info.status, made.info.start_time, made.info.end_time),
        "params": dict(made.data.params),
        "tags": {key: plain(value) for key, value in made.data.tags.items() if not key.startswith(own)},
        "metrics": {
            key: sorted((each.step, each.timestamp, each.value) for each in store.get_metric_history(made.info.run_id, key))
            for key in made.data.metrics
        },
        "inputs": sorted(
            (
                each.dataset.name,
                each.dataset.digest,
                each.dataset.source,
                each.dataset.profile,
                tuple(sorted((tag.key, tag.value) for tag in each.tags)),
            )
            for each in made.inputs.dataset_inputs
        ),
        "outputs": sorted((ids[each.model_id], each.step) for each in made.outputs.model_outputs),
        "artifacts": artifacts_of(store, made),
        "checkpoints": {
            name: (
                str(each.status),
                dict(each.params),
                {key: plain(value) for key, value in each.tags.items() if not key.startswith(own)},
                sorted((m.key, m.value, m.step, m.timestamp, m.dataset_name or "", ids[m.run_id]) for m in each.metrics or []),
            )
            for name, each in models.items()
        },
    }


def test_a_run_comes_out_as_it_went_in_and_only_once(beside, archive, tmp_path, registry):
    from mlflow.artifacts import download_artifacts

    code, said = registry(tmp_path, "op=import_runs", f"op.file={archive}")
    assert code == 0, said
    old, new = client(beside), client(tmp_path)
    assert seen(new, "first") == seen(old, "first")
    made, before = run_of(new, "first"), run_of(old, "first")
    assert made.data.tags["imported.run"] == before.info.run_id != made.info.run_id
    assert "imported.unfinished" not in made.data.tags
    for name, each in checkpoints_of(new, made).items():
        assert each.tags["imported.checkpoint"] == checkpoints_of(old, before)[name].model_id
        files = Path(download_artifacts(f"models:/{each.model_id}", tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}"))
        assert digest.weights(files) == each.tags["digest.weights"]
    for name in artifacts_of(new, made):
        one, other = (Path(store.download_artifacts(run.info.run_id, name)) for store, run in ((old, before), (new, made)))
        assert digest.raw(one) == digest.raw(other)
    assert new.get_model_version_by_alias("sales", "challenger").run_id == made.info.run_id
    again = {run.info.run_id for run in new.search_runs([made.info.experiment_id])}
    code, said = registry(tmp_path, "op=import_runs", f"op.file={archive}")
    assert code == 0 and "0 new" in said, said
    assert {run.info.run_id for run in new.search_runs([made.info.experiment_id])} == again
    assert seen(new, "first") == seen(old, "first")
    assert len(new.search_model_versions("name = 'sales'")) == 1
    # Back where it came from it is known.
    back = tmp_path / "back"
    back.mkdir()
    copy(beside / "mlflow.db", back / "mlflow.db")
    code, said = registry(tmp_path, "op=export_runs", "op.of=sales", f"op.file={tmp_path / 'again'}")
    assert code == 0, said
    code, said = registry(back, "op=import_runs", f"op.file={tmp_path / 'again'}")
    assert code == 0 and "0 new" in said, said
    assert run_of(client(back), "first").info.run_id == before.info.run_id


def test_what_was_imported_can_be_asked_for(beside, archive, tmp_path, registry):
    registry(tmp_path, "op=import_runs", f"op.file={archive}")
    old = run_of(client(beside), "first").info.run_id
    (checkpoint, *_) = checkpoints_of(client(beside), run_of(client(beside), "first")).values()
    for model in ("runs:/first/best", f"runs:/{old}/best", "models:/sales@challenger", f"models:/{checkpoint.model_id}"):
        code, said = registry(tmp_path, "op=lineage", f"model={model}")
        assert code == 0, said
        assert "first" in said and "sales_sft" in said
    code, said = registry(tmp_path, "op=card", "model=runs:/first/best")
    assert code == 0, said
    assert (tmp_path / "outputs").is_dir() and not list((tmp_path / "outputs").glob(".import.*"))


def test_what_was_imported_is_reproduced_here(archive, tmp_path, registry):
    registry(tmp_path, "op=import_runs", f"op.file={archive}")
    code, said = registry(tmp_path, "op=reproduce", "run=first")
    assert code == 0, said
    assert "weights          the same" in said


def test_a_name_or_an_alias_that_is_taken_stays(beside, archive, tmp_path, registry):
    from mlflow.exceptions import MlflowException

    registry(tmp_path, "op=list")
    store = client(tmp_path)
    mine = store.create_run("0", run_name="first").info.run_id
    registry(tmp_path, "op=import_runs", f"op.file={archive}")
    assert run_of(store, "first").info.run_id == mine
    assert run_of(store, "first-2").data.tags["imported.name"] == "first"
    (theirs,) = store.search_model_versions("name = 'sales'")
    models = checkpoints_of(store, run_of(store, "first-2"))
    (other,) = [each.model_id for each in models.values() if each.model_id not in theirs.source]
    own = store.create_model_version("sales", f"models:/{other}").version
    store.set_registered_model_alias("sales", "challenger", own)
    code, said = registry(tmp_path, "op=import_runs", f"op.file={archive}")
    assert code == 0 and "sales@challenger" in said
    assert store.get_model_version_by_alias("sales", "challenger").version == own
    registry(tmp_path, "op=import_runs", f"op.file={archive}", "op.move_aliases=true")
    assert store.get_model_version_by_alias("sales", "challenger").version == theirs.version
    with pytest.raises(MlflowException):
        store.get_model_version("sales", "3")


@pytest.mark.parametrize(
    "point",
    [
        "mlops_llm.tracking.bringing._bring",
        "mlops_llm.tracking.entering._numbers",
        "mlops_llm.tracking.entering._close",
        "mlops_llm.tracking.bringing.finish_checkpoint",
        "mlops_llm.tracking.enrolling.register_model",
    ],
)
def test_an_import_that_is_cut_off_is_completed_by_the_next(beside, archive, tmp_path, registry, monkeypatch, point):
    class Killed(BaseException):
        pass

    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(point, killed)
        with pytest.raises(Killed):
            registry(tmp_path, "op=import_runs", f"op.file={archive}")
    code, said = registry(tmp_path, "op=import_runs", f"op.file={archive}")
    assert code == 0, said
    assert seen(client(tmp_path), "first") == seen(client(beside), "first")
    assert len(client(tmp_path).search_model_versions("name = 'sales'")) == 1


def members(archive: Path) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(archive) as tar:
        for each in tar:
            content = tar.extractfile(each)
            assert content is not None
            yield each, content.read()


def spoiled(archive: Path, out: Path, how: str) -> Path:
    """The archive as somebody would send it who means no good."""
    with tarfile.open(out, "w:gz" if how == "compressed" else "w") as tar:
        for each, content in members(archive):
            if each.name == "manifest.json" and how == "unlisted":
                told = json.loads(content)
                del told["files"]["runs.jsonl"]
                content = json.dumps(told).encode()
            if each.name == "runs.jsonl" and how in ("altered", "types"):
                content = content.replace(b'"FINISHED"', b'"FINISHEd"') if how == "altered" else b'{"id": 7}\n'
            each.size = len(content)
            if how != "missing" or not each.name.endswith(".safetensors"):
                tar.addfile(each, BytesIO(content))
        more = tarfile.TarInfo(
            {"outside": "../evil", "absolute": "/nowhere/evil", "twice": "runs.jsonl", "dot": "a/./b"}.get(how, "link")
        )
        if how in ("outside", "absolute", "twice", "dot"):
            tar.addfile(more, BytesIO(b""))
        if how in ("symlink", "hardlink", "device"):
            more.type = {"symlink": tarfile.SYMTYPE, "hardlink": tarfile.LNKTYPE, "device": tarfile.CHRTYPE}[how]
            more.linkname = "runs.jsonl"
            tar.addfile(more)
    if how == "torn":
        out.write_bytes(out.read_bytes()[:30_000])
    return out


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("outside", "leads outside"),
        ("absolute", "leads outside"),
        ("dot", "leads outside"),
        ("twice", "is in it twice"),
        ("symlink", "is a link"),
        ("hardlink", "is a link"),
        ("device", "no ordinary file"),
        ("compressed", "is no tar"),
        ("torn", "is larger than the archive"),
        ("altered", "was altered"),
        ("types", "was altered"),
        ("unlisted", "does not know 'runs.jsonl'"),
        ("missing", "is missing"),
    ],
)
def test_an_archive_that_is_not_as_it_was_written_is_refused(archive, tmp_path, registry, how, said):
    code, line = registry(tmp_path, "op=import_runs", f"op.file={spoiled(archive, tmp_path / 'bad.tar', how)}")
    assert code == 2
    assert said in line
    assert not client(tmp_path).search_runs(["0"]) and not list(Path("/tmp").glob("evil"))
    assert {each.name for each in client(tmp_path).search_experiments()} <= {"Default"}
    assert not list((tmp_path / "outputs").glob(".import.*"))


def test_a_folder_is_checked_as_a_tar_is(archive, tmp_path, registry):
    folder = tmp_path / "folder"
    with tarfile.open(archive) as tar:
        tar.extractall(folder)
    (folder / "more").symlink_to("/etc/passwd")
    code, line = registry(tmp_path, "op=import_runs", f"op.file={folder}")
    assert code == 2 and "is a link" in line
    (folder / "more").unlink()
    (weights, *_) = folder.glob("files/*/*.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    name = weights.relative_to(folder).as_posix()
    manifest["files"][name]["sha256"] = digest.raw(weights)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    code, line = registry(tmp_path, "op=import_runs", f"op.file={folder}")
    assert code == 2 and "are not those of the manifest" in line


def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(beside, tmp_path, registry):
    for words, said in (
        (["op.runs=[nobody]"], "no run is called 'nobody'"),
        ([], "name runs"),
        (["op.runs=[first]", "op.of=sales"], "name runs"),
        (["op.of=nothing"], "no run in the project"),
    ):
        code, line = registry(beside, "op=export_runs", f"op.file={tmp_path / 'out'}", *words)
        assert code == 2 and said in line
    code, line = registry(beside, "op=export_runs", "op.runs=[first]", f"op.file={tmp_path}")
    assert code == 2 and "exists already" in line
    assert [each.name for each in tmp_path.iterdir()] == ["mlflow.db"]
