"""A Hugging Face tokenizer as GGUF writes one: tokens with their types, merges, and the rule by which text is split."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlops_llm.errors import UserError

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""GGUF's kinds of tokens."""
_WORD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_HEAD = r"[^\r\n\p{L}\p{N}]?"
SPLITS = {
    rf"{_WORD}|\p{{N}}|{_REST}": "qwen2",
    rf"{_WORD}|\p{{N}}{{1,3}}|{_REST}": "llama-bpe",
    rf"{_HEAD}[{_UPPER}]*[{_LOWER}]+|{_HEAD}[{_UPPER}]+[{_LOWER}]*|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+": "tekken",
}
"""Pattern by which a byte-level tokenizer splits text -> llama.cpp's name of it."""


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF says of a tokenizer."""

    model: str
    """`gpt2` of byte-level BPE, `llama` of BPE over characters with `▁` for a space."""
    pre: str
    """llama.cpp's name of the rule by which text is split before merges; `default` of `llama`."""
    tokens: Sequence[str]
    types: Sequence[int]
    merges: Sequence[str]
    """Of `gpt2`: pairs in the order of their rank, each as `a b`."""
    scores: Sequence[float]
    """Of `llama`: the higher, the sooner a token is merged."""
    bos: int | None
    eos: int | None
    pad: int | None
    unknown: int | None
    adds_bos: bool
    adds_eos: bool
    space_prefix: bool
    template: str | None
    """Chat template, without the marks of what is learned, which only training reads."""


def vocabulary(tokenizer: Any, size: int, ref: str) -> Vocabulary:
    """Read a tokenizer.

    Args:
        tokenizer: a fast one of transformers.
        size: rows of the model's embedding; what the tokenizer has no token for is unused.
        ref: the model, for a person.

    Raises:
        UserError: it is no BPE, splits text by a rule that llama.cpp has no name for, or has more tokens than the model.
    """
    told = json.loads(tokenizer.backend_tokenizer.to_str())
    model = told["model"]
    if model.get("type") != "BPE":
        remedy = "take a model whose tokenizer is a BPE"
        raise UserError(f"has a {model.get('type')} tokenizer, which the export does not write", ref, remedy)
    plain = {id: token for token, id in model["vocab"].items()}
    added = {each["id"]: each for each in told.get("added_tokens") or ()}
    most = max([*plain, *added]) + 1
    if most > size:
        raise UserError(f"its tokenizer has {most} tokens and the embedding {size} rows", ref, "resize the embedding, and save")
    by_bytes = _byte_level(told)
    pre = _pre(told, ref) if by_bytes else "default"
    tokens = [(added[id]["content"] if id in added else plain.get(id, f"[PAD{id}]")) for id in range(size)]
    unknown = None if by_bytes else model["vocab"].get(model.get("unk_token"))
    types = [_type(id, tokens[id], added, plain, unknown, by_bytes) for id in range(size)]
    merges = [each if isinstance(each, str) else " ".join(each) for each in model["merges"]]
    bare = tokenizer("a").input_ids
    return Vocabulary(
        "gpt2" if by_bytes else "llama",
        pre,
        tokens,
        types,
        merges if by_bytes else [],
        [] if by_bytes else _scores(tokens, merges),
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
        unknown,
        bool(bare) and tokenizer.bos_token_id is not None and bare[0] == tokenizer.bos_token_id,
        bool(bare) and tokenizer.eos_token_id is not None and bare[-1] == tokenizer.eos_token_id,
        _space_prefix(told),
        unmarked(tokenizer.chat_template) if isinstance(tokenizer.chat_template, str) else None,
    )


def unmarked(template: str) -> str:
    """A chat template without `{% generation %}` marks, which llama.cpp does not know; comments in their place trim alike."""
    return re.sub(r"\{%([-+]?)\s*(?:end)?generation\s*([-+]?)%\}", r"{#\1 \2#}", template)


def _byte_level(told: dict[str, Any]) -> bool:
    return any(each.get("type") == "ByteLevel" for part in ("pre_tokenizer", "decoder") for each in _parts(told.get(part)))


def _parts(told: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The steps of a part of a tokenizer, in order."""
    if not told:
        return []
    inner = told.get("pretokenizers") or told.get("normalizers") or told.get("decoders")
    return [step for each in inner for step in _parts(each)] if inner else [told]


def _pre(told: dict[str, Any], ref: str) -> str:
    """llama.cpp's name of how a byte-level tokenizer splits text.

    Raises:
        UserError: it has none.
    """
    steps = _parts(told.get("pre_tokenizer"))
    kinds = [each["type"] for each in steps]
    prefixed = any(each.get("add_prefix_space") for each in steps)
    if not prefixed and kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt-2"
    if (
        not prefixed
        and kinds == ["Digits", "ByteLevel"]
        and steps[0].get("individual_digits")
        and steps[1].get("use_regex", True)
    ):
        return "smollm"
    if not prefixed and kinds == ["Split", "ByteLevel"] and not steps[1].get("use_regex", True):
        name = SPLITS.get(str(steps[0]["pattern"].get("Regex")))
        if name and steps[0].get("behavior") == "Isolated":
            return name
    what = f"its tokenizer splits text by a rule that llama.cpp has no name for ({', '.join(kinds) or 'none'})"
    raise UserError(what, ref, "take a tokenizer that splits as Qwen2, Llama 3, SmolLM2, GPT-2 or Mistral do")


def _type(id: int, token: str, added: dict[int, Any], plain: dict[int, str], unknown: int | None, by_bytes: bool) -> int:
    if id == unknown:
        return UNKNOWN
    if id in added:
        return CONTROL if added[id].get("special") else USER
    if id not in plain:
        return UNUSED
    return BYTE if not by_bytes and re.fullmatch(r"<0x[0-9A-F]{2}>", token) else NORMAL


def _scores(tokens: Sequence[str], merges: Sequence[str]) -> list[float]:
    """Scores by which llama.cpp merges in the order of the ranks; what no merge makes comes last."""
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        ranks.setdefault(pair.replace(" ", "", 1), rank)
    last = len(merges)
    return [float(-ranks.get(token, last)) for token in tokens]


def _space_prefix(told: dict[str, Any]) -> bool:
    """Whether a text begins as if a space stood before it."""
    before = any(each.get("type") == "Prepend" for each in _parts(told.get("normalizer")))
    spaces = [each for each in _parts(told.get("pre_tokenizer")) if each.get("type") == "Metaspace"]
    return before or any(each.get("prepend_scheme", "always") != "never" for each in spaces)
