"""What the engines add to what they stand on, on `tiny`: 500 prompts of the shop, 64 new tokens at most, alternating pairs.

`hf` against transformers' `generate` in the same batches of the same model, greedy and drawn; `vllm` in process against
`LLM.generate` of the same LLM; `vllm` served against a bare asyncio client (aiohttp) of the same server at the same
concurrency. Each side begins with the prompts' texts and ends with the answers' texts. And the first answer of `hf`, from
opening the model, once the libraries are imported. The CPU's time is this process's alone: of a served vLLM the client's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from stats import Run, alternate, compare

from mlops_llm.console import grid
from mlops_llm.inference.engine import Care, Generation, Request, Sampling
from mlops_llm.inference.engines.hf import Hf
from mlops_llm.inference.engines.vllm import Mode, Vllm
from mlops_llm.models import load
from mlops_llm.models.load import ModelLoad
from mlops_llm.models.ref import resolve
from mlops_llm.models.tiny import corpus

MOST, BATCH, CONCURRENCY = 64, 8, 32
GREEDY = Sampling(temperature=0, max_new_tokens=MOST, batch_size=BATCH)
DRAWN = Sampling(temperature=0.7, top_p=0.9, max_new_tokens=MOST, batch_size=BATCH)
WANTED = {"seconds": "interval begins at most at 1.05", "ms/token": "interval begins at most at 1.05"}
Answers = Callable[[], tuple[list[str], int]]
"""Texts in order, and how many tokens were written."""


def measured(answers: Answers, said: set[int]) -> Run:
    """A side; what it says is kept as one number, to see whether all say the same."""

    def run() -> dict[str, float]:
        began, busy = time.perf_counter(), time.process_time()
        texts, tokens = answers()
        seconds, busy = time.perf_counter() - began, time.process_time() - busy
        said.add(hash(tuple(texts)))
        return {"seconds": seconds, "ms/token": 1000 * seconds / tokens, "CPU ms/token": 1000 * busy / tokens}

    return run


def ours(session: Any, asked: Sequence[Request], sampling: Sampling) -> Answers:
    def answers() -> tuple[list[str], int]:
        found = dict(session.generate(asked, sampling, Care(concurrency=None)))
        texts = [each.text if isinstance(each, Generation) else "" for each in (found[one.place] for one in asked)]
        return texts, sum(each.tokens for each in found.values())

    return answers


def plain_generate(model: Any, tokenizer: Any, texts: Sequence[str], how: dict[str, Any]) -> Answers:
    import torch

    def answers() -> tuple[list[str], int]:
        tokenizer.padding_side = "left"
        lengths = [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]
        order, found, tokens = sorted(range(len(texts)), key=lambda place: -lengths[place]), [""] * len(texts), 0
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            batch = tokenizer([texts[place] for place in places], return_tensors="pt", padding=True, add_special_tokens=False)
            with torch.inference_mode():
                out = model.generate(**batch, max_new_tokens=MOST, pad_token_id=tokenizer.pad_token_id, **how)
            new = out[:, batch["input_ids"].shape[1] :]
            for place, text in zip(places, tokenizer.batch_decode(new, skip_special_tokens=True), strict=True):
                found[place] = text
            tokens += int((new != tokenizer.pad_token_id).sum())
        return found, tokens

    return answers


def plain_llm(llm: Any, texts: Sequence[str]) -> Answers:
    from vllm import SamplingParams

    def answers() -> tuple[list[str], int]:
        outputs = llm.generate(list(texts), SamplingParams(temperature=0, max_tokens=MOST), use_tqdm=False)
        return [each.outputs[0].text for each in outputs], sum(len(each.outputs[0].token_ids) for each in outputs)

    return answers


def plain_client(address: str, model: str, texts: Sequence[str]) -> Answers:
    import aiohttp

    async def one(session: Any, limit: asyncio.Semaphore, text: str) -> tuple[str, int]:
        body = {"model": model, "prompt": text, "temperature": 0, "max_tokens": MOST, "add_special_tokens": False}
        async with limit, session.post(f"{address}/v1/completions", json=body) as answer:
            told = await answer.json()
        return told["choices"][0]["text"], told["usage"]["completion_tokens"]

    async def every() -> list[tuple[str, int]]:
        limit = asyncio.Semaphore(CONCURRENCY)
        async with aiohttp.ClientSession() as session:
            return await asyncio.gather(*(one(session, limit, text) for text in texts))

    def answers() -> tuple[list[str], int]:
        found = asyncio.run(every())
        return [text for text, _ in found], sum(tokens for _, tokens in found)

    return answers


def pairs_of(title: str, count: int, base: Answers, own: Answers) -> None:
    said = set[int]()
    runs = {"plain": measured(base, said), "ours": measured(own, said)}
    for run in runs.values():
        run()
    compare(title, alternate(count, runs), WANTED)
    print(f"answers: {'the same in all runs of both' if len(said) == 1 else f'{len(said)} different sets'}")


@contextlib.contextmanager
def opened(engine: Any) -> Iterator[tuple[Any, Any]]:
    """A session on tiny, and its tokenizer."""
    files = load.inspect(resolve("tiny"), ModelLoad())
    tokenizer = load.tokenizer_of(files)
    with engine.open(files, ModelLoad(), tokenizer, files.config["max_position_embeddings"]) as session:
        yield session, tokenizer


def hf(asked: Sequence[Request], texts: Sequence[str], pairs: int) -> None:
    firsts = []
    for _ in range(3):
        began = time.perf_counter()
        with opened(Hf()) as (session, _):
            next(session.generate(asked, Sampling(), Care()))
            firsts.append(time.perf_counter() - began)
    rows = [["first answer of hf, from opening", f"{statistics.median(firsts):.2f}", f"{max(firsts):.2f}", "below 3"]]
    grid("seconds, 3 runs", ["", "median", "most", "wanted"], rows)
    with opened(Hf()) as (session, tokenizer):
        greedy = plain_generate(session.model, tokenizer, texts, {"do_sample": False, "eos_token_id": tokenizer.eos_token_id})
        pairs_of("hf, greedy", pairs, greedy, ours(session, asked, GREEDY))
        how = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 0, "eos_token_id": tokenizer.eos_token_id}
        drawn = plain_generate(session.model, tokenizer, texts, how)
        pairs_of("hf, drawn at 0.7 and top-p 0.9", pairs, drawn, ours(session, asked, DRAWN))


def in_process(asked: Sequence[Request], texts: Sequence[str], pairs: int) -> None:
    with opened(Vllm(Mode.in_process)) as (session, _):
        pairs_of("vllm in process", pairs, plain_llm(session.llm, texts), ours(session, asked, GREEDY))


def served(asked: Sequence[Request], texts: Sequence[str], pairs: int) -> None:
    with opened(Vllm()) as (session, _):
        client = plain_client(session.server.address, session.server.model, texts)
        pairs_of(f"vllm served, {CONCURRENCY} at once", pairs, client, ours(session, asked, GREEDY))


PARTS = {"hf": hf, "in_process": in_process, "served": served}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--prompts", type=int, default=500)
    given = parser.parse_args(argv)
    tokenizer = load.tokenizer_of(load.inspect(resolve("tiny"), ModelLoad()))
    asked = list[Request]()
    for place, each in enumerate(corpus.exchanges(1, given.prompts)):
        turns = [{"role": "user", "content": each.prompt}]
        asked.append(
            Request(place, turns, tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True), place)
        )
    texts = [each.text for each in asked]
    for name in given.engines:
        PARTS[name](asked, texts, given.pairs)


if __name__ == "__main__":
    main()
