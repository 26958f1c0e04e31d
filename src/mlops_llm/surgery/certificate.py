"""What was checked when weights changed their form: `certificate.json` beside them, and a tag in the record."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from mlops_llm import console, digest
from mlops_llm.errors import UserError
from mlops_llm.models import load, template
from mlops_llm.models.load import Task
from mlops_llm.models.ref import Place
from mlops_llm.models.tensors import Tensors
from mlops_llm.record import Grid
from mlops_llm.surgery.outputs import Distance, distance, outputs, prompts
from mlops_llm.surgery.planning import Check, Planned, Source
from mlops_llm.surgery.weights import EMBEDDING, HEAD

if TYPE_CHECKING:
    from torch import Tensor

NAME = "certificate.json"
PASSED, FAILED = "passed", "failed"
_UNCHANGED = 0.5
"""Share of the way from the base to the wanted outputs that a result must have gone at least."""
_NOTHING = 1e-7
"""Nats a token that are rounding."""


@dataclass(frozen=True)
class Certificate:
    """What was found of a result."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing that was demanded fails."""
        return all(each.passed is not False for each in self.checks)

    @property
    def verdict(self) -> str:
        """`passed` or `failed`, as the record has it; what failed is not promotable."""
        return PASSED if self.passed else FAILED

    @property
    def failures(self) -> list[Check]:
        """What failed."""
        return [each for each in self.checks if each.passed is False]

    @property
    def text(self) -> str:
        """As JSON."""
        rows = [
            {"name": each.name, "value": each.value, "passed": each.passed, "said": each.said, "of": each.of}
            for each in self.checks
        ]
        return json.dumps({"verdict": self.verdict, "checks": rows}, indent=2, ensure_ascii=False) + "\n"

    @property
    def grid(self) -> Grid:
        """For a person."""
        marks = {True: "ok", False: "FAILED", None: "measured"}
        rows = [(marks[each.passed], each.name.replace("_", " "), each.said) for each in self.checks]
        return Grid(f"certificate: {self.verdict}", ("", "check", "found"), rows)


def certify(planned: Planned, folder: Path, written: str) -> Certificate:
    """Check a finished folder.

    Args:
        planned: what it was to become.
        folder: where it is.
        written: digest of the weights as they were written.
    """
    found = [*_weights(folder, written)]
    broken = any(each.passed is False for each in found)
    if planned.checks.more is not None:
        found += planned.checks.more(folder)
    if not broken:
        found += _beside(planned, folder)
        found += _behaviour(planned, folder)
    return Certificate(tuple(found))


def _weights(folder: Path, written: str) -> Iterator[Check]:
    """Whole, as they were written, finite, tied or not as the config says."""
    try:
        now = weights_of(folder)
    except UserError as error:
        yield Check("weights", error.what, False, f"cannot be read: {error.what}")
        return
    same = now == written
    yield Check("weights", now, same, f"digest {now[:12]}…" + ("" if same else f" is not what was written ({written[:12]}…)"))
    with Tensors(folder) as tensors:
        if not tensors.names:
            return
        size = sum(each.bytes for each in tensors.shapes.values())
        yield Check("size", size, None, f"{size:,} bytes in {len(tensors.names)} tensors")
        bad = next((name for name in tensors.names if not finite(tensors.read(name))), None)
        yield Check("finite", bad or "all", bad is None, f"{bad} holds NaN or infinity" if bad else "no NaN, no infinity")
        yield from _tied(folder, tensors)


def finite(tensor: Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity."""
    import torch

    if not tensor.is_floating_point() or not tensor.numel():
        return True
    if tensor.dtype.itemsize == 1:
        tensor = tensor.float()
    low, high = torch.aminmax(tensor)
    return bool(torch.isfinite(low) and torch.isfinite(high))


def _tied(folder: Path, tensors: Tensors) -> Iterator[Check]:
    import torch

    file = folder / "config.json"
    if not file.is_file():
        return
    config = json.loads(file.read_text("utf-8"))
    embeddings = next((name for name in tensors.names if EMBEDDING.search(name)), None)
    if embeddings is None or not any("ForCausalLM" in str(name) for name in config.get("architectures") or ()):
        return
    if not config.get("tie_word_embeddings", False):
        has = HEAD in tensors
        yield Check("tied_weights", "no", has, "the output head is its own" if has else "the output head is missing")
        return
    equal = HEAD not in tensors or torch.equal(tensors.read(HEAD), tensors.read(embeddings))
    yield Check(
        "tied_weights", "yes", equal, "the output head is the embeddings" + ("" if equal else ", and differs from them")
    )


def _beside(planned: Planned, folder: Path) -> Iterator[Check]:
    """Vocabulary and chat template."""
    if not load.has_tokenizer(folder):
        return
    first = planned.sources[0]
    try:
        own, of_first = load.tokenizer(Place(str(folder), folder)), load.tokenizer_of(first.files)
    except UserError as error:
        yield Check("vocabulary", error.what, False, str(error))
        return
    ids, wanted = own.get_vocab(), of_first.get_vocab()
    lost = next((token for token, place in wanted.items() if ids.get(token) != place), None)
    said = f"{len(ids):,} tokens" + ("" if len(ids) == len(wanted) else f", {len(ids) - len(wanted)} more than {first.ref}")
    yield Check("vocabulary", len(ids), lost is None, said if lost is None else f"'{lost}' is not what it is in {first.ref}")
    now, then = template.template_digest(own), template.template_digest(of_first)
    yield Check("template", now, now == then, f"that of {first.ref}" if now == then else f"is not that of {first.ref}")


def _behaviour(planned: Planned, folder: Path) -> Iterator[Check]:
    """Fixed prompts through the sources and the result."""
    checks = planned.checks
    needed, free = planned.opened, psutil.virtual_memory().available
    if needed > free:
        said = f"not asked: {console.size(needed)} of memory are needed and {console.size(free)} are free"
        yield Check("outputs", said, False if checks.like and checks.most_kl is not None else None, said)
        return
    asked = prompts(folder, planned.sources[0].files)
    try:
        given = (checks.outputs or _opened(planned))(folder, asked)
    except UserError as error:
        yield Check("loads", error.what, False, str(error))
        return
    infinite = sum(not finite(each) for each in given)
    yield Check("outputs_finite", infinite, not infinite, "all logits are finite" if not infinite else "NaN in the logits")
    if infinite:
        return
    away: dict[str, Distance] = {}
    wanted: Sequence[Any] = ()
    about = {id(each): each for each in (checks.like, *planned.sources, checks.changed_from) if each}
    for number, source in enumerate(about.values(), 1):
        of_source = _of(source, planned, asked)
        if source is checks.like:
            wanted = of_source
        found = distance(of_source, given) if of_source else None
        if found is None:
            yield Check("outputs", source.ref, None, f"against {source.ref}: not compared, its vocabulary is another")
            continue
        away[source.ref] = found
        yield from _compared(number, source, found, planned)
        if source is checks.changed_from and wanted and source is not checks.like:
            whole = distance(of_source, wanted)
            if whole is not None and whole.kl > _NOTHING:
                moved = found.kl >= _UNCHANGED * whole.kl
                said = f"{found.kl:.3g} nats a token away from {source.ref}, {whole.kl:.3g} wanted"
                yield Check("changed", found.kl, moved, said if moved else f"is {source.ref}: {said}")


def _compared(number: int, source: Source, found: Distance, planned: Planned) -> Iterator[Check]:
    checks = planned.checks
    limited = source is checks.like
    if planned.task is Task.reward:
        yield Check("scores", found.most, None, f"against {source.ref}: scores differ by {found.most:.3g} at most", number)
        return
    most, least = (checks.most_kl, checks.least_agreement) if limited else (None, None)
    limit = f" (at most {most:g})" if most is not None else ""
    within = found.kl <= most if most is not None else None
    yield Check("logit_kl", found.kl, within, f"against {source.ref}: {found.kl:.3g} nats a token{limit}", number)
    limit = f" (at least {least:.1%})" if least is not None else ""
    enough = found.agreement >= least if least is not None else None
    said = f"against {source.ref}: {found.agreement:.1%} of {found.tokens} tokens{limit}"
    yield Check("greedy_agreement", found.agreement, enough, said, number)


def _opened(planned: Planned) -> Any:
    def ask(folder: Path, asked: Sequence[Sequence[int]]) -> Sequence[Any]:
        how = planned.request.model_load
        files = load.inspect(Place(str(folder), folder), how, planned.task)
        return outputs(files, how, asked, planned.task)

    return ask


def _of(source: Source, planned: Planned, asked: Sequence[Sequence[int]]) -> Sequence[Any]:
    """A source's outputs; none where its tokens are others."""
    rows = source.files.config.get("vocab_size")
    if rows is not None and any(token >= rows for ids in asked for token in ids):
        return ()
    if prompts(source.files.place.folder, source.files) != asked:
        return ()
    return outputs(source.files, planned.request.model_load, asked, planned.task)


def weights_of(folder: Path) -> str:
    """Digest of the weights in a finished folder; of a GGUF file, that of its bytes.

    Raises:
        UserError: a file is cut off.
    """
    gguf = sorted(folder.glob("*.gguf"))
    if gguf and not any(folder.glob("*.safetensors")):
        return digest.raw(gguf[0])
    try:
        return load.digest_now(folder)
    except ValueError as error:
        raise UserError(str(error), str(folder)) from error
