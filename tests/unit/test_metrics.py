"""Metrics by hand, at their bounds, and on what is hard: Chinese, mixed texts, nothing at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_llm.component import build, groups, load
from mlops_llm.errors import UserError
from mlops_llm.eval.metrics.bleu import Bleu, Tokenize
from mlops_llm.eval.metrics.exact_match import ExactMatch
from mlops_llm.eval.metrics.rouge import Rouge
from mlops_llm.eval.words import tokenization, words

load("mlops_llm.eval.metrics")
METRICS = {name: build("metric", name) for name in groups()["metric"]}
MOST = {"bleu": 100.0}
TEXT = st.text("天气好a B9，。 .!😀ｅ三", max_size=12)


def bleu(answer, *wanted, **how):
    return Bleu(**how).score([answer], [wanted]).total["bleu"]


def rouge(answer, *wanted):
    total = Rouge().score([answer], [wanted]).total
    return [pytest.approx(total[name], abs=1e-12) for name in ("rouge_1", "rouge_2", "rouge_l")]


def same(one, other, **how):
    return ExactMatch(**how).score([one], [[other]]).total["exact_match"] == 1


def test_by_hand():
    assert bleu("我喜欢喝茶", "我喜欢喝水") == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** (1 / 4))
    assert bleu("我喜欢喝茶", "我喜欢喝水", n=1) == pytest.approx(80)
    assert rouge("我喜欢喝茶", "我喜欢喝水") == [0.8, 0.75, 0.8]
    assert rouge("the cat sat", "the cat sat on the mat") == [2 * 3 / 9, 2 * 2 / 7, 2 * 3 / 9]
    assert rouge("on mat cat the", "the cat sat on the mat")[2] == 2 * 2 / 10
    assert rouge("好", "不好", "很 好") == [2 / 3, 0, 2 / 3]


def test_chinese_counts_though_it_has_no_blanks():
    one, other = "您好，订单明天发货。", "您好，订单今天发货。"
    assert bleu(one, other) > 40 and bleu(one, other, tokenize=Tokenize["13a"]) == 0
    assert all(value > 0.6 for value in Rouge().score([one], [[other]]).total.values())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("iPhone 15有货，3.5kg", ["iphone", "15", "有", "货", "3", "5kg"]),
        ("ＡＢＣ１２３（全角）", ["abc123", "全", "角"]),
        ("snake_case café naïve", ["snake", "case", "café", "naïve"]),
        ("コーヒーを飲む", [*"コーヒーを飲む"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("𠮷野家😀", ["𠮷", "野", "家"]),
        ("！？…", []),
    ],
)
def test_words(text, found):
    assert words(text) == found


def test_texts_are_split_as_their_references_want():
    assert tokenization(["all in English", "café"]) == "13a"
    assert tokenization(["mixed", "有中文的 text"]) == "zh"
    assert tokenization(["日本語です"]) == tokenization(["ภาษาไทย"]) == "char"
    assert "tok:13a" in Bleu().score(["中文"], [["English only"]]).signature
    assert "tok:zh" in Bleu().score(["English"], [["中文"]]).signature


def test_the_corpus_is_not_the_mean():
    found = Bleu().score(["我喜欢喝茶", "完全不同的话"], [["我喜欢喝茶"], ["天气很好啊"]])
    assert found.items["bleu"][0] == pytest.approx(100)
    assert found.total["bleu"] != pytest.approx(sum(found.items["bleu"]) / 2, abs=1)
    short = Bleu().score(["8"], [["8"]])
    assert (short.total["bleu"], short.items["bleu"]) == (0, [pytest.approx(100)])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ＯＫ", "ok"), ("共 8 个", "共8个"), (" a   b\n", "A b"), ("1,299", "1299.0"), ("50%", "0.5"), ("八", "8"),
        ("三百二十五", "325"), ("您好，在吗", "您好, 在吗"), ("－３", "-3"), ("Straße", "STRASSE"),
    ],
)  # fmt: skip
def test_forms_of_the_same(one, other):
    assert same(one, other) and same(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("therapist", "the rapist"), ("8 个", "8 元"), ("8", "答案是 8"), ("不够", "够"), ("", "8"), ("8", "9"), ("$5", "¥5"),
        ("1/2", "2/1"), (r"\boxed{8}", "8"), ("2024-05", "2019"),
    ],
)  # fmt: skip
def test_what_is_not_the_same(one, other):
    assert not same(one, other)


def test_what_is_ignored_is_a_setting_and_recorded():
    assert not same("OK", "ok", ignore_case=False)
    assert not same("共 8 个", "共8个", ignore_blanks=False)
    assert not same("1,299", "1299", ignore_number_forms=False)
    signatures = {
        ExactMatch(**{name: False}).score(["a"], [["a"]]).signature
        for name in ("ignore_case", "ignore_blanks", "ignore_number_forms")
    }
    assert len(signatures) == 3
    assert ExactMatch().score(["a"], [["a"]]).signature == "ignored:width,case,blanks,number forms"
    assert Bleu(n=2).score(["a"], [["a"]]).signature.endswith("|n:2")


@pytest.mark.parametrize("name", METRICS)
@given(answers=st.lists(st.tuples(TEXT, TEXT.filter(str.strip)), min_size=1, max_size=4))
def test_bounds(name, answers):
    said, wanted = zip(*answers, strict=True)
    found = METRICS[name].score(said, [[each] for each in wanted])
    assert set(found.total) == set(found.items) == set(METRICS[name].names)
    for values in (found.items, {key: [value] for key, value in found.total.items()}):
        assert all(0 <= value <= MOST.get(name, 1.0) for each in values.values() for value in each)
    assert all(len(each) == len(answers) for each in found.items.values())
    assert METRICS[name].score(said, [[each] for each in wanted]) == found


@pytest.mark.parametrize("name", METRICS)
def test_nothing_said_is_worth_nothing_and_the_same_everything(name):
    text = "您好，iPhone 15 明天发货"
    nothing, everything = (METRICS[name].score([each], [[text]]) for each in ("", text))
    assert set(nothing.total.values()) == {0} and [*nothing.items.values()] == [[0]] * len(nothing.items)
    assert [*everything.total.values()] == pytest.approx([MOST.get(name, 1.0)] * len(everything.total))


@pytest.mark.parametrize("name", METRICS)
def test_what_cannot_be_compared_is_refused(name):
    for wanted, said in (
        ([["a"], []], "answer 2 of 2 has no reference"),
        ([["a"], ["b", " \n"]], "answer 2 of 2 has an empty"),
    ):
        with pytest.raises(UserError, match=said):
            METRICS[name].score(["x", "y"], wanted)
    with pytest.raises(UserError, match="no answers"):
        METRICS[name].score([], [])
    with pytest.raises(ValueError, match="2 answers, 1 lists"):
        METRICS[name].score(["x", "y"], [["a"]])
    with pytest.raises(ValueError, match="list of texts"):
        METRICS[name].score(["x"], ["a"])


def test_n_is_a_number_from_1():
    with pytest.raises(UserError, match=r"metric\.bleu\.n"):
        Bleu(n=0)
