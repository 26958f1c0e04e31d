"""`engine=llamacpp`: a GGUF file answers in llama.cpp as the model that it was made of does in transformers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlops_llm.errors import UserError
from mlops_llm.inference.engine import Care, Class, Failure, Generation, Request, Sampling, Session
from mlops_llm.inference.engines.hf import Hf
from mlops_llm.inference.engines.llamacpp import LlamaCpp
from mlops_llm.models import load
from mlops_llm.models.load import ModelLoad
from mlops_llm.models.ref import resolve
from mlops_llm.surgery.gguf import Type
from mlops_llm.surgery.ops.export_gguf import ExportGguf
from tests.surgeries import written

GREEDY = Sampling(temperature=0, max_new_tokens=24)
ASKED = ["你好", "12+30=?", "我的订单什么时候发货？", "退货需要什么条件？请详细说明", "5+7=?"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(ExportGguf(Type.f32), tmp_path_factory.mktemp("exported") / "gguf", model="tiny")


@pytest.fixture(scope="module")
def session(folder: Path) -> Iterator[Session]:
    files = load.inspect(resolve(str(folder)), ModelLoad())
    with LlamaCpp(parallel=2, threads=1).open(files, ModelLoad(), load.tokenizer_of(files), 512) as opened:
        yield opened


def answers(session: Session, sampling: Sampling, asked: list[str] = ASKED, seed: int = 7) -> list[Generation | Failure]:
    turns = [[{"role": "user", "content": text}] for text in asked]
    texts = [session.tokenizer.apply_chat_template(each, tokenize=False, add_generation_prompt=True) for each in turns]
    requests = [Request(place, *each, seed + place) for place, each in enumerate(zip(turns, texts, strict=True))]
    found = dict(session.generate(requests, sampling, Care()))
    return [found[place] for place in range(len(asked))]


def test_greedy_answers_are_those_of_transformers(session: Session, folder: Path):
    files = load.inspect(resolve(str(folder)), ModelLoad())
    with Hf().open(files, ModelLoad(), load.tokenizer_of(files), 512) as plain:
        wanted = answers(plain, GREEDY)
    found = answers(session, GREEDY)
    for here, there in zip(found, wanted, strict=True):
        assert isinstance(here, Generation) and isinstance(there, Generation)
        assert (here.text, here.tokens, here.prompt_tokens, here.cut) == (
            there.text, there.tokens, there.prompt_tokens, there.cut,
        )  # fmt: skip


def test_an_answer_depends_on_its_own_seed_alone_and_ends_before_a_stop_text(session: Session):
    drawn = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=12)
    first, again, other = (answers(session, drawn, seed=seed) for seed in (7, 7, 8))
    assert [each.text for each in first] == [each.text for each in again] != [each.text for each in other]
    (whole,) = answers(session, GREEDY, ASKED[2:3])
    (stopped,) = answers(session, Sampling(temperature=0, max_new_tokens=24, stop=[whole.text[4:6]]), ASKED[2:3])
    assert stopped.text == whole.text[: whole.text.index(whole.text[4:6])]


def test_nothing_but_temperature_and_top_p_cuts_what_may_be_drawn(session: Session):
    """llama.cpp's own defaults draw from the likeliest 40 tokens alone, and from none below a twentieth of the likeliest."""
    drawn = session.drawn(Sampling(temperature=1.5, top_p=1.0))
    assert (drawn["temperature"], drawn["top_p"], drawn["top_k"], drawn["min_p"], drawn["repeat_penalty"]) == (
        1.5,
        1.0,
        0,
        0.0,
        1.0,
    )
    hot = Sampling(temperature=100.0, top_p=1.0, max_new_tokens=1)
    said = {each.text for place in range(20) for each in answers(session, hot, seed=100 * place)}
    assert len(said) > 60  # nearly uniform over more than a thousand tokens


def test_what_has_no_room_has_failed(session: Session):
    full, fine = answers(session, GREEDY, ["好" * 600, ASKED[0]])
    assert isinstance(full, Failure) and full.kind is Class.too_long and isinstance(fine, Generation)


def test_what_it_cannot_do_is_refused(session: Session):
    with pytest.raises(UserError, match="take engine=hf, which reads GGUF too"):
        session.logprobs([[1, 2]], [1], 1, Care())
    files = load.inspect(resolve("tiny"), ModelLoad())
    with (
        pytest.raises(UserError, match=r"is no GGUF file.*op=export_gguf"),
        LlamaCpp().open(files, ModelLoad(), load.tokenizer_of(files), 512),
    ):
        pass
    with pytest.raises(UserError, match=r"engine\.parallel: is 0"):
        LlamaCpp(parallel=0)
