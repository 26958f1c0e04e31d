"""What an evaluation depends on, and what is refused before anything is asked."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mlops_llm.errors import UserError
from mlops_llm.eval.config import Cache, Eval
from mlops_llm.eval.judges.rubric import Rubric
from mlops_llm.eval.metrics.bleu import Bleu
from mlops_llm.eval.metrics.perplexity import Perplexity
from mlops_llm.eval.plan import Plan, prepare
from mlops_llm.inference.cache import Answers
from mlops_llm.inference.engine import Generation, Sampling
from mlops_llm.inference.engines.hf import Hf
from mlops_llm.inference.engines.openai import OpenAI
from mlops_llm.inference.engines.vllm import Vllm
from mlops_llm.models import tiny
from mlops_llm.models.load import Dtype, ModelLoad

ROWS = [{"prompt": "几点开门", "reference": "十点"}, {"prompt": "有货吗", "reference": "有"}]


@pytest.fixture
def plan(jsonl: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Plan]:
    """A function that prepares an evaluation of two rows."""
    monkeypatch.setattr(Vllm, "check", lambda self: None)

    def make(rows: list[dict[str, str]] = ROWS, **changes: object) -> Plan:
        given = {"engine": Hf(), "metric": {"bleu": Bleu()}, "dataset": str(jsonl(rows)), "model": "tiny", **changes}
        return prepare(Eval(**given))

    return make


def copy(folder: Path, file: str, **changes: object) -> str:
    """A copy of tiny in which one of its JSON files says something else."""
    shutil.copytree(tiny.folder(), folder)
    said = json.loads((folder / file).read_text("utf-8"))
    (folder / file).write_text(json.dumps(said | changes), "utf-8")
    return str(folder)


def test_an_answer_is_known_by_all_that_it_depends_on(plan: Callable[..., Plan], tmp_path: Path) -> None:
    first = plan().keys()
    assert plan().keys() == first == plan(model=copy(tmp_path / "same", "config.json", transformers_version="0")).keys()
    others = [
        plan(model=copy(tmp_path / "config", "config.json", rope_theta=5.0)),
        plan(model=copy(tmp_path / "ends", "generation_config.json", eos_token_id=5)),
        plan(engine=Vllm()),
        plan(engine=Vllm(max_model_len=64)),
        plan(engine=Vllm(arguments={"quantization": "fp8"})),
        plan(sampling=Sampling(max_new_tokens=8)),
        plan(sampling=Sampling(stop=["。"])),
        plan(seed=1),
        plan(model_load=ModelLoad(dtype=Dtype.bfloat16)),
    ]
    assert plan(model_load=ModelLoad(dtype=Dtype.float32)).keys() == first, "what auto is on a CPU"
    corrected = [{**ROWS[0], "reference": "九点", "metadata": {"of": "b"}}, ROWS[1]]
    assert plan(corrected).keys() == first, "no reference is read by the model"
    keys = [first, *(each.keys() for each in others)]
    assert len({key for each in keys for key in each}) == 2 * len(keys)
    greedy = [plan(sampling=Sampling(temperature=0.0), seed=seed).keys() for seed in (0, 1)]
    assert greedy[0] == greedy[1]


def test_a_long_row_changes_no_other(plan: Callable[..., Plan], capsys: pytest.CaptureFixture[str]) -> None:
    long = {"prompt": "长" * 480, "reference": "好"}
    assert plan([*ROWS, long]).keys()[:2] == plan(sampling=Sampling()).keys()
    assert any("3 of 3 answers have room for fewer than 512 tokens" in each for each in plan([*ROWS, long]).warnings)
    assert plan([*ROWS, long], metric={"perplexity": Perplexity()}).warnings == ()


def test_what_fills_the_window_is_refused(plan: Callable[..., Plan]) -> None:
    full = {"prompt": "短", "reference": "长" * 600}
    assert plan([*ROWS, full])
    with pytest.raises(UserError, match="1 of 3 prompts with their reference"):
        plan([*ROWS, full], metric={"perplexity": Perplexity()})
    with pytest.raises(UserError, match="1 of 1 prompts"):
        plan([{"prompt": "长" * 600, "reference": "好"}])
    with pytest.raises(UserError, match="sample: is given, but benchmarks are not drawn from"):
        prepare(Eval(engine=Hf(), benchmark=["gsm8k"], sample=3))


def test_a_server_is_named_by_its_address(plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenAI, "check", lambda self: None)
    found = plan(engine=OpenAI(base_url="http://127.0.0.1:1/v1", model="gpt-x"))
    assert found.model == "gpt-x at http://127.0.0.1:1/v1" and found.cache is Cache.off


def test_a_judge_must_be_there_unless_all_is_rated(
    plan: Callable[..., Plan], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOPS_LLM_CACHE", str(here / "cache"))
    judge = Rubric(base_url="http://127.0.0.1:9/v1", model="m", template="{prompt}{response}")
    known = Answers()
    keys = plan().keys()
    for each in keys:
        known.put(each, dataclasses.asdict(Generation("好", 1, 1, 0.1)))
    with pytest.raises(UserError, match="does not answer"):
        plan(judge=judge)
    monkeypatch.setattr(Rubric, "knows", lambda self, rows, answers: [one.answer for one in rows] == ["好", "好"])
    assert plan(judge=judge).settings.judge is judge
    known.close()


def test_conversations_need_a_template_of_the_models_own(plan: Callable[..., Plan], tmp_path: Path) -> None:
    bare = Path(copy(tmp_path / "bare", "tokenizer_config.json", chat_template=None))
    (bare / "chat_template.jinja").unlink(missing_ok=True)
    assert plan(model=str(bare)).warnings[0] == "it has no chat template of its own: questions are put as chatml writes them"
    talk = {"messages": [{"role": "system", "content": "你是客服"}, {"role": "user", "content": "在吗"}], "reference": "在"}
    with pytest.raises(UserError, match="has no chat template, and 1 of 3 rows are conversations"):
        plan([*ROWS, talk], model=str(bare))  # type: ignore[list-item]
