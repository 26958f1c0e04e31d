"""What reads bytes from outside, one function each: bytes in, and nothing but values or a UserError may come out.

hypothesis calls them in the ordinary suite, atheris for as long as one likes (`make fuzz`), and both read the corpus in fuzz/.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from mlops_llm.errors import UserError
from mlops_llm.files import read_object

TARGETS: dict[str, Callable[[bytes], None]] = {}
LONGEST = 1 << 16
"""Bytes of an input: what is slow with more is measured elsewhere."""


def target(work: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Make a function of bytes one of the targets."""
    TARGETS[work.__name__] = work
    return work


@cache
def folder() -> Path:
    """An empty folder of this process; targets may write what they are given there, and nothing else."""
    made = Path(tempfile.mkdtemp(prefix="mlops_llm-fuzz-")).resolve()
    os.environ.update({"HF_HUB_OFFLINE": "1", "MLOPS_LLM_CACHE": str(made / ".cache")})
    return made


@contextlib.contextmanager
def written(name: str, content: bytes, *, beside: bool = False) -> Iterator[Path]:
    """A file with a content, the only one of the folder but for others `beside` it; nothing more may lie there afterwards."""
    file = folder() / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    before = _there()
    assert beside or before == {name}
    try:
        yield file
        assert _there() == before, f"wrote {_there() ^ before}"
    finally:
        for each in folder().iterdir():
            shutil.rmtree(each) if each.is_dir() else each.unlink()


def _there() -> set[str]:
    return {each.relative_to(folder()).as_posix() for each in folder().rglob("*") if each.is_file()}


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Refusals are answers, as long as they are one line with something in it."""
    try:
        yield
    except UserError as error:
        said = str(error)
        assert said.strip() and "\n" not in said and said.isprintable(), repr(said)


def text(content: bytes) -> str:
    """Bytes as a text, whatever they are; half of a pair comes along."""
    return content.decode("utf-8", "surrogateescape")


ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet", ".arrow", ".jsonl.gz", ".json.zst", ".csv.gz", ".parquet.zst")


@target
def rows(content: bytes) -> None:
    """A file of rows of each format; the first byte chooses which."""
    from mlops_llm.data.formats import records
    from mlops_llm.data.kinds import Kind
    from mlops_llm.data.structure import Checker

    ending = ENDINGS[content[0] % len(ENDINGS)] if content else ".jsonl"
    with written(f"rows{ending}", content[1:]) as file, user_errors():
        checkers = [Checker(kind, None) for kind in Kind]
        for number, record in enumerate(records(file)):
            assert (record.row is None) != (not record.problem) or record.row is not None
            for checker in checkers if record.row is not None and number < 5 else ():
                checker.problems(record.row)


@target
def model_refs(content: bytes) -> None:
    """A ref of a model, as a person types it."""
    from mlops_llm.models.ref import resolve, unpinned

    with contextlib.chdir(folder()), user_errors():
        ref = text(content)
        assert unpinned(unpinned(ref)) == unpinned(ref) or ref.count("@") > 1
        # Those ask the record; the last is a model that is made of its package when it is asked for first.
        if not ref.startswith(("models:/", "runs:/", "smollm2")):
            resolve(ref)


@target
def dataset_refs(content: bytes) -> None:
    """A ref of a dataset, as a person types it."""
    from mlops_llm.data import hub
    from mlops_llm.data.ref import locate

    ref = text(content)
    with contextlib.chdir(folder()), user_errors():
        found = locate(ref)
        assert found.name
    if hub.is_ref(ref):
        assert "/" not in hub.name(ref) or not hub._REF.fullmatch(ref)


@target
def overrides(content: bytes) -> None:
    """A command line; words are parted by NUL."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    from mlops_llm.entry.arguments import quote, read, split

    words = content.decode("utf-8", "replace").split("\0")
    with user_errors():
        found = read(words)
        for each in found.overrides:
            with contextlib.suppress(HydraException):  # of a key that is none
                OverridesParser.create().parse_override(each)
                assert quote(each, found.multirun) == each, each
    for each in words:
        assert ",".join(split(each)) == each


@target
def judge_answers(content: bytes) -> None:
    """What a judge writes."""
    from mlops_llm.eval.reading import UnreadableError, choice, ratings, read

    said = text(content)
    names = {"accuracy": ["准确性"], "fluency": ["流畅度"]}
    for meaning in (ratings(names), choice(["winner", "胜者"], {"A": ["a"], "B": ["b"], "tie": ["平"]})):
        with contextlib.suppress(UnreadableError):
            found = read(said, meaning)
            if isinstance(found.value, dict):
                assert found.value.keys() == names.keys() and all(1 <= each <= 5 for each in found.value.values())
            else:
                assert found.value in ("A", "B", "tie")


@target
def manifests(content: bytes) -> None:
    """A deployment's manifest."""
    from mlops_llm.registry.deploying import manifest

    with written(manifest.NAME, content) as file, user_errors():
        manifest.verify(file.parent)


@target
def certificates(content: bytes) -> None:
    """Certificate, recipe, or what an adapter says of its base: JSON objects beside weights."""
    from mlops_llm.models import adapter

    with written(adapter.ORIGIN, content) as file, user_errors():
        told = read_object(file)
        assert isinstance(told, dict)
        adapter.beneath(file.parent)
        if not str(told.get("base") or told.get("base.folder")).startswith(("models:/", "runs:/")):  # those ask the record
            adapter.base_of(file.parent, {})


@target
def recipes(content: bytes) -> None:
    """recipe.json beside weights: of what they were made."""
    from mlops_llm.eval import explain
    from mlops_llm.tracking import origin

    with contextlib.suppress(ValueError, RecursionError):
        told = __import__("json").loads(content)
        weights = told.get("digest.weights") if isinstance(told, dict) else None
        with written(origin.RECIPE, content) as file, user_errors():
            found = origin.recipe(None, "", file.parent, str(weights))
            made = explain.Made("m", origin.Origin(), {}, {"weights": "a"}, found)
            explain.made_of(made, made)


LINES = ("runs", "checkpoints", "models", "datasets")


@target
def archives(content: bytes) -> None:
    """An archive of runs: the first byte chooses between a tar and lines of one kind in an archive that is sound otherwise."""
    import json

    from mlops_llm import digest
    from mlops_llm.registry.moving.archive import opened, seal
    from mlops_llm.registry.moving.contents import MANIFEST, Contents

    kind = content[0] % (1 + len(LINES)) if content else 0
    if not kind:
        with written("runs.tar", content[1:]) as file, user_errors(), opened(file, file.parent):
            pass
        return
    seal(folder() / "archive", Contents((), (), (), (), {}), "somebody")
    file = folder() / "archive" / f"{LINES[kind - 1]}.jsonl"
    file.write_bytes(content[1:])
    told = read_object(file.parent / MANIFEST)
    told["files"][file.name] = {"sha256": digest.raw(file), "bytes": len(content) - 1}
    manifest = json.dumps(told).encode()
    with written(f"archive/{MANIFEST}", manifest, beside=True), user_errors(), opened(file.parent, folder()) as (_, contents):
        assert contents


@target
def model_folders(content: bytes) -> None:
    """config.json of a model; its weights are sound."""
    from mlops_llm.models import code, load, packed, tiny
    from mlops_llm.models.load import ModelLoad
    from mlops_llm.models.ref import Place

    (folder() / "model.safetensors").symlink_to(tiny.folder() / "model.safetensors")
    with written("config.json", content, beside=True) as file, user_errors():
        files = load._inspect(Place("m", file.parent), ModelLoad(), ())
        assert not files.code and (files.window is None or files.window)
        code.of_model(file.parent)
    with contextlib.suppress(ValueError, RecursionError), user_errors():
        told = __import__("json").loads(content)
        if isinstance(told, dict):
            code.needs(told)
            packed.form(told)


@target
def weights(content: bytes) -> None:
    """A safetensors file."""
    from mlops_llm.models import tensors

    with written("model.safetensors", content) as file, user_errors(), tensors.Tensors(file.parent) as opened:
        for name in opened.names[:20]:
            if opened.shape(name).dtype in tensors.DTYPES:
                assert tuple(opened.read(name).shape) == opened.shape(name).shape


@target
def workbooks(content: bytes) -> None:
    """A rater's file: the first byte chooses between a workbook and CSV."""
    from mlops_llm.eval.people.returned import read

    ending = ".csv" if content[:1] and content[0] % 2 else ".xlsx"
    with written(f"rater{ending}", content[1:]) as file, user_errors():
        found = read(file, 200)
        for number, row in found.rows[:20]:
            found.where(number)
            found.value(row, "prompt")


@target
def batch_files(content: bytes) -> None:
    """Jobs of surgery."""
    from mlops_llm.surgery.batch.file import read

    with written("jobs.yaml", content) as file, user_errors():
        for job in read(file):
            assert job.name


@target
def conditions(content: bytes) -> None:
    """When a stage of a pipeline is left out."""
    from mlops_llm.pipeline.condition import read

    with user_errors():
        found = read(text(content), "stages.a.when")
        found.holds(lambda name, what: 1.0)


@target
def requests(content: bytes) -> None:
    """What a client of a served model sends."""
    import json

    from mlops_llm.inference import protocol

    with contextlib.suppress(ValueError, RecursionError):
        told = json.loads(content)
        for form in (protocol.AskedChat, protocol.AskedText):
            with contextlib.suppress(protocol.BadRequestError):
                asked: Any = protocol.read(form, told)
                if form is protocol.AskedChat:
                    protocol.texts(asked.messages)
                else:
                    assert asked.prompts
