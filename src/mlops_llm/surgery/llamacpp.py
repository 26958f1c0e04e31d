"""A GGUF as llama.cpp reads it, which is asked the same as transformers is asked of the model that it was made of.

llama.cpp comes prebuilt in the package `xllamacpp`; its server listens on this machine alone, for as long as it is asked.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_llm.inference.llamacpp import serving
from mlops_llm.surgery.gguf_tokens import unmarked

TEXTS = (
    "Hello, world!  What's 12 + 345 = ?\n\n\tThe 3rd line, isn't it?",
    "你好，世界！订单 20261128 什么时候发货？",
    "naïve café, Привет мир, 日本語 テスト, 😀👍🏽 done.",
    "def f(x):\n    return {'a': x**2, \"b\": [1, 2.5e-3]}  # ok",
)
"""Texts whose tokens must be the same."""
_CHATS = (
    "What is the capital of France?",
    "介绍一下你自己。",
    "Write the numbers from one to five.",
)
STEPS = 12
"""Tokens of each answer that are compared."""
TIE = 0.02
"""Two tokens whose log-probabilities are no further apart may change places: arithmetic differs in the last digits."""
_SECONDS = 600


class LlamaCpp:
    """A model open in llama.cpp."""

    def __init__(self, address: str) -> None:
        """Keep where it listens."""
        self._address = address

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text, with what the tokenizer puts before and after it."""
        return list(self._ask("/tokenize", {"content": text, "add_special": True, "parse_special": True})["tokens"])

    def rendered(self, messages: Sequence[Mapping[str, str]]) -> str:
        """A conversation as the chat template in the file writes it."""
        return str(self._ask("/apply-template", {"messages": list(messages)})["prompt"])

    def following(self, ids: Sequence[int]) -> tuple[int, float | None]:
        """The likeliest token after some others, and its log-probability in nats; None of one that is part of a character."""
        body = {"prompt": list(ids), "n_predict": 1, "n_probs": 1, "temperature": 0, "cache_prompt": True}
        found = self._ask("/completion", body | {"return_tokens": True})
        told = found.get("completion_probabilities")
        return int(found["tokens"][0]), float(told[0]["logprob"]) if told else None

    def _ask(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(self._address + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=_SECONDS) as answer:
            found: dict[str, Any] = json.load(answer)
            return found


@contextmanager
def opened(path: Path, window: int = 512) -> Iterator[LlamaCpp]:
    """Open a GGUF in llama.cpp, on the CPU and one thread, so that its numbers repeat themselves.

    Raises:
        UserError: llama.cpp is not installed, or cannot read the file.
    """
    with serving(path, window) as server:
        yield LlamaCpp(server.address)


@dataclass(frozen=True)
class Alike:
    """How a model in llama.cpp compares with the one that it was made of."""

    texts: Sequence[str]
    """Texts that it takes apart otherwise; none is right."""
    rendered: bool | None
    """Whether it writes conversations alike; None where there is no template."""
    tokens: int
    """Tokens that were compared."""
    same: int
    """Of those: llama.cpp's choice is that of the model, ties apart."""
    furthest: float
    """Largest difference of the log-probabilities of tokens that both chose, in nats."""


def compared(path: Path, model: Any, tokenizer: Any) -> Alike:
    """Ask a GGUF and the model that it was made of.

    Args:
        path: the GGUF.
        model: the same in transformers.
        tokenizer: of the model.
    """
    answers = [_answer(model, tokenizer, each) for each in _CHATS]
    with opened(path) as there:
        apart = [text for text in TEXTS if there.tokens(text) != tokenizer(text).input_ids]
        rendered = _rendered_alike(there, tokenizer) if tokenizer.chat_template else None
        tokens = same = 0
        furthest = 0.0
        for ids, said in answers:
            known = list(ids)
            for each in said:
                chosen, likelihood = there.following(known)
                tokens += 1
                same += chosen == each.token or each.margin <= TIE
                if chosen == each.token and likelihood is not None:
                    furthest = max(furthest, abs(likelihood - each.likelihood))
                known.append(each.token)
    return Alike(apart, rendered, tokens, same, furthest)


def _rendered_alike(there: LlamaCpp, tokenizer: Any) -> bool:
    chats = [
        [{"role": "user", "content": _CHATS[0]}],
        [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "在。"}, {"role": "user", "content": "谢谢"}],
    ]
    template = unmarked(tokenizer.chat_template)
    return all(
        there.rendered(chat)
        == tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, chat_template=template)
        for chat in chats
    )


@dataclass(frozen=True)
class _Said:
    token: int
    likelihood: float
    margin: float
    """How much likelier it is than the next, in nats."""


def _answer(model: Any, tokenizer: Any, text: str) -> tuple[list[int], list[_Said]]:
    """A question's token ids and what the model says to it, each time the likeliest token, end marks included."""
    import torch

    ids = list(tokenizer(text).input_ids)
    if tokenizer.chat_template:
        chat = [{"role": "user", "content": text}]
        written = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        ids = list(tokenizer(written, add_special_tokens=False).input_ids)
    known, said = list(ids), list[_Said]()
    with torch.inference_mode():
        for _ in range(STEPS):
            found = model(input_ids=torch.tensor([known]), use_cache=False).logits[0, -1].float().log_softmax(-1)
            (first, second), places = (each.tolist() for each in found.topk(2))
            said.append(_Said(places[0], first, first - second))
            if places[0] == tokenizer.eos_token_id:
                break
            known.append(places[0])
    return ids, said
