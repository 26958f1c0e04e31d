"""Metrics by hand, at their bounds, and on what is hard: Chinese, mixed texts, nothing at all."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_llm.component import build, groups, load
from mlops_llm.data.grading import Counts
from mlops_llm.errors import UserError
from mlops_llm.eval import interval
from mlops_llm.eval.metric import Item, Likelihood, Need
from mlops_llm.eval.metrics.bleu import Bleu, Tokenize
from mlops_llm.eval.metrics.contains import Contains
from mlops_llm.eval.metrics.exact_match import ExactMatch
from mlops_llm.eval.metrics.label import Label, predicted
from mlops_llm.eval.metrics.math_equal import MathEqual
from mlops_llm.eval.metrics.perplexity import Of, Perplexity
from mlops_llm.eval.metrics.regex import Regex
from mlops_llm.eval.metrics.rouge import Rouge
from mlops_llm.eval.words import tokenization, words

load("mlops_llm.eval.metrics")
ALL = {name: build("metric", name) for name in groups()["metric"]}
TEXTS = {name: ALL[name] for name in ("bleu", "chrf", "contains", "exact_match", "rouge")}
"""Metrics that compare texts of any kind."""
TEXT = st.text("天气好a B9，。 .!😀ｅ三", max_size=12)


def items(answers, references):
    return [Item(answer, wanted) for answer, wanted in zip(answers, references, strict=True)]


def bleu(answer, *wanted, **how):
    return Bleu(**how).score([Item(answer, wanted)]).total["bleu"]


def rouge(answer, *wanted):
    total = Rouge().score([Item(answer, wanted)]).total
    return [pytest.approx(total[name], abs=1e-12) for name in ("rouge_1", "rouge_2", "rouge_l")]


def same(one, other, **how):
    return ExactMatch(**how).score([Item(one, [other])]).total["exact_match"] == 1


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
    assert all(value > 0.6 for value in Rouge().score([Item(one, [other])]).total.values())


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
    assert "tok:13a" in Bleu().score([Item("中文", ["English only"])]).signature
    assert "tok:zh" in Bleu().score([Item("English", ["中文"])]).signature


def test_the_corpus_is_not_the_mean():
    found = Bleu().score(items(["我喜欢喝茶", "完全不同的话"], [["我喜欢喝茶"], ["天气很好啊"]]))
    assert found.items["bleu"][0] == pytest.approx(100)
    assert found.total["bleu"] != pytest.approx(sum(found.items["bleu"]) / 2, abs=1)
    short = Bleu().score([Item("8", ["8"])])
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
        ExactMatch(**{name: False}).score([Item("a", ["a"])]).signature
        for name in ("ignore_case", "ignore_blanks", "ignore_number_forms")
    }
    assert len(signatures) == 3
    assert ExactMatch().score([Item("a", ["a"])]).signature == "ignored:width,case,blanks,number forms"
    assert Bleu(n=2).score([Item("a", ["a"])]).signature.endswith("|n:2")


@pytest.mark.parametrize("name", TEXTS)
@given(answers=st.lists(st.tuples(TEXT, TEXT.filter(str.strip)), min_size=1, max_size=4))
def test_bounds(name, answers):
    rows = [Item(said, [wanted]) for said, wanted in answers]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interval, "RESAMPLES", 5)
        found, again = (TEXTS[name].score(rows) for _ in range(2))
    assert set(found.total) == set(found.items) == set(TEXTS[name].names)
    for values in (found.items, found.intervals, {key: [value] for key, value in found.total.items()}):
        assert all(0 <= value <= TEXTS[name].most for each in values.values() for value in each)
    assert all(len(each) == len(answers) for each in found.items.values())
    assert again == found


@pytest.mark.parametrize("name", TEXTS)
def test_nothing_said_is_worth_nothing_and_the_same_everything(name):
    text = "您好，iPhone 15 明天发货"
    nothing, everything = (TEXTS[name].score([Item(each, [text])]) for each in ("", text))
    assert set(nothing.total.values()) == {0} and [*nothing.items.values()] == [[0]] * len(nothing.items)
    assert [*everything.total.values()] == pytest.approx([TEXTS[name].most] * len(everything.total))


@pytest.mark.parametrize("name", [*TEXTS, "math_equal", "perplexity"])
def test_what_cannot_be_compared_is_refused_before_anything_is_asked(name):
    for ask in (ALL[name].check, ALL[name].score):
        for wanted, said in (
            ([["a"], []], "answer 2 of 2 has no reference"),
            ([["a"], ["b", " \n"]], "answer 2 of 2 has an empty"),
        ):
            with pytest.raises(UserError, match=said):
                ask(items(["x", "y"], wanted))
        with pytest.raises(UserError, match="no answers"):
            ask([])
        with pytest.raises(ValueError, match="list of texts"):
            ask(items(["x"], ["a"]))


@pytest.mark.parametrize("name", sorted(set(ALL) - {"hf", "regex"}))
def test_every_metric_keeps_to_its_protocol(name):
    metric, know = ALL[name], Likelihood([-1.0, -2.0], 5)
    rows = [Item(each, [each], each, 0.5, 3, know, know) for each in ("8", "九")]
    metric.check([Item("", row.references, row.label) for row in rows])
    found = metric.score(rows)
    assert set(found.total) == set(metric.names) and set(found.items) <= set(metric.names) and found.signature
    assert all(len(values) == 2 for values in found.items.values())
    totals = {key for key in metric.names if key not in found.items}
    corpus = {key for key in found.items if found.total[key] != pytest.approx(sum(found.items[key]) / 2)}
    assert totals | corpus <= set(found.intervals), "an interval that does not follow from the single values"
    assert isinstance(metric.needs, Need) and metric.higher_is_better in (True, False, None)


def test_n_is_a_number_from_1():
    with pytest.raises(UserError, match=r"metric\.bleu\.n"):
        Bleu(n=0)


def contains(answer, *wanted, **how):
    return Contains(**how).score([Item(answer, wanted)]).total["contains"] == 1


def test_a_reference_stands_in_an_answer_as_words():
    assert (
        contains("答案是８个。", "8") and contains("It is Paris, I think", "paris") and contains("订单 明天发货", "明天 发货")
    )
    for answer in ("18", "1.8", "8.5", "1,800 and 08"):
        assert not contains(answer, "8")
    assert not contains("therapist", "rapist") and contains("therapist", "rapist", whole_words=False)
    assert contains("x¥5y", "¥5y") and not contains("", "a")
    assert contains("a and c", "a", "b") and not contains("a and c", "a", "b", all=True)
    assert contains("b or a", "a", "b", all=True)
    texts = [Contains(**how).score([Item("a", ["a"])]).signature for how in ({}, {"whole_words": False}, {"all": True})]
    assert len(set(texts)) == 3


def test_a_pattern_is_found_or_tells_the_answer():
    plain, telling = Regex(r"^您好"), Regex(r"答案是\s*([\d,]+)")
    assert (plain.needs, telling.needs) == (Need.nothing, Need.reference)
    assert plain.score([Item("您好，在"), Item("在，您好")]).items["regex"] == [1, 0]
    rows = [Item(each, ["1299"]) for each in ("答案是 1,299 元", "答案是1299，不，答案是 8", "1299", "")]
    assert telling.score(rows).items["regex"] == [1, 0, 0, 0]
    assert Regex("(a)?b").score([Item("b", ["a"])]).total == {"regex": 0}
    with pytest.raises(UserError, match="no reference"):
        telling.check([Item("")])
    with pytest.raises(UserError, match=r"metric\.regex\.pattern: is empty"):
        Regex().check([Item("")])
    with pytest.raises(UserError, match=r"metric\.regex\.pattern: is no pattern"):
        Regex("(")


def test_a_pattern_that_never_ends_is_stopped(monkeypatch):
    monkeypatch.setattr("mlops_llm.eval.metrics.regex._SECONDS", 0.05)
    with pytest.raises(UserError, match=r"in answer 2 of 2"):
        Regex(r"^(a|a)*(\w+)*$").score([Item("b", ["b"]), Item("a" * 60 + "!", ["a"])])


def right(answer, reference, **how):
    return MathEqual(**how).score([Item(answer, [reference])]).total["math_equal"] == 1


def test_solutions_are_compared_by_value():
    derivation = "48 / 2 = 24, 48 + 24 = 72\n#### 72"
    assert right("So she sold 72 clips.", derivation) and right(r"\boxed{72.0}", "72") and right("一共七十二个", "72")
    assert right("答案是 3/4", "0.75") and right("75%", r"\frac{3}{4}") and right("x=2 or 1", "1")
    assert not right("48 + 24", derivation) and not right("", "72") and not right(r"72 \boxed{72", "72")
    assert not right("72", "72", counts=Counts.boxed) and right(r"\boxed{72}", "72", counts=Counts.boxed)
    assert MathEqual().score([Item("8", ["7", "8"])]).total == {"math_equal": 1}
    with pytest.raises(UserError, match="the reference of answer 2 of 2: it contradicts itself"):
        MathEqual().check(items(["", ""], [["1"], ["#### 1\n#### 2"]]))


LABELS = ["物流", "国际物流", "A", "not spam", "spam", "spam mail"]


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("物流", 0), ("“物流”。", 0), ("类别：**国际物流**", 1), ("这是物流问题", 0), ("物流，不是国际物流", None),
        ("不知道", None), ("", None), ("答案选A吧", 2), ("a", 2), ("a thing", None), ("Not Spam!", 3), ("it is not  spam", 3),
        ("This is SPAM.", 4), ("spammer", None), ("spam spam", 4), ("it is spam mail", 5),
    ],
)  # fmt: skip
def test_the_class_that_an_answer_names(answer, found):
    assert predicted(answer, LABELS) == found


def test_labels_are_counted_by_class():
    told = [("物流", "物流"), ("物流", "售前"), ("售前", "是售前"), ("售后", "物流"), ("物流", "不知道")]
    found = Label().score([Item(answer, label=label) for label, answer in told])
    assert found.items == {"label_accuracy": [1, 0, 1, 0, 0]} and found.total["label_accuracy"] == 0.4
    f1 = {"售前": 2 / 3, "售后": 0, "物流": 2 / 5}
    assert found.total["label_macro_f1"] == pytest.approx(sum(f1.values()) / 3)
    low, high = found.intervals["label_macro_f1"]
    assert 0 <= low < found.total["label_macro_f1"] < high <= 1
    table = found.tables["confusion"]
    assert table.columns == ["class", "售前", "售后", "物流", "(unknown)"]
    assert table.rows == [["售前", 1, 0, 0, 0], ["售后", 0, 0, 1, 0], ["物流", 1, 0, 1, 1]]
    assert found.tables["classes"].rows[2] == ["物流", 3, 0.5, 0.3333, 0.4]
    assert found.tables["classes"].rows[1] == ["售后", 1, None, 0.0, 0.0]


def test_classes_may_be_given():
    rows = [Item("A", label="a"), Item("c", label="B")]
    found = Label(["A", "B", "c", "d"]).score(rows)
    assert found.total == {"label_accuracy": 0.5, "label_macro_f1": pytest.approx(1 / 3)}, "no row or answer is d"
    assert Label().score(rows).total == {"label_accuracy": 0.5, "label_macro_f1": 0.5}
    with pytest.raises(UserError, match=r"metric\.label\.classes: the label of row 2 of 2, 'B', is none of the classes"):
        Label(["A"]).check(rows)
    for label in (None, " "):
        with pytest.raises(UserError, match="answer 2 of 2 has no label"):
            Label().check([Item("", label="A"), Item("", label=label)])


def test_perplexity_weighs_tokens_and_bits_weigh_bytes():
    rows = [
        Item("", ["a"], whole=Likelihood([-9.0] * 8, 8), wanted=Likelihood([-1.0], 1)),
        Item("", ["bcd"], whole=Likelihood([-9.0] * 8, 8), wanted=Likelihood([-2.0, -2.0, -4.0], 12)),
    ]
    found = Perplexity().score(rows)
    assert found.total == {"perplexity": pytest.approx(math.exp(9 / 4)), "bits_per_byte": pytest.approx(9 / 13 / math.log(2))}
    assert found.items["perplexity"] == pytest.approx([math.exp(1), math.exp(8 / 3)])
    assert found.items["bits_per_byte"] == pytest.approx([1 / math.log(2), 8 / 12 / math.log(2)])
    assert found.intervals["perplexity"] == pytest.approx((math.exp(1), math.exp(8 / 3)))
    whole = Perplexity(Of.whole).score(rows)
    assert whole.total["perplexity"] == pytest.approx(math.exp(9)) and whole.signature != found.signature
    hopeless = Perplexity().score([Item("", ["a"], wanted=Likelihood([-math.inf, -800.0], 2))])
    assert hopeless.total["perplexity"] == math.inf
    for wanted, said in ((None, "is not known"), (Likelihood([], 0), "is that of no token")):
        with pytest.raises(UserError, match=f"the likelihood of row 2 of 2 {said}"):
            Perplexity().score([rows[0], Item("", ["a"], wanted=wanted)])


def test_what_is_measured_of_answers():
    rows = [Item("您好", seconds=second, tokens=2) for second in (0.1, 0.2, 0.3, 1.4)]
    found = ALL["latency"].score(rows)
    assert [found.total[name] for name in ALL["latency"].names] == pytest.approx([0.5, 0.25, 1.235])
    assert "answers of one batch:equal shares of its time" in found.signature
    assert found.items == {"latency_mean": [0.1, 0.2, 0.3, 1.4]} and set(found.intervals) == {"latency_p50", "latency_p95"}
    assert ALL["length"].score(rows).total == {"length_tokens": 2, "length_characters": 2}
    with pytest.raises(UserError, match="no answers"):
        ALL["length"].check([])


def test_a_corpus_score_has_an_interval_and_one_answer_none():
    said = items(["我喜欢喝茶", "完全不同的话", "您好请问有货吗"], [["我喜欢喝水"], ["天气很好啊"], ["您好请问有货"]])
    for name in ("bleu", "chrf"):
        found = ALL[name].score(said)
        low, high = found.intervals[name]
        assert min(found.items[name]) <= low < found.total[name] < high <= max(found.items[name]) + 1e-9
        assert ALL[name].score(said[:1]).intervals == {}
