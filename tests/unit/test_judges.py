"""How a judge is chosen and set up, and what is refused before it is asked."""

from __future__ import annotations

import pytest

from mlops_llm import component
from mlops_llm.component import near
from mlops_llm.entry import complaints, config
from mlops_llm.entry.arguments import read
from mlops_llm.errors import UserError
from mlops_llm.eval import placeholders
from mlops_llm.eval.asking import Said
from mlops_llm.eval.chat import Chat
from mlops_llm.eval.config import PACKAGES, Eval
from mlops_llm.eval.judge import Judge, conversation
from mlops_llm.eval.judges.pairwise import Pairwise
from mlops_llm.eval.judges.rubric import Rubric, verdict_of
from mlops_llm.eval.pairwise import Choice, match, rates
from mlops_llm.eval.reading import Read
from mlops_llm.inference.engine import Class, Failure

FOUR = ["accuracy", "relevance", "fluency", "professionalism"]
URL = "http://127.0.0.1:1/v1"
TEMPLATE = "{prompt} {response}"


def chosen(*overrides: str) -> Judge:
    config.register("eval", Eval, PACKAGES)
    return config.typed(config.composed("eval", read(overrides).overrides)).judge


@pytest.mark.parametrize("name", ["rubric_zh", "rubric_en"])
def test_a_rubric_is_chosen_as_a_person_types_it(name, monkeypatch):
    monkeypatch.setenv("DASHSCOPE_API_KEY", "sk-x")
    one = chosen(f"judge={name}", f"judge.base_url={URL}", "judge.model=qwen-plus", "judge.api_key_env=DASHSCOPE_API_KEY")
    one.check()
    assert (type(one), one.name, one.model, one.dimensions, one.most) == (Rubric, name, "qwen-plus", FOUR, 5)
    assert (one.concurrency, one.timeout, one.retries) == (4, 60, 3)
    assert all(f"- {each}" in one.text() for each in FOUR) and "helpfulness" not in one.text()
    assert component.rebuilt(Eval, {"judge": component.plain(one)}).judge == one
    other = chosen(f"judge={name}", "judge.dimensions=[accuracy,helpfulness]")
    assert other.dimensions == ["accuracy", "helpfulness"]
    assert "- helpfulness" in other.text() and "fluency" not in other.text() and other.version() != one.version()


@pytest.mark.parametrize("name", ["pairwise_zh", "pairwise_en"])
def test_a_comparison_is_chosen_as_a_person_types_it(name):
    one = chosen(f"judge={name}", f"judge.base_url={URL}", "judge.model=m")
    one.check()
    assert (type(one), one.name, one.most) == (Pairwise, name, 1)
    assert one.overall({"win": 0.5, "tie": 0.2, "loss": 0.3, "flip": 0.1}) == 0.6


def test_an_unknown_judge_is_told_with_the_nearest_preset():
    with pytest.raises(Exception, match="rubric_zhh") as caught:
        chosen("judge=rubric_zhh")
    said = str(complaints.one_line(caught.value, Eval))
    assert said.startswith("unknown judge 'rubric_zhh' (did you mean rubric_zh?); there are: pairwise, pairwise_en, ")


def good(**how) -> Rubric:
    return Rubric(**{"base_url": URL, "model": "m", "template": TEMPLATE, **how})


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"base_url": ""}, "judge.base_url: is not given; name the server: judge.base_url=http://HOST:PORT/v1"),
        ({"model": ""}, "judge.model: is not given"),
        ({"template": ""}, "judge.template: is empty; choose judge=rubric_zh or judge=rubric_en"),
        ({"template": "{prompt} {reponse}"}, "judge.template: has an unknown placeholder {reponse} (did you mean response?)"),
        ({"template": "{prompt}"}, "judge.template: has no place for {response}"),
        ({"api_key_env": "NO_SUCH_KEY"}, "judge.api_key_env: the environment variable NO_SUCH_KEY is not set"),
        ({"name": "评分"}, "judge.name: '评分' cannot be a prompt's name"),
    ],
)
def test_what_cannot_be_asked_is_told_in_one_line(how, said, monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    good().check()
    with pytest.raises(UserError) as caught:
        good(**how).check()
    assert str(caught.value).startswith(said) and "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["sk-abcdefgh12345678", "0f3e9ad2b7c64e1f", "Abc/def+gh=="])
def test_a_key_in_the_place_of_its_name_is_not_repeated(key):
    with pytest.raises(UserError, match="names no environment variable that is set") as caught:
        good(api_key_env=key).check()
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"base_url": "none"}, "judge.base_url: is no address of a server"),
        ({"base_url": "http://name:secret@host/v1"}, "judge.base_url: is no address"),
        ({"dimensions": []}, "judge.dimensions: names nothing to rate"),
        ({"dimensions": ["accuracy", " "]}, "judge.dimensions: names nothing to rate"),
        ({"dimensions": ["accuracy", "accuracy"]}, "judge.dimensions: names accuracy twice"),
        ({"dimensions": ["comment"]}, "judge.dimensions: names comment"),
        ({"dimensions": ["overall"]}, "judge.dimensions: names overall, which is the mean of all"),
        ({"dimensions": ["准确性", "准确度"]}, "judge.dimensions: names 准确性 and 准确度, which cannot be told apart"),
        ({"dimensions": ["a", "b"], "labels": {"b": "A"}}, "judge.dimensions: names a and A"),
        ({"budget": 5.0}, "judge.budget: is given, but no prices to count with; give judge.price_in and judge.price_out"),
        ({"budget": 5.0, "price_in": 1.0}, "judge.budget: is given, but no prices"),
        ({"budget": 0.0, "price_in": 1.0, "price_out": 1.0}, "judge.budget: is 0.0"),
        ({"price_in": -1.0}, "judge.price_in: is -1.0"),
        ({"price_out": float("nan")}, "judge.price_out: is nan"),
        ({"repetitions": 3}, "judge.repetitions: is 3, but at judge.temperature=0 every judgement is the same"),
        ({"repetitions": 0}, "judge.repetitions: is 0"),
        ({"concurrency": 0}, "judge.concurrency: is 0"),
        ({"max_tokens": 0}, "judge.max_tokens: is 0"),
        ({"most_failures": 0}, "judge.most_failures: is 0"),
        ({"retries": -1}, "judge.retries: is -1"),
        ({"timeout": float("inf")}, "judge.timeout: is inf"),
        ({"temperature": -0.1}, "judge.temperature: is -0.1"),
    ],
)
def test_settings_that_are_none(how, said):
    with pytest.raises(UserError) as caught:
        good(**how)
    assert str(caught.value).startswith(said) and "secret" not in str(caught.value)


def test_a_template_may_show_json_and_values_are_not_looked_at_again():
    text = 'like {"a": {"b": 1}} or {}: {prompt}{response}'
    placeholders.check(text, ("prompt", "response"), ("response",), "here")
    found = placeholders.filled(text, {"prompt": "{response}", "response": "\\1 {prompt}"})
    assert found == 'like {"a": {"b": 1}} or {}: {response}\\1 {prompt}'
    assert near("promt", ("prompt",)) in str(refusal("{promt}{response}"))


def refusal(text: str) -> UserError:
    with pytest.raises(UserError) as caught:
        placeholders.check(text, ("prompt", "response"), (), "here")
    return caught.value


def test_what_a_rating_depends_on_makes_another_version():
    changes = [
        {"model": "n"}, {"base_url": f"{URL}/x"}, {"temperature": 0.3}, {"template": f"{TEMPLATE}!"}, {"dimensions": FOUR[:2]},
        {"meanings": {"accuracy": "right"}}, {"ending": "Go."}, {"json_schema": False}, {"max_tokens": 9},
    ]  # fmt: skip
    versions = [good(**how).version() for how in changes]
    assert len({good().version(), *versions}) == len(changes) + 1
    same = {"api_key_env": "OTHER", "concurrency": 9, "timeout": 1.0, "retries": 0, "price_in": 1.0}
    assert good(**same).version() == good().version()


def said(value: float, repaired: bool = False, second: bool = False) -> Said[dict[str, float]]:
    return Said(Read({"accuracy": value}, "", repaired), 10, 0.5, second)


def test_repetitions_come_to_a_mean_a_spread_and_flags():
    failure = Failure(Class.timeout, "late")
    found = verdict_of([said(3), said(5, repaired=True), failure])
    assert (found.scores, found.spread) == ({"accuracy": 4}, {"accuracy": pytest.approx(2**0.5)})
    assert (found.flags, found.tokens, found.cost) == (["repaired", "2 of 3 repetitions"], 20, 1.0)
    assert verdict_of([failure, failure]) is failure
    assert verdict_of([said(3, second=True)]).flags == ["asked again"] and verdict_of([said(3)]).spread == {}


def test_a_judge_reads_the_whole_conversation():
    assert conversation([{"role": "user", "content": "几点？"}]) == "几点？"
    turns = [{"role": "system", "content": "客服"}, {"role": "user", "content": "查"}]
    turns.append({"role": "assistant", "content": None, "tool_calls": [{"name": "查"}]})
    assert conversation(turns) == '[system] 客服\n[user] 查\n[assistant] [{"name": "查"}]'


FIRST, SECOND, TIE = Choice.first, Choice.second, Choice.tie


@pytest.mark.parametrize(
    ("shown", "exchanged", "choice", "flipped", "favours"),
    [
        (FIRST, SECOND, FIRST, False, 0.5), (SECOND, FIRST, SECOND, False, 0.5), (TIE, TIE, TIE, False, 0.5),
        (FIRST, FIRST, TIE, True, 1.0), (SECOND, SECOND, TIE, True, 0.0), (FIRST, TIE, TIE, True, 0.75),
        (TIE, SECOND, TIE, True, 0.25),
    ],
)  # fmt: skip
def test_a_win_only_where_both_orders_agree(shown, exchanged, choice, flipped, favours):
    found = match(shown, exchanged)
    assert (found.choice, found.is_flipped, found.favours) == (choice, flipped, favours)


def test_rates_of_a_judge_that_only_looks_at_the_place():
    biased = rates([match(FIRST, FIRST)] * 4)
    assert (biased.win, biased.tie, biased.loss, biased.flip, biased.favours) == (0, 1, 0, 1, 1)
    fair = rates([match(FIRST, SECOND)] * 3 + [match(SECOND, FIRST)])
    assert (fair.win, fair.tie, fair.loss, fair.flip, fair.favours, fair.count) == (0.75, 0, 0.25, 0, 0.5, 4)


def test_the_settings_of_a_judge_are_shared():
    assert {"base_url", "budget"} <= set(component.documentation(Rubric)) & set(component.documentation(Chat))
