"""A model's files in a folder of their own: what a server needs and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mlops_llm.errors import UserError
from mlops_llm.files import leads_out, link_file, read_object
from mlops_llm.models import code, load, packed
from mlops_llm.models.load import Dtype, Files, ModelLoad
from mlops_llm.models.tensors import Tensors

_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_TOKENIZER = ("tokenizer*", "vocab.*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "chat_template*",
              "*.tiktoken", "*.model")  # fmt: skip
_SETTINGS = ("config.json", "generation_config.json")
_WHERE = ("_name_or_path", "name_or_path")
"""Settings that say where a model once lay on somebody's machine."""


def check(files: Files) -> None:
    """See that a model can be handed on.

    Raises:
        UserError: its weights are pickled, it runs code, or it is an adapter on weights that it cannot be merged into.
    """
    code.refuse(files.code, files.place.ref)
    out = next((each for each in sources(files) if not is_weights(each) and leads_out(each, each.parent)), None)
    if out is not None:
        what = f"is a link to {out.resolve()}, and what lies there would be handed on"
        raise UserError(what, str(out), "put the file itself there")
    if files.is_adapter:
        packed.refuse(files)
    elif not any(files.place.folder.glob("*.safetensors")) and not packed.gguf_file(files.place.folder):
        remedy = "save it as safetensors first (save_pretrained)"
        raise UserError("holds pickled weights, which can run code where they are loaded", files.place.ref, remedy)


def sources(files: Files) -> Iterator[Path]:
    """The files of a whole model that are handed on; of an adapter those beside the weights that it is merged into."""
    tokenizer = load.with_tokenizer(files).place.folder
    yield from _found(tokenizer, _TOKENIZER)
    if files.is_adapter:
        return
    yield from _found(files.place.folder, (*_WEIGHTS, *_SETTINGS))
    if one := packed.gguf_file(files.place.folder):
        yield one


def place(files: Files, how: ModelLoad, folder: Path) -> None:
    """Put the files of a whole model into a folder; an adapter becomes part of its base on the way.

    Weights are hard-linked where the file system allows it, so they may not be edited in place; small files, which people do
    edit, are copied.

    Raises:
        UserError: an adapter does not fit its base, or a number is not finite.
    """
    folder.mkdir()
    if files.is_adapter:
        _merge(files, how, folder)
    for source in sources(files):
        _put(source, folder / source.name)


def stored(files: Files) -> Dtype:
    """The number format that most of a whole model's weights are stored in; of packed ones that of what is not packed."""
    names = {"F32": Dtype.float32, "BF16": Dtype.bfloat16, "F16": Dtype.float16}
    under = files.whole.place.folder
    kinds = Tensors(under).kinds if any(under.glob("*.safetensors")) else {}
    known = {names[kind]: count for kind, count in kinds.items() if kind in names}
    told = str(files.config.get("dtype") or files.config.get("torch_dtype") or "float32")
    if packed.form(files.config) or not known:
        return Dtype[told] if told in Dtype.__members__ else Dtype.float32
    return max(known, key=lambda kind: known[kind])


def arithmetic(files: Files, how: ModelLoad) -> Dtype:
    """The number format that a server counts with: what was asked for, else that of the weights.

    Integers packed in words are multiplied in sixteen bits alone.
    """
    wanted = stored(files) if how.dtype is Dtype.auto else how.dtype
    in_words = packed.form(files.config) in (packed.COMPRESSED, packed.GPTQ)
    return Dtype.bfloat16 if in_words and wanted is Dtype.float32 else wanted


def _merge(files: Files, how: ModelLoad, folder: Path) -> None:
    """Write the weights of an adapter on its base, added up in float32 and stored in the format of the base."""
    import torch

    exact = replace(how, dtype=Dtype.float32)
    model = load.model(files, exact, merge=True).to(getattr(torch, arithmetic(files, how).name))
    model.save_pretrained(folder)


def _found(folder: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    for pattern in patterns:
        yield from sorted(each for each in folder.glob(pattern) if each.is_file())


def _put(source: Path, target: Path) -> None:
    """Link weights and copy other files; one that says where the model once lay is written without that."""
    if is_weights(source):
        link_file(source, target)
        return
    if source.suffix == ".json" and not source.name.endswith("index.json") and source.name != "tokenizer.json":
        told = read_object(source)
        if any(name in told for name in _WHERE):
            kept = {name: value for name, value in told.items() if name not in _WHERE}
            target.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            return
    shutil.copyfile(source, target)


def is_weights(file: Path) -> bool:
    """Whether a file holds tensors."""
    return file.suffix in (".safetensors", ".gguf")
