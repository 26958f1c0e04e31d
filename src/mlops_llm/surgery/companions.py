"""What lies beside the weights of a model: config, tokenizer, chat template, generation settings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlops_llm.errors import UserError
from mlops_llm.files import leads_out, read_object
from mlops_llm.models.load import Dtype, Files, with_tokenizer

_TOKENIZER = (
    "tokenizer*",
    "vocab.*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "*.tiktoken",
    "*.model",
)
_CODE = "*.py"


def copy(files: Files, folder: Path, *, tokenizer: str = "") -> None:
    """Copy a model's tokenizer, chat template and generation settings, and the code that it is loaded by.

    Args:
        files: of the model; of an adapter without a tokenizer, those of its base are taken.
        folder: where they go.
        tokenizer: content of another tokenizer.json.

    Raises:
        UserError: a file is a link that leads out of the model's folder.
    """
    place, whole = with_tokenizer(files).place.folder, files.whole.place.folder
    _check(whole / "config.json", whole)  # of which that of the new model is made
    for file in whole.glob(_CODE) if files.code else ():
        _take(file, whole, folder)
    for pattern in _TOKENIZER:
        for file in place.glob(pattern):
            _take(file, place, folder)
    settings = (each.place.folder / "generation_config.json" for each in _down(files))
    if own := next((each for each in settings if each.is_file()), None):
        _take(own, own.parent, folder)
    if tokenizer:
        (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")


def _take(file: Path, place: Path, folder: Path) -> None:
    """Copy a file, or a folder of files, of a model's folder; nothing from anywhere else.

    Raises:
        UserError: a link leads out.
    """
    for each in (file, *(file.rglob("*") if file.is_dir() else ())):
        _check(each, place)
    if file.is_dir():
        shutil.copytree(file, folder / file.name)
    else:
        shutil.copyfile(file, folder / file.name)


def _check(file: Path, place: Path) -> None:
    """See that a file is no link that leads out, and no link to a folder, in which others may lie.

    Raises:
        UserError: it is.
    """
    if leads_out(file, place) or (file.is_symlink() and file.is_dir()):
        what = f"is a link to {file.resolve()}, and what lies there would become part of the new model"
        raise UserError(what, str(file), "put the file itself there")


def template(files: Files) -> str:
    """A model's chat template, read without its tokenizer; empty where it has none."""
    place = with_tokenizer(files).place.folder
    file = place / "chat_template.jinja"
    if file.is_file():
        return file.read_text("utf-8")
    config = place / "tokenizer_config.json"
    return str(read_object(config).get("chat_template") or "") if config.is_file() else ""


def _down(files: Files) -> list[Files]:
    return [files, *(_down(files.base) if files.base else [])]


def configure(config: Mapping[str, Any], folder: Path, dtype: Dtype, **changed: Any) -> None:
    """Write config.json, as the last file: a folder without it is no model.

    Args:
        config: of the model that the new one is like.
        folder: where it goes.
        dtype: number format of the weights.
        changed: settings that are otherwise.
    """
    told = {name: value for name, value in config.items() if name not in ("torch_dtype", "_name_or_path")}
    told |= {"dtype": dtype.name, **changed}
    (folder / "config.json").write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
