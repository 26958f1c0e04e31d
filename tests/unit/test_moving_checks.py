"""What an archive says is checked before anything of it is used; whoever made it may have sealed what he likes."""

from __future__ import annotations

import json
import math
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlops_llm import digest
from mlops_llm.errors import UserError
from mlops_llm.registry.moving.archive import opened, seal
from mlops_llm.registry.moving.contents import MANIFEST, Contents
from mlops_llm.tracking import checkpoints
from mlops_llm.tracking.portable import PortableCheckpoint, PortableModel, PortableRun
from tests.security import hostile

RUN, MODEL = "a" * 32, "m-" + "b" * 32


def sealed(
    folder: Path,
    run: Mapping[str, Any] | None = None,
    checkpoint: Mapping[str, Any] | None = None,
    models: Sequence[PortableModel] = (),
    weights: Mapping[str, str] | None = None,
) -> Path:
    """An archive of one run with a checkpoint, in a folder that may hold files already; what is given is said otherwise."""
    folder.mkdir(exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    of_run: dict[str, Any] = {"id": RUN, "origin": RUN, "name": "r", "experiment": "sales", "status": "FINISHED", "start": 1}
    of_run |= {"end": 2, "params": {}, "tags": {}, "metrics": [], "inputs": [], "uses": [], "makes": [[MODEL, 1]]}
    made: dict[str, Any] = {"id": MODEL, "origin": MODEL, "name": "checkpoint-1", "kind": "checkpoint", "status": "READY"}
    made |= {"run": RUN, "experiment": "sales", "params": {"step": "1"}, "tags": {}, "metrics": []}
    told = PortableRun(**of_run | dict(run or {})), PortableCheckpoint(**made | dict(checkpoint or {}))
    seal(folder, Contents(told[:1], told[1:], tuple(models), (), weights or {}), "somebody")
    return folder


def read(archive: Path) -> Contents:
    with opened(archive, archive.parent) as (_, contents):
        return contents


HUGE = 10**400
LATER = 1 << 63
MOVE = {"number": 1, "kind": "promote", "version": 1, "before": None, "previous": None}
MOVE |= {"run": "r", "run_id": RUN, "by": "somebody", "time": "2026-01-01T00:00:00+00:00", "reason": ""}
INPUT = dict.fromkeys(("name", "digest", "source_type", "source", "schema", "profile"), "x") | {"tags": {}}


def model(**told: Any) -> list[PortableModel]:
    """A registered model without versions."""
    return [PortableModel(told.pop("name", "bot"), "", told.pop("tags", {}), told.pop("aliases", {}), ())]


def moves(told: Any) -> dict[str, Any]:
    """A registered model with one move in its history."""
    return {"models": model(tags={"registry.history.1": told if isinstance(told, str) else json.dumps(told)})}


def test_what_can_be_is_read(tmp_path: Path) -> None:
    run = {"metrics": [["a", math.nan, 1, -1], ["a", 1, 0, 0]], "inputs": [INPUT | {"schema": None}], "end": None}
    found = read(sealed(tmp_path / "archive", run=run, checkpoint={"params": {"step": "-3"}}, **moves(MOVE)))
    assert found.models[0].tags and len(found.runs[0].metrics) == 2
    assert read(sealed(tmp_path / "archive", checkpoint={"params": {}})).checkpoints


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"run": {"start": 10**30}}, "runs.jsonl, line 1"),
        ({"run": {"start": True}}, "runs.jsonl, line 1"),
        ({"run": {"metrics": [["b", HUGE, 1, 1]]}}, "runs.jsonl, line 1"),
        ({"run": {"metrics": [["b", True, 1, 1]]}}, "the rows of run"),
        ({"run": {"metrics": [["b", 1.0, -1, 1]]}}, "the rows of run"),
        ({"run": {"metrics": [["b?", 1.0, 1, 1]]}}, "Invalid value"),
        ({"run": {"params": {"../x": "1"}}}, "Invalid value"),
        ({"run": {"params": {"k" * 300: "1"}}}, "exceeds"),
        ({"run": {"tags": {"a//b": "1"}}}, "Invalid value"),
        ({"run": {"makes": [[MODEL, LATER]]}}, "runs.jsonl, line 1"),
        ({"run": {"inputs": [INPUT | {"name": 3}]}}, "the rows of run"),
        ({"run": {"inputs": [INPUT | {"tags": {"a": 3}}]}}, "the rows of run"),
        ({"run": {"inputs": [INPUT | {"digest": "d" * 40}]}}, "exceeds"),
        ({"checkpoint": {"params": {"step": "x"}}}, "the step of checkpoint"),
        ({"checkpoint": {"params": {"step": "9" * 19}}}, "the step of checkpoint"),
        ({"checkpoint": {"metrics": [["a", 1.0, 1, LATER, RUN, None, None]]}}, "checkpoints.jsonl, line 1"),
        ({"checkpoint": {"name": "a/b"}}, "Invalid model name"),
        (moves("3"), "is no move of the champion"),
        (moves("{"), "is no move of the champion"),
        (moves("[" * 10**5), "is no move of the champion"),
        (moves(MOVE | {"version": "1"}), "is no move of the champion"),
        (moves(MOVE | {"number": True}), "is no move of the champion"),
        (moves({"version": 1}), "is no move of the champion"),
        ({"models": model(aliases={"v1": 1})}, "reserved"),
        ({"models": model(aliases={"a b": 1})}, "Invalid"),
        ({"weights": {MODEL: "c" * 64}}, "are not those of the manifest"),
        ({"weights": {"m-x": "c" * 64}}, "are not those of the manifest"),
    ],
)  # fmt: skip
def test_what_the_record_could_not_hold_is_refused_before_it_is_used(tmp_path: Path, told: Any, said: str) -> None:
    with pytest.raises(UserError, match="is not as op=export_runs wrote it") as found:
        read(sealed(tmp_path / "archive", **told))
    assert said in str(found.value) and "\n" not in str(found.value)


@pytest.mark.parametrize("line", [b"\xff", b'{"name": "\\ud800", "tags": {}}', b"[" * 10**5, b"1" * 5000, b'{"name": "x"}'])
def test_a_line_of_anything_else_is_refused(tmp_path: Path, line: bytes) -> None:
    archive = sealed(tmp_path / "archive")
    (archive / "datasets.jsonl").write_bytes(line)
    told = json.loads((archive / MANIFEST).read_text())
    told["files"]["datasets.jsonl"] = {"sha256": digest.raw(archive / "datasets.jsonl"), "bytes": len(line)}
    (archive / MANIFEST).write_text(json.dumps(told))
    with pytest.raises(UserError, match=r"datasets.jsonl, line 1 is none of ours"):
        read(archive)


def test_weights_are_those_that_the_tag_names(tmp_path: Path) -> None:
    """Scores and policies look a model up by this tag."""
    known = digest.weights(hostile.folder(tmp_path / "archive/files" / MODEL))
    tags = {"digest.weights": known}
    assert read(sealed(tmp_path / "archive", checkpoint={"tags": tags}, weights={MODEL: known})).weights
    for told, weights in (({"digest.weights": "c" * 64}, {MODEL: known}), (tags, {}), ({}, {}), (tags, {MODEL: "c" * 64})):
        with pytest.raises(UserError, match="are not those"):
            read(sealed(tmp_path / "archive", checkpoint={"tags": told}, weights=weights))
    (tmp_path / "archive/files" / MODEL / "model.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match="are not those"):
        read(sealed(tmp_path / "archive", checkpoint={"tags": tags}, weights={MODEL: known}))


@pytest.mark.parametrize("name", [f"{MODEL}/a/b", "m-x/a", "a"])
def test_files_belong_to_a_checkpoint(tmp_path: Path, name: str) -> None:
    file = tmp_path / "archive/files" / name
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    with pytest.raises(UserError, match="is no file of a checkpoint"):
        read(sealed(tmp_path / "archive"))


def header(name: bytes, size: int, kind: bytes = b"0") -> bytes:
    """A member's head with any size at all, in the form of GNU's large numbers."""
    block = bytearray(tarfile.TarInfo(name.decode()).tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"\x80" + size.to_bytes(11, "big") if size >= 0 else (2**96 + size).to_bytes(12, "big")
    block[156:157] = kind
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize("size", [1 << 40, 1 << 80, -512, -1024])
@pytest.mark.parametrize(("name", "kind"), [(b"././@LongLink", b"L"), (b"pax", b"x"), (b"a", b"0")])
def test_a_tar_whose_sizes_are_untrue_is_one_line(tmp_path: Path, name: bytes, kind: bytes, size: int) -> None:
    (tmp_path / "bad.tar").write_bytes(header(name, size, kind) + b"\0" * 1024)
    with pytest.raises(UserError, match=r"is no tar|is larger than the archive|no ordinary file|leads outside|no manifest"):
        read(tmp_path / "bad.tar")


def test_names_that_no_disk_takes_are_one_line(tmp_path: Path) -> None:
    for name in ("a" * 300, "/".join(["a" * 200] * 20), "/".join(["a"] * 200)):
        with tarfile.open(tmp_path / "bad.tar", "w") as tar:
            tar.addfile(tarfile.TarInfo(name))
        with pytest.raises(UserError, match="leads outside, or is none"):
            read(tmp_path / "bad.tar")


def test_a_step_that_is_none_hides_no_other_checkpoint() -> None:
    """Of a record to which somebody else wrote."""
    for name, params in (("checkpoint-1", {"step": "x"}), ("²", {}), ("9" * 5000, {}), ("a", {})):
        told = {"model_id": MODEL, "status": "READY", "artifact_location": "", "source_run_id": "", "tags": {}, "metrics": []}
        assert checkpoints.row_of(SimpleNamespace(name=name, params=params, **told)).step == 0


def test_what_runs_code_of_its_own_says_so(tmp_path: Path) -> None:
    """Else a policy would let it pass."""
    own = hostile.with_code(tmp_path / "archive/files" / MODEL, tmp_path / "marker")
    known = digest.weights(own)
    told = {"digest.weights": known}
    with pytest.raises(UserError, match=r"runs Python code of its own and does not say so \(digest.code\)"):
        read(sealed(tmp_path / "archive", checkpoint={"tags": told}, weights={MODEL: known}))
    said = sealed(tmp_path / "archive", checkpoint={"tags": told | {"digest.code": "d" * 64}}, weights={MODEL: known})
    assert read(said).checkpoints[0].tags["digest.code"]
    assert not (tmp_path / "marker").exists()
