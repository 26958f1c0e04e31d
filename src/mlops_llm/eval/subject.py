"""The model whose answers are scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_llm import console, digest
from mlops_llm.files import read_object
from mlops_llm.inference.engine import Session
from mlops_llm.models import digested, load, template
from mlops_llm.models.load import Files, ModelLoad
from mlops_llm.models.ref import Place, resolve
from mlops_llm.record import Checkpoint

_PASSING = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "base_model_name_or_path", "peft_version")


@dataclass(frozen=True)
class Subject:
    """A model's files, its tokenizer, and what identifies it."""

    files: Files
    tokenizer: Any
    """With the chat template that questions are put in."""
    template_source: str
    """`own`, `chatml` or `plain`: where the template came from."""
    digest: str
    """Of all that its answers depend on: its weights (and its bases' where it is an adapter), its config, its end marks and its
    tokenizer. Whatever it is called, this is the model."""
    warnings: tuple[str, ...] = ()
    session: Callable[[], Session] | None = None
    """Opens a model that is in memory, such as two that were merged there; `files` then only say what it is like. None where an
    engine opens the files."""

    @property
    def place(self) -> Place:
        """Where it is."""
        return self.files.place

    @property
    def vocabulary(self) -> str:
        """Digest of its tokenizer: likelihoods of tokens compare where it is the same."""
        return digest.text(self.tokenizer.backend_tokenizer.to_str())

    @property
    def form(self) -> str:
        """Digest of what its answers depend on besides its weights."""
        return digest.row(_form(self.files, self.tokenizer))

    @property
    def bytes(self) -> int:
        """Of its weights on disk; those that an adapter lies on are beside it."""
        return _bytes(self.files)

    @property
    def window(self) -> int | None:
        """Tokens that it takes in, where its config says."""
        return self.files.window

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The model as the record names it; None of one that is only in memory."""
        if self.session is not None:
            return None
        return digested.as_recorded(self.place, digest_template=template.template_digest(self.tokenizer))


def subject(ref: str, how: ModelLoad) -> Subject:
    """Find a model, check its files and load its tokenizer.

    Raises:
        UserError: there is none, its files are broken, or no chat template can be used.
    """
    files = load.inspect(resolve(ref), how)
    tokenizer = load.tokenizer_of(files)
    source = template.ensure(tokenizer, ref)
    warnings = [] if source == "own" else [f"it has no chat template of its own: questions are put as {source} writes them"]
    trained, now = files.place.tags.get("digest.template"), template.template_digest(tokenizer)
    if trained and trained != now:
        warnings.append(
            f"its chat template ({now[:12]}…) is not the one that it was trained with ({trained[:12]}…): "
            "answers may be worse than the model is"
        )
    for each in warnings:
        console.warn(f"{ref}: {each}")
    return Subject(files, tokenizer, source, _digest(files, tokenizer), tuple(warnings))


def _bytes(files: Files) -> int:
    if files.base is None:
        return files.bytes
    return sum(each.stat().st_size for each in files.place.folder.glob("adapter_model.*")) + _bytes(files.base)


def _digest(files: Files, tokenizer: Any) -> str:
    return digest.row({"weights": _weights(files), **_form(files, tokenizer)})


def _form(files: Files, tokenizer: Any) -> dict[str, Any]:
    return {
        "config": _settled(files.config),
        "adapter": _settled(files.adapter_config),
        "generation": _settled(_read(files.place.folder / "generation_config.json")),
        "tokenizer": tokenizer.backend_tokenizer.to_str(),
        "ends": [tokenizer.eos_token_id, tokenizer.pad_token_id],
    }


def _weights(files: Files) -> str:
    own = digested.weights_digest(files.place)
    return own if files.base is None else f"{own} on {_weights(files.base)}"


def _read(file: Path) -> dict[str, Any]:
    return read_object(file) if file.is_file() else {}


def _settled(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without what a copy of the same model, saved elsewhere or by another release, says otherwise."""
    return {name: value for name, value in config.items() if name not in _PASSING}
