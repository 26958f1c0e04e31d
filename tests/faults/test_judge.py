"""A judge that misbehaves on purpose, over real HTTP: every answer is accounted for, and the key is written nowhere."""

from __future__ import annotations

import json
import logging
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlops_llm import console
from mlops_llm.endpoint import Endpoint
from mlops_llm.errors import UserError
from mlops_llm.eval.judge import Rated, Verdict, verdict
from mlops_llm.eval.judges.pairwise import Pairwise
from mlops_llm.eval.judges.rubric import Rubric
from mlops_llm.eval.score import scored
from mlops_llm.inference.cache import Answers
from mlops_llm.inference.engine import Failure
from tests.chat_server import BROKEN, GOOD, KEY, MENDED, PASSING, RATINGS, SHAPES, Judge, serve

TEMPLATE = "问：{prompt}\n答：{response}\n参考：{reference}"


@pytest.fixture
def server() -> Iterator[Judge]:
    with serve() as server:
        yield server


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_KEY", KEY)


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(Endpoint, "pause", lambda _, seconds: found.append(seconds))
    return found


def rubric(server: Judge, **how) -> Rubric:
    settings = {"base_url": server.address, "model": "judge", "api_key_env": "CANARY_KEY", "template": TEMPLATE}
    labels = {"accuracy": "准确性", "relevance": "相关性", "fluency": "流畅性", "professionalism": "专业性"}
    return Rubric(**{**settings, "labels": labels, "again": "再问：{problem}", **how})


def rated(*faults: str) -> list[Rated]:
    return [Rated(place, f"问题{place} <<{fault}>>", "答案", ("好",)) for place, fault in enumerate(faults)]


def judged(server: Judge, *faults: str, **how) -> Verdict | Failure:
    ((_, found),) = rubric(server, **how).rate(rated(*(faults or ("none",))))
    return found


def stopped(server: Judge, *faults: str, **how) -> str:
    with pytest.raises(UserError) as caught:
        list(rubric(server, **how).rate(rated(*(faults or ("none",)))))
    assert KEY not in "".join(traceback.format_exception(caught.value)) and "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_sent_and_what_comes_back(server, waits):
    one = rubric(server)
    one.check()
    one.reach()
    server.calls.clear()
    ((place, found),) = one.rate([Rated(7, "几点发货？{response}", "明天", ("下午", "三点"))])
    assert (place, found.scores, found.comment, found.flags, found.spread) == (7, RATINGS, "礼貌、准确", [], {})
    (call,) = server.calls
    assert (call["path"], call["model"], call["temperature"]) == ("/v1/chat/completions", "judge", 0)
    (message,) = call["messages"]
    assert message["content"].startswith("问：几点发货？{response}\n答：明天\n参考：下午\n三点\n\n- accuracy (准确性)")
    schema = call["response_format"]["json_schema"]
    assert schema["strict"] and schema["schema"]["required"] == ["comment", *RATINGS]
    assert schema["schema"]["properties"]["accuracy"] == {"type": "integer", "enum": [1, 2, 3, 4, 5]}
    assert server.keys == {f"Bearer {KEY}"} and waits == []
    assert one.overall(found.scores) == 4.25 and one.facts()["judged by"] == "judge-1"


@pytest.mark.parametrize("fault", PASSING)
def test_what_may_pass_is_tried_again(server, waits, fault):
    server.repeat = 2
    assert judged(server, fault).scores == RATINGS
    assert len(server.calls) == 3 and len(waits) == 2
    assert waits == [0.01, 0.01] if fault == "429" else 0.5 <= waits[0] <= 1 <= waits[1] <= 2


@pytest.mark.parametrize("fault", ["hang", "trickle", "trickling headers"])
def test_a_slow_answer_is_left_in_time_and_asked_for_again(server, fault):
    assert judged(server, fault, timeout=0.6).scores == RATINGS
    server.repeat = 99
    found = dict(rubric(server, timeout=0.6, retries=1).rate(rated(fault, "none")))
    assert found[0].kind.value == "timeout" and "failed 2 times" in found[0].cause
    assert found[1].scores == RATINGS


@pytest.mark.parametrize("fault", [*SHAPES, *MENDED])
def test_wrapped_answers_count_at_once(server, fault):
    found = judged(server, fault)
    assert found.scores == RATINGS and len(server.calls) == 1
    assert found.flags == (["repaired"] if fault in MENDED else [])


@pytest.mark.parametrize("fault", [*BROKEN, "length", "empty", "no content"])
def test_what_cannot_be_read_is_asked_again_with_the_reason(server, waits, fault):
    found = judged(server, fault)
    assert found.scores == RATINGS and found.flags == ["asked again"] and waits == []
    first, second = (call["messages"][0]["content"] for call in server.calls)
    assert second.startswith(first) and "再问：" in second.removeprefix(first)
    server.repeat = 99
    failure = judged(server, fault)
    assert failure.kind.value == ("empty" if fault in ("empty", "no content") else "unparsable") and failure.cause
    assert len(server.calls) == 2 + 4


def test_a_whole_answer_that_the_server_calls_cut_is_none(server):
    server.repeat = 99
    assert "cut off at 1024 tokens" in judged(server, "length").cause


@pytest.mark.parametrize(
    ("fault", "said"),
    [("401", "judge.api_key_env (CANARY_KEY)"), ("403", "HTTP 403"), ("404", "judge.model"), ("quota", "quota is used up")],
)
def test_what_is_final_ends_all_at_once_and_tells_how_far_it_came(server, waits, fault, said):
    server.slow = 0.01
    found = stopped(server, "none", "none", fault, *["none"] * 200, concurrency=1)
    assert said in found and "of 203 are judged" in found and waits == []
    assert len(server.calls) < 20


def test_a_refusal_of_one_answer_is_its_own(server):
    server.repeat = 99
    found = dict(rubric(server).rate(rated("400", "long", "filter", "none")))
    assert [found[place].kind.value for place in range(3)] == ["refused", "too long", "refused"]
    assert found[3].scores == RATINGS
    assert all(KEY not in found[place].cause for place in range(3))


@pytest.mark.parametrize(
    ("field", "said", "instead"),
    [
        ("response_format", "response_format is not supported", None),
        (
            "max_tokens",
            "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
            "max_completion_tokens",
        ),
        ("temperature", "'temperature' does not support 0 with this model", None),
    ],
)
def test_what_the_server_does_not_know_is_left_out_once_for_all(server, field, said, instead):
    server.refused = (field, said)
    server.slow = 0.01  # several are refused at once
    one = rubric(server)
    found = dict(one.rate(rated(*["none"] * 40)))
    assert all(each.scores == RATINGS for each in found.values())
    without = [call for call in server.calls if field not in call]
    assert len(without) == 40 and len(server.calls) <= 40 + 4
    assert instead is None or all(instead in call for call in without)
    assert one.facts()["judge does not know"] == field


def test_a_server_that_fails_for_good_is_not_asked_for_ever(server):
    server.always = "500"
    found = stopped(server, *["none"] * 500, most_failures=5, retries=0)
    assert "5 judgements in a row failed, the last: HTTP 500" in found and "(0 of 500 are judged)" in found
    assert len(server.calls) < 50
    assert "1 judgements in a row failed" in stopped(server, retries=0)


def test_failures_between_good_answers_stay_failures(server):
    server.repeat = 99
    found = dict(rubric(server, retries=0, most_failures=20).rate(rated(*["500", "500", "none"] * 60)))
    assert Counter(type(each).__name__ for each in found.values()) == {"Failure": 120, "Verdict": 60}


@pytest.mark.parametrize("fault", ["401", "404"])
def test_reaching_tells_a_wrong_key_before_anything_is_loaded(server, fault):
    server.always = fault
    with pytest.raises(UserError, match=f"refuses: HTTP {fault}") as caught:
        rubric(server).reach()
    assert KEY not in str(caught.value)
    server.always = "503"
    rubric(server).reach()


def test_reaching_a_server_that_is_not_there():
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9/v1: does not answer: .*refused.*check judge\.base_url"):
        Rubric(base_url="http://127.0.0.1:9/v1", model="m", template=TEMPLATE).reach()


FIFTH = ["429", "500", "html", "hanging up", "fence", "single quotes", "nine", "truncated", "think", "always"]


def test_a_thousand_answers_through_faults_are_all_accounted_for(server, tmp_path, capsys):
    handler = console.log_to(tmp_path / "eval.log")
    faults = [FIFTH[place // 5 % len(FIFTH)] if place % 5 == 0 else "none" for place in range(1000)]
    answers = rated(*faults)
    server.repeat = 1
    known = Answers(tmp_path / "answers.db")
    judge = rubric(server, price_in=1.0, price_out=2.0, concurrency=8)
    file = tmp_path / "judged.jsonl"

    def ask(places):
        return judge.rate([answers[place] for place in places], known)

    found, counts = scored([str(each) for each in range(len(answers))], ask, verdict, file, what="judged")
    assert counts.asked == 1000 and all(each.scores == RATINGS for each in found)
    flags = [each.flags for each in found]
    assert [place for place in range(1000) if flags[place]] == [
        place for place, fault in enumerate(faults) if fault in ("single quotes", "nine", "truncated")
    ]
    assert server.most <= 8
    asked = len(server.calls)
    read = sum(fault in ("nine", "truncated") for fault in faults)
    assert (
        judge.facts()["judge calls"].startswith(f"{1000 + read:,}, ")
        and judge.facts()["judge cost"] == f"{(1000 + read) * 2e-4:.4g}"
    )

    again, _ = scored([str(each) for each in range(len(answers))], ask, verdict, tmp_path / "second.jsonl", what="judged")
    assert len(server.calls) == asked and judge.facts()["judgements known from before"] == "1,000"
    assert [each.scores for each in again] == [each.scores for each in found] and again[0].cost == 0
    known.close()
    logging.getLogger().removeHandler(handler)
    handler.close()
    assert_nowhere(tmp_path, capsys)


@pytest.mark.parametrize("fault", ["401", "403", "500", "html", "echo", "echo rating", "error in 200", "quota", "400"])
def test_the_key_is_in_nothing_that_is_written(server, tmp_path, capsys, fault):
    handler = console.log_to(tmp_path / "eval.log")
    server.repeat = 99
    known = Answers(tmp_path / "answers.db")
    try:
        scored(
            ["0", "1"],
            lambda places: rubric(server).rate(rated(fault, "none"), known),
            verdict,
            tmp_path / "judged.jsonl",
            what="judged",
        )
    except UserError as error:
        console.fail(str(error))
        logging.getLogger("mlops_llm").error("", exc_info=error)
    known.close()
    logging.getLogger().removeHandler(handler)
    handler.close()
    assert_nowhere(tmp_path, capsys)


def assert_nowhere(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = capsys.readouterr()
    assert KEY not in out + err
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files and not [path for path in files if KEY.encode() in path.read_bytes()]


def test_nothing_is_kept_of_what_failed_and_another_judge_is_asked_anew(server, tmp_path):
    server.repeat = 99
    known = Answers(tmp_path / "answers.db")
    for _ in range(2):
        assert isinstance(dict(rubric(server, retries=0).rate(rated("nine"), known))[0], Failure)
    assert len(server.calls) == 2
    changes = [{}, {}, {"model": "other"}, {"dimensions": ["accuracy"]}, {"temperature": 0.5}, {"template": f"{TEMPLATE}！"}]
    for how, calls in zip(changes, [3, 3, 4, 5, 6, 7], strict=True):
        list(rubric(server, **how).rate(rated("none"), known))
        assert len(server.calls) == calls, how
    list(rubric(server).rate(rated("none"), known, refresh=True))
    assert len(server.calls) == 8
    other = rubric(server, api_key_env=None)
    list(other.rate(rated("none"), known))
    assert len(server.calls) == 8, "the key is no part of what an answer is kept under"
    known.close()


def test_repetitions_give_a_mean_and_a_spread(server, tmp_path):
    ratings = [json.dumps(dict.fromkeys(RATINGS, value) | {"comment": str(value)}) for value in (2, 3, 4)]
    server.answers = [*ratings]
    known = Answers(tmp_path / "answers.db")
    one = rubric(server, repetitions=3, temperature=0.7, concurrency=1)
    found = dict(one.rate(rated("none"), known))[0]
    assert found.scores == dict.fromkeys(RATINGS, 3) and found.spread == dict.fromkeys(RATINGS, 1)
    assert one.facts()["spread over repetitions"].startswith("accuracy 1.00, ") and one.numbers()["tokens_in"] == 300
    assert found.tokens == 450 and sorted(call["seed"] for call in server.calls) == [0, 1, 2]
    more = rubric(server, repetitions=5, temperature=0.7)
    list(more.rate(rated("none"), known))
    assert len(server.calls) == 5, "three were known"
    known.close()


def test_a_repetition_that_fails_is_told_and_the_others_count(server):
    server.answers = [GOOD, "no", GOOD]
    found = judged(server, repetitions=3, temperature=1, retries=0, concurrency=1)
    assert found.scores == RATINGS and found.flags == ["2 of 3 repetitions"]


@pytest.mark.parametrize("counts", [True, False])
def test_a_budget_is_never_exceeded_and_the_rest_is_told(server, capsys, counts):
    if not counts:
        server.usage = None
    prices = {"price_in": 1.0, "price_out": 10.0, "max_tokens": 100}
    one = rubric(server, **prices, budget=0.05)
    found = dict(one.rate(rated(*["none"] * 300)))
    assert len(found) == 300
    good = [place for place, each in found.items() if isinstance(each, Verdict)]
    spent = float(one.facts()["judge cost"])
    assert 0.04 < spent <= 0.05 and len(good) == len(server.calls) < 300
    assert {each.cause for each in found.values() if isinstance(each, Failure)} == {
        "judge.budget=0.05 pays for no other judgement"
    }
    assert f"{300 - len(good)} of 300 are not made" in capsys.readouterr().err


def test_a_budget_holds_over_several_starts(server, tmp_path):
    prices = {"price_in": 1.0, "price_out": 10.0, "max_tokens": 100, "budget": 0.05}
    ledger, rows = tmp_path / "calls.jsonl", rated(*["none"] * 300)
    first = rubric(server, **prices)
    begun = first.rate(rows, ledger=ledger)
    for _ in range(10):
        next(begun)
    begun.close()
    ledger.write_text(ledger.read_text() + "\n[100, 5")  # cut off by a kill
    before = len(ledger.read_text().split()) // 3
    again = rubric(server, **prices)
    found = dict(again.rate(rows, ledger=ledger))
    spent = float(again.facts()["judge cost"])
    assert 0.04 < spent <= 0.05 and sum(isinstance(each, Verdict) for each in found.values()) < 300 - before
    assert again.numbers()["calls"] >= 10 + sum(isinstance(each, Verdict) for each in found.values())
    assert "before it stopped" in again.facts()["judge calls"]


def test_what_is_known_needs_no_server(server, tmp_path):
    known, rows = Answers(tmp_path / "answers.db"), rated("none", "none")
    assert not rubric(server).knows(rows, known)
    list(rubric(server).rate(rows, known))
    assert rubric(server).knows(rows, known) and not rubric(server, model="other").knows(rows, known)
    known.close()


def test_asking_again_is_paid_for_from_the_same_budget(server):
    server.repeat = 99
    one = rubric(server, price_in=1.0, price_out=10.0, max_tokens=100, budget=0.02)
    found = dict(one.rate(rated(*["nine"] * 20)))
    assert {each.kind.value for each in found.values()} <= {"unparsable", "refused"} and 0.01 < one.numbers()["cost"] <= 0.02
    assert any("pays for no other attempt" in each.cause for each in found.values())


def test_a_budget_that_pays_for_nothing_is_one_line(server):
    said = stopped(server, price_in=1.0, price_out=10.0, budget=0.001)
    assert said.startswith("judge.budget: pays for no judgement: one may cost up to 0.01") and server.calls == []


def test_pairs_are_asked_in_both_orders(server):
    one = Pairwise(base_url=server.address, model="judge", template="{prompt}|{first}|{second}|")
    said = {"p0": ("A", "B"), "p1": ("A", "A"), "p2": ("B", "A"), "p3": ("tie", "tie"), "p4": ("tie", "B")}

    def say(text: str) -> str:
        prompt, first, _ = text.split("|", 2)
        return json.dumps({"comment": "c", "winner": said[prompt][first == "theirs"]})

    server.say = say
    rows = [Rated(place, f"p{place}", "ours", ("theirs",)) for place in range(5)]
    found = dict(one.rate(rows))
    names = [next(name for name in ("win", "tie", "loss") if found[place].scores[name]) for place in range(5)]
    assert names == ["win", "tie", "loss", "tie", "tie"]
    assert [found[place].scores["flip"] for place in range(5)] == [0, 1, 0, 0, 1]
    assert len(server.calls) == 10
    assert one.facts()["orders disagree"] == "40.0% of pairs; the answer shown first wins 55.0%"
    with pytest.raises(UserError, match="row 1: has no reference"):
        list(one.rate([Rated(0, "p", "a")]))


def test_the_consumer_may_leave_early(server):
    server.slow = 0.02
    found = rubric(server).rate(rated(*["none"] * 100))
    next(found)
    found.close()
    assert len(server.calls) < 40
