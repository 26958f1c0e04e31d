"""Names and paths from outside lead nowhere but where they belong."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_llm import digest
from mlops_llm.data.__main__ import STAGE as DATA
from mlops_llm.entry import launch
from mlops_llm.errors import UserError
from mlops_llm.eval.__main__ import STAGE as EVAL
from mlops_llm.files import check_part, leads_out
from mlops_llm.models import load, tiny
from mlops_llm.models.load import ModelLoad
from mlops_llm.models.ref import resolve
from mlops_llm.pipeline.__main__ import STAGE as PIPELINE
from mlops_llm.registry.__main__ import STAGE as REGISTRY
from mlops_llm.registry.deploying import placing
from mlops_llm.surgery import companions
from mlops_llm.surgery.__main__ import STAGE as SURGERY
from mlops_llm.tracking import bringing, datasets, forgetting
from mlops_llm.tracking.checkpoints import CheckpointRow
from mlops_llm.train.__main__ import STAGE as TRAIN
from tests.security import hostile

AWAY = ("../x", "../../x", "/nowhere/x", "a/../../x", "..", ".", "a\\..\\x", "x" * 201, "价" * 67, "a\nb", "a\x00b", "\u202ex")


@pytest.mark.parametrize("name", AWAY)
def test_a_name_is_one_part_of_a_path(name: str) -> None:
    with pytest.raises(UserError, match="which is no name of one folder"):
        check_part(name, "run_name")


@given(st.text(max_size=300))
def test_what_passes_stays_where_it_is_put(name: str) -> None:
    try:
        check_part(name, "run_name")
    except UserError:
        return
    assert (Path("/a/b") / name).parent == Path("/a/b") and os.path.normpath(f"/a/b/{name}") == f"/a/b/{name}"


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of work, around which nothing may appear."""
    folder = tmp_path / "around" / "work"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLOPS_LLM_CACHE", str(folder / "cache"))
    (folder / "jobs.yaml").write_text("jobs:\n  ../../x: {op: merge_linear, models: [tiny, tiny]}\n")
    (folder / "conf/experiment").mkdir(parents=True)
    (folder / "conf/experiment/flow.yaml").write_text('stages:\n  ../../x: {command: "data op=stats dataset=sales_sft"}\n')
    return folder


SALES = ["+experiment=sft_sales", "trainer.max_steps=1"]
REFUSED: list[tuple[Any, list[str], str]] = [
    (TRAIN, [*SALES, "run_name=../../x"], "run_name: is '../../x', which is no name of one folder"),
    (TRAIN, [*SALES, "run_name=/nowhere/x"], "run_name: is '/nowhere/x'"),
    (TRAIN, ["-m", *SALES, "seed=1,2", "run_name=../../x"], "run_name: is '../../x'"),
    (TRAIN, [*SALES, "project=../../x"], "project: is '..'"),
    (TRAIN, [*SALES, "project=/nowhere/x"], "project: is ''"),
    (TRAIN, [*SALES, "register_as=../../x"], "register_as: is '../../x', which names no registered model"),
    (TRAIN, ["resume=../../x"], "no run is called '../../x'"),
    (TRAIN, ["+experiment=../../../../x"], "unknown experiment"),
    (TRAIN, ["dataset=sales_sft@../../x"], "no dataset 'sales_sft' is registered"),
    (DATA, ["op=add", "dataset=sales_sft", "name=../../x"], "name: '../../x' cannot be a dataset's name"),
    (DATA, ["op=version", "dataset=sales_sft", "op.label=../../x"], ""),
    (DATA, ["op=validate", "dataset=sales_sft", "run_name=../../x"], "run_name: is '../../x'"),
    (DATA, ["op=use", "dataset=../../x@v1"], ""),
    (DATA, ["op=stats", "dataset=hf:../../x"], "is no hub data set"),
    (EVAL, ["model=tiny", "dataset=sales_eval", "run_name=../../x"], "run_name: is '../../x'"),
    (EVAL, ["op=human_import", "op.files=[../../x.xlsx]"], ""),
    (SURGERY, ["op=merge_linear", "models=[tiny,tiny]", "name=../../x", "output=o"], "names no registered model"),
    (SURGERY, ["op=merge_linear", "models=[tiny,tiny]", "run_name=../../x", "output=o"], "run_name: is '../../x'"),
    (SURGERY, ["op=batch", "op.file=jobs.yaml", "output=o"], "jobs.yaml:2: '../../x' is no name for a job"),
    (REGISTRY, ["op=promote", "name=../../x", "model=tiny", "policy=gate"], "names no registered model"),
    (REGISTRY, ["op=deploy", "model=tiny", "output=o", "run_name=../../x"], "run_name: is '../../x'"),
    (PIPELINE, ["+experiment=flow"], "stages: is '../../x'"),
    (PIPELINE, ["+experiment=rlhf_short", "run_name=../../x"], "run_name: is '../../x'"),
]  # fmt: skip


@pytest.mark.parametrize(("stage", "words", "said"), REFUSED, ids=[" ".join(words) for _, words, _ in REFUSED])
def test_names_that_lead_away_are_refused(
    inside: Path, capfd: pytest.CaptureFixture[str], stage: Any, words: list[str], said: str
) -> None:
    around = sorted(inside.parent.rglob("*"))
    assert launch(stage, words) == 2
    err = capfd.readouterr().err
    assert said in err and "Traceback" not in err and err.count("error: ") == 1
    new = {each for each in set(inside.parent.rglob("*")) - set(around) if "cache" not in each.parts}
    assert all(each.name.startswith("mlflow.db") for each in new), new
    assert not Path("/nowhere/x").exists()


def test_the_files_of_a_version_lie_in_its_run(inside: Path) -> None:
    """A colleague's tag that names a file elsewhere on this machine."""
    (inside / "artifacts/data").mkdir(parents=True)
    (inside / "artifacts/data/passwd").write_text("{}")
    (inside / "passwd").write_text("secret")
    version = SimpleNamespace(run="r", name="v", label="v1")

    def asked(tag: str) -> Path:
        info = SimpleNamespace(artifact_uri=str(inside / "artifacts"))
        run = SimpleNamespace(info=info, data=SimpleNamespace(tags={"dataset.file": tag}))
        store = SimpleNamespace(client=SimpleNamespace(get_run=lambda _: run))
        return datasets.snapshot(store, version)  # type: ignore[arg-type]

    for tag in ("data/passwd", "../passwd", "/etc/passwd", "../../../../etc/passwd"):
        assert asked(tag) == inside / "artifacts/data/passwd"
    for tag in ("..", "data/..", ""):
        with pytest.raises(UserError, match="no name of one folder"):
            asked(tag)


def test_what_is_deleted_is_what_the_record_says(tmp_path: Path) -> None:
    """A colleague's checkpoint that claims to lie in a folder of this user's."""
    weights = "a" * 64
    (tmp_path / "Documents").mkdir()
    (tmp_path / "Documents" / "thesis.tex").write_text("")
    (tmp_path / "checkpoint-3").mkdir()

    def row(folder: Path) -> CheckpointRow:
        tags = {"checkpoint.uri": folder.as_uri(), "digest.weights": weights}
        return CheckpointRow("m-1", folder.name, 3, "READY", "mlflow-artifacts:/x", "r", tags, {})

    assert forgetting.folders(row(tmp_path / "Documents")) == ()
    assert forgetting.folders(row(tmp_path / "checkpoint-3")) == ()
    for name, told in ((".complete.json", {"tags": {"digest.weights": weights}}), ("recipe.json", {"digest.weights": weights})):
        (tmp_path / "checkpoint-3" / name).write_text(json.dumps(told))
        assert forgetting.folders(row(tmp_path / "checkpoint-3")) == (tmp_path / "checkpoint-3",)
        (tmp_path / "checkpoint-3" / name).write_text(json.dumps({"tags": [], "digest.weights": "b" * 64}))
        assert forgetting.folders(row(tmp_path / "checkpoint-3")) == ()
        (tmp_path / "checkpoint-3" / name).write_text(json.dumps({"tags": {"digest.weights": None}, "digest.weights": None}))
        unnamed = dataclasses.replace(
            row(tmp_path / "checkpoint-3"), tags={"checkpoint.uri": (tmp_path / "checkpoint-3").as_uri()}
        )
        assert forgetting.folders(unnamed) == ()
        (tmp_path / "checkpoint-3" / name).unlink()


def test_a_folder_without_a_mark_is_deleted_for_its_weights_alone(tmp_path: Path) -> None:
    """A colleague's checkpoint that claims the name and the place of a model of this user's, which nobody marked."""
    mine = hostile.folder(tmp_path / "Qwen")

    def found(weights: str) -> tuple[Path, ...]:
        tags = {"checkpoint.uri": mine.as_uri(), "digest.weights": weights}
        return forgetting.folders(CheckpointRow("m-1", "Qwen", 3, "READY", "mlflow-artifacts:/x", "", tags, {}))

    known = digest.weights(mine)
    assert found("c" * 64) == found("") == () and found(known) == (mine,)
    for content in (b"x", b"", b"\x02\0\0\0\0\0\0\0[]", b'\x07\0\0\0\0\0\0\0{"a":3}'):
        (mine / "model.safetensors").write_bytes(content)
        assert found(known) == ()


def test_a_place_that_an_archive_names_counts_only_with_the_weights_that_it_names(tmp_path: Path) -> None:
    mine = hostile.folder(tmp_path / "Qwen")

    def told(**tags: str) -> dict[str, str]:
        given = {"checkpoint.storage": "reference", "checkpoint.host": "h", "note": "n", **tags}
        return bringing._lying(SimpleNamespace(tags=given))  # type: ignore[arg-type]

    named = {"checkpoint.uri": mine.as_uri()}
    for foreign in (
        named,
        {},
        {"checkpoint.uri": "file://["},
        named | {"digest.weights": "c" * 64},
        {"digest.weights": "c" * 64},
    ):
        assert told(**foreign) == {}
    kept = told(**named, **{"digest.weights": digest.weights(mine)})
    assert kept == named | {"checkpoint.storage": "reference", "checkpoint.host": "h"}


def inspected(folder: Path) -> load.Files:
    return load.inspect(resolve(str(folder)), ModelLoad())


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "a/../../b", ""])
def test_an_index_names_files_of_its_own_folder(tmp_path: Path, name: str) -> None:
    folder = hostile.folder(tmp_path / "model")
    shutil.copyfile(folder / "model.safetensors", tmp_path / "secret.safetensors")
    index = {"weight_map": {"model.norm.weight": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="which is no name of one folder"):
        inspected(folder)
    for broken in ({"weight_map": 3}, {"weight_map": {"a": 3}}, {}):
        (folder / "model.safetensors.index.json").write_text(json.dumps(broken))
        with pytest.raises(UserError, match="names no files of weights"):
            inspected(folder)


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "chat_template.jinja", "generation_config.json", "tokenizer_secret"]
)
def test_links_carry_nothing_out(tmp_path: Path, name: str) -> None:
    """A model folder from somebody else, unpacked from an archive with a link to a file of yours: it must not be handed on."""
    folder = hostile.folder(tmp_path / "model")
    secret = tmp_path / "id_rsa"
    secret.write_bytes((folder / name).read_bytes() if (folder / name).exists() else b"secret")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(secret)
    with pytest.raises(UserError, match="is a link to"):
        placing.check(inspected(folder))
    (tmp_path / "new").mkdir()
    with pytest.raises(UserError, match="is a link to"):
        companions.copy(inspected(folder), tmp_path / "new")


@pytest.mark.parametrize("to", ["secret", "around"])
def test_nor_do_links_in_a_folder_of_theirs(tmp_path: Path, to: str) -> None:
    """A link out of a folder of the tokenizer's, and one within to a folder that holds such a link."""
    folder = hostile.folder(tmp_path / "model")
    (tmp_path / "secret").write_text("secret")
    (folder / "tokenizer_x").mkdir()
    (folder / "other").mkdir()
    (folder / "other/link").symlink_to(tmp_path / "secret")
    (folder / "tokenizer_x/link").symlink_to(tmp_path / "secret" if to == "secret" else folder / "other")
    (tmp_path / "new").mkdir()
    with pytest.raises(UserError, match="is a link to"):
        companions.copy(inspected(folder), tmp_path / "new")
    assert not any("secret" in each.read_text("utf-8", "replace") for each in (tmp_path / "new").rglob("*") if each.is_file())


def test_links_of_the_hubs_cache_are_followed(tmp_path: Path) -> None:
    blobs, folder = tmp_path / "models--a--b/blobs", tmp_path / "models--a--b/snapshots/abc"
    blobs.mkdir(parents=True)
    folder.mkdir(parents=True)
    for number, each in enumerate(sorted(tiny.folder().iterdir())):
        shutil.copyfile(each, blobs / str(number))
        (folder / each.name).symlink_to(f"../../blobs/{number}")
        assert not leads_out(folder / each.name, folder)
    placing.check(inspected(folder))
    (tmp_path / "new").mkdir()
    placing.place(inspected(folder), ModelLoad(), tmp_path / "new" / "model")
    assert not any(each.is_symlink() for each in (tmp_path / "new").rglob("*"))


def test_archives_are_not_unpacked(inside: Path, jsonl: Callable[..., Path]) -> None:
    """Zip and tar are read nowhere but in registry/moving (see test_moving): what would unpack them is not there."""
    import mlops_llm

    root = Path(mlops_llm.__file__).parent
    unpacking = ("extractall(", "unpack_archive(", "tarfile.open(", ".extract(")
    found = [each for each in root.rglob("*.py") if any(one in each.read_text("utf-8") for one in unpacking)]
    assert {str(each.relative_to(root)) for each in found} == {"registry/moving/archive.py", "registry/moving/unpacking.py"}
