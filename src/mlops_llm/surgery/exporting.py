"""A GGUF file as a new checkpoint: the plan, and what llama.cpp must say of it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from mlops_llm.component import name_of
from mlops_llm.errors import need
from mlops_llm.models import load
from mlops_llm.models.load import Dtype
from mlops_llm.surgery import companions, llamacpp
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.gguf import FILE, Layout, Type, again, layout, write
from mlops_llm.surgery.merging import next_steps
from mlops_llm.surgery.planning import BESIDE, Check, Checks, Planned, Source


class Limits(NamedTuple):
    """How far a GGUF may be from the model that it was made of."""

    kl: float
    """Nats a token on the fixed prompts, as transformers reads the file."""
    agreement: float
    """Share of tokens that both choose, of those and of llama.cpp's answers."""
    likelihood: float
    """Nats by which llama.cpp's log-probability of a token may differ; its cache is in float16."""


LIMITS = {
    Type.f32: Limits(1e-6, 0.999, 0.05),
    Type.f16: Limits(1e-3, 0.98, 0.05),
    Type.q8_0: Limits(0.05, 0.9, 0.5),
}


def planned(request: Surgery, parent: Source, type: Type, *, under: Source | None = None) -> Planned:
    """The plan of an export; an adapter is merged into its base on the way.

    Args:
        request: the command.
        parent: the model.
        type: number format of the matrices.
        under: of an adapter what it lies on, which the result must not be.

    Raises:
        UserError: the model cannot be written as GGUF, or llama.cpp is not installed.
    """
    need("xllamacpp", "surgery")
    found = layout(parent.files, request.model_load, type)
    limits = LIMITS[type]
    words = found.vocabulary
    facts = {
        "architecture in llama.cpp": found.architecture,
        "tokenizer": f"{len(words.tokens):,} tokens, {words.model}, split as {words.pre}",
        "chat template": "written" if words.template else "none",
    }
    if found.fallen:
        facts["stays in float16"] = f"{found.fallen} matrices, whose rows do not divide into blocks of 32"
    largest = max(each.bytes for each in found.weights.shapes.values())
    return Planned(
        request,
        name_of(request.op),
        f"GGUF ({type.name})",
        (parent, *([under] if under else [])),
        found.bytes + BESIDE,
        4 * largest,
        partial(_fill, found, parent),
        Checks(parent, limits.kl, limits.agreement, under, partial(_again, found), _Asked(parent, request, limits)),
        name="gguf",
        facts=facts,
        warnings=_warnings(parent),
        next=[
            f"llama-server -m {{output}}/{FILE}",
            next_steps(request, [])[0],
        ],
    )


def _again(plan: Layout, folder: Path) -> list[Check]:
    return again(plan, folder / FILE)


def _warnings(parent: Source) -> list[str]:
    window, most = (parent.files.config.get(name) for name in ("sliding_window", "max_position_embeddings"))
    if parent.files.config.get("model_type") == "mistral" and window and most and window < most:
        return [f"it attends to the last {window} tokens, llama.cpp to all: longer texts are answered otherwise there"]
    return []


def _fill(plan: Layout, parent: Source, folder: Path) -> None:
    try:
        write(plan, folder / FILE)
    finally:
        plan.weights.close()
    companions.copy(parent.files, folder)
    companions.configure(plan.weights.config, folder, Dtype.float32 if plan.type is Type.f32 else Dtype.float16)


@dataclass(frozen=True)
class _Asked:
    """What llama.cpp says of a finished folder."""

    source: Source
    request: Surgery
    limits: Limits

    def __call__(self, folder: Path) -> list[Check]:
        files = self.source.files
        model = load.model(files, self.request.model_load, merge=True).eval()
        try:
            found = llamacpp.compared(folder / FILE, model, load.tokenizer_of(files))
        finally:
            del model
            gc.collect()
        return [*self._words(found), *self._answers(found)]

    def _words(self, found: llamacpp.Alike) -> Iterator[Check]:
        count = len(llamacpp.TEXTS)
        said = f"{count} texts" if not found.texts else f"{len(found.texts)} of {count} texts become other tokens"
        yield Check("llamacpp_tokens", len(found.texts), not found.texts, said)
        if found.rendered is not None:
            said = "conversations are written alike" if found.rendered else "the chat template writes conversations otherwise"
            yield Check("llamacpp_template", found.rendered, found.rendered, said)

    def _answers(self, found: llamacpp.Alike) -> Iterator[Check]:
        share = found.same / found.tokens if found.tokens else 0.0
        said = f"{found.same} of {found.tokens} tokens of greedy answers are the same (at least {self.limits.agreement:.1%})"
        yield Check("llamacpp_agreement", share, share >= self.limits.agreement, said)
        said = f"log-probabilities differ by {found.furthest:.3g} nats at most (limit {self.limits.likelihood:g})"
        yield Check("llamacpp_logprob", found.furthest, found.furthest <= self.limits.likelihood, said)
