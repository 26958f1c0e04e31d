"""The Modelfile of a deployment: which form of the model Ollama reads, with which template, and what it cannot do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlops_llm.registry.deploying import ollama as language
from mlops_llm.registry.deploying import turns

NAME = "Modelfile"


@dataclass(frozen=True)
class Ollama:
    """A model for Ollama."""

    text: str
    """The Modelfile; empty where Ollama cannot read this form of the model."""
    remarks: tuple[str, ...]
    """What a person must know."""


def ollama(tokenizer: Any, source: str, form: str, ends: Sequence[str], context: int | None, name: str) -> Ollama:
    """The Modelfile of a model.

    Args:
        tokenizer: with a chat template.
        source: the folder or the GGUF, seen from the Modelfile.
        form: how the weights are packed; empty of plain ones and of GGUF.
        ends: tokens that end an answer.
        context: tokens of a prompt and its answer; None leaves Ollama its own choice.
        name: what the model is called.
    """
    if form:
        what = (
            f"Ollama does not read weights packed by {form}: export a GGUF of the model before it was packed, and give op.gguf"
        )
        return Ollama("", (what,))
    remarks = []
    if not source.endswith(".gguf"):
        remarks.append(
            "Ollama imports safetensors of some families only, and its newer releases run them where MLX runs; "
            "a GGUF (op.gguf) runs everywhere"
        )
    written, of_template = _template(tokenizer)
    remarks += of_template
    shown = [f"ollama create {name} -f {NAME}", *remarks]
    return Ollama(language.modelfile(source, written, shown, ends, context), tuple(remarks))


def _template(tokenizer: Any) -> tuple[str | None, list[str]]:
    """The chat template in Ollama's language, if it can be told there, and what a person must know of it."""
    try:
        found = turns.read(tokenizer)
    except turns.NotTurnsError as error:
        return None, [f"the model's chat template cannot be told in Ollama's language ({error}): Ollama takes its own choice"]
    remarks = [f"the template leaves out {each}" for each in found.left_out]
    mark = tokenizer.bos_token or ""
    adds = bool(mark) and tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
    begins = {gap.startswith(mark) for (before, _), gap in found.gaps.items() if before == turns.START} if mark else set()
    if adds and begins == {True}:
        remarks.append(f"Ollama puts {mark} before a text by itself")
    elif adds:
        remarks.append(f"Ollama puts {mark} before a text by itself, where the model's own template puts none")
    return language.go(found, mark if adds and begins == {True} else ""), remarks
