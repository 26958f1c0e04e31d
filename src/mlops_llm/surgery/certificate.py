"""What was checked when weights changed their form: `certificate.json` beside them, and a tag in the record."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlops_llm import console, digest
from mlops_llm.errors import UserError
from mlops_llm.files import intended
from mlops_llm.models import digested, load, template
from mlops_llm.models.ref import Place
from mlops_llm.models.tensors import Tensors
from mlops_llm.record import Grid
from mlops_llm.surgery import behaviour, memory
from mlops_llm.surgery.behaviour import NOT_ASKED
from mlops_llm.surgery.planning import Check, Planned
from mlops_llm.surgery.weights import EMBEDDING, HEAD, finite

NAME = "certificate.json"
PASSED, FAILED, UNMEASURED = "passed", "failed", "not measured"


@dataclass(frozen=True)
class Certificate:
    """What was found of a result."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing that was demanded fails, and the outputs were looked at."""
        return not self.failures and not self._unasked

    @property
    def verdict(self) -> str:
        """`passed`, `failed` or `not measured`, as the record has it; only what passed is promotable."""
        return FAILED if self.failures else UNMEASURED if self._unasked else PASSED

    @property
    def failures(self) -> list[Check]:
        """What failed."""
        return [each for each in self.checks if each.passed is False]

    @property
    def _unasked(self) -> list[Check]:
        """What says that outputs were not looked at."""
        return [each for each in self.checks if each.name == NOT_ASKED]

    @property
    def said(self) -> str:
        """The verdict for the end of a command, with what failed and what could not be looked at."""
        if self.failures:
            return f"{FAILED} ({'; '.join(f'{each.name}: {each.said}' for each in self.failures)}): not promotable"
        if self._unasked:
            return f"{UNMEASURED} (its outputs are {'; '.join(each.said for each in self._unasked)}): not promotable"
        return PASSED

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
        rows = [
            ("not asked" if each.name == NOT_ASKED and each.passed is None else marks[each.passed], _words(each), each.said)
            for each in self.checks
        ]
        return Grid(f"certificate: {self.verdict}", ("", "check", "found"), rows)


def _words(check: Check) -> str:
    return "outputs" if check.name == NOT_ASKED else check.name.replace("_", " ")


def certify(planned: Planned, folder: Path, written: str) -> Certificate:
    """Check a finished folder.

    Args:
        planned: what it was to become.
        folder: where it is.
        written: digest of the weights as they were written.
    """
    found = [*_weights(folder, written)]
    broken = any(each.passed is False for each in found)
    if planned.checks.numbers is not None:
        try:
            found += planned.checks.numbers(folder)
        except UserError as error:
            found.append(Check("numbers", error.what, False, str(error)))
    if not broken:
        found += _beside(planned, folder)
    free = memory.free()
    if planned.opened > free:
        found.append(behaviour.unasked(planned, free))
        console.warn(f"the outputs are {found[-1].said}")
        return Certificate(tuple(found))
    if planned.checks.more is not None:
        found += planned.checks.more(folder)
    if not broken:
        found += behaviour.asked(planned, folder)
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
        own, of_first = load.tokenizer(Place(str(intended(folder)), folder)), load.tokenizer_of(first.files)
    except UserError as error:
        yield Check("vocabulary", error.what, False, str(error))
        return
    ids, wanted = own.get_vocab(), of_first.get_vocab()
    lost = next((token for token, place in wanted.items() if ids.get(token) != place), None)
    said = f"{len(ids):,} tokens" + ("" if len(ids) == len(wanted) else f", {len(ids) - len(wanted)} more than {first.ref}")
    yield Check("vocabulary", len(ids), lost is None, said if lost is None else f"'{lost}' is not what it is in {first.ref}")
    now, then = template.template_digest(own), template.template_digest(of_first)
    yield Check("template", now, now == then, f"that of {first.ref}" if now == then else f"is not that of {first.ref}")


def weights_of(folder: Path) -> str:
    """Digest of the weights in a finished folder; of a GGUF file, that of its bytes.

    Raises:
        UserError: a file is cut off.
    """
    gguf = sorted(folder.glob("*.gguf"))
    if gguf and not any(folder.glob("*.safetensors")):
        return digest.raw(gguf[0])
    try:
        return digested.digest_now(folder)
    except ValueError as error:
        raise UserError(str(error), str(folder)) from error
