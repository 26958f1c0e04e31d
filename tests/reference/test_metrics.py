"""Metrics against sacrebleu, rouge_score, scikit-learn and lm-eval themselves, on made-up texts."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from mlops_llm.eval import interval
from mlops_llm.eval.metric import Item, Likelihood
from mlops_llm.eval.metrics.bleu import Bleu, Tokenize
from mlops_llm.eval.metrics.chrf import Chrf
from mlops_llm.eval.metrics.exact_match import ExactMatch
from mlops_llm.eval.metrics.label import Label
from mlops_llm.eval.metrics.perplexity import Perplexity
from mlops_llm.eval.metrics.rouge import Rouge
from mlops_llm.eval.words import words

ENGLISH = ["the", "a", "cat", "Dog", "mat,", "it's", "3.5", "kg:", "U.S.A.", "well-known", "(really)", "snake_case", "100%"]
CHINESE = [*"您好请放心订单号明天发货退款，。！？…“”", "iPhone", "15", "OK", "3.5"]


def texts(pieces: list[str], blank: str, count: int) -> list[str]:
    return [blank.join(random.choices(pieces, k=random.randint(1, 25))) for _ in range(count)]


def items(answers, references):
    return [Item(answer, wanted) for answer, wanted in zip(answers, references, strict=True)]


@pytest.fixture(autouse=True, scope="module")
def _same_texts_each_time() -> None:
    random.seed(7)


@pytest.mark.parametrize(("pieces", "blank", "split"), [(ENGLISH, " ", "13a"), (CHINESE, "", "zh")])
@pytest.mark.parametrize("tokenize", [Tokenize.auto, None])
def test_bleu_is_sacrebleus(pieces, blank, split, tokenize):
    sacrebleu = pytest.importorskip("sacrebleu")
    said, one, other = (texts(pieces, blank, 40) for _ in range(3))
    said[3] = ""
    found = Bleu(tokenize=tokenize or Tokenize[split]).score(items(said, zip(one, other, strict=True)))
    assert found.total["bleu"] == pytest.approx(sacrebleu.corpus_bleu(said, [one, other], tokenize=split).score, abs=1e-9)
    single = [sacrebleu.sentence_bleu(a, [b, c], tokenize=split).score for a, b, c in zip(said, one, other, strict=True)]
    assert found.items["bleu"] == pytest.approx(single, abs=1e-9)
    assert f"|tok:{split}|" in found.signature


def test_references_may_be_of_any_number():
    sacrebleu = pytest.importorskip("sacrebleu")
    said, one = (texts(ENGLISH, " ", 6) for _ in range(2))
    several = [[each, said[place]] if place % 2 else [each] for place, each in enumerate(one)]
    streams = [one, [wanted[1] if len(wanted) > 1 else None for wanted in several]]
    found = Bleu().score(items(said, several))
    assert found.total["bleu"] == pytest.approx(sacrebleu.corpus_bleu(said, streams).score, abs=1e-9)
    assert "nrefs:var" in found.signature


@pytest.mark.parametrize(("pieces", "blank"), [(ENGLISH, " "), (CHINESE, "")])
@pytest.mark.parametrize(("words", "beta"), [(0, 2), (2, 2), (0, 3)])
def test_chrf_is_sacrebleus(pieces, blank, words, beta):
    sacrebleu = pytest.importorskip("sacrebleu")
    said, one, other = (texts(pieces, blank, 30) for _ in range(3))
    said[3] = ""
    found = Chrf(words=words, beta=beta).score(items(said, zip(one, other, strict=True)))
    theirs = sacrebleu.CHRF(word_order=words, beta=beta)
    assert found.total["chrf"] == pytest.approx(theirs.corpus_score(said, [one, other]).score, abs=1e-9)
    single = [theirs.sentence_score(a, [b, c]).score for a, b, c in zip(said, one, other, strict=True)]
    assert found.items["chrf"] == pytest.approx(single, abs=1e-9)
    assert found.signature.startswith(f"nrefs:2|case:mixed|eff:yes|nc:6|nw:{words}|")


@pytest.mark.parametrize("metric", [Bleu(), Chrf()])
def test_intervals_are_those_of_corpora_drawn_and_scored_anew(metric, monkeypatch):
    sacrebleu, numpy = pytest.importorskip("sacrebleu"), pytest.importorskip("numpy")
    monkeypatch.setattr(interval, "RESAMPLES", 25)
    said, wanted = (texts(ENGLISH, " ", 15) for _ in range(2))
    scored = sacrebleu.corpus_bleu if isinstance(metric, Bleu) else sacrebleu.corpus_chrf
    draws = numpy.random.default_rng(0).integers(0, 15, (25, 15))
    values = [scored([said[each] for each in drawn], [[wanted[each] for each in drawn]]).score for drawn in draws]
    (found,) = metric.score(items(said, ([each] for each in wanted))).intervals.values()
    assert found == pytest.approx(tuple(numpy.percentile(values, [2.5, 97.5])), abs=1e-9)


def test_labels_are_counted_as_scikit_learn_does():
    sklearn = pytest.importorskip("sklearn.metrics")
    classes = ["物流", "售前", "spam", "B", "其他"]
    true, said = (random.choices(classes[:4], k=80), random.choices([*classes, "?"], k=80))
    found = Label(classes).score([Item(f"“{answer}”", label=label) for answer, label in zip(said, true, strict=True)])
    assert found.total["label_accuracy"] == pytest.approx(sklearn.accuracy_score(true, said))
    wanted = sklearn.f1_score(true, said, labels=classes, average="macro", zero_division=0)
    assert found.total["label_macro_f1"] == pytest.approx(wanted)
    counts = sklearn.confusion_matrix(true, said, labels=[*classes, "?"])
    assert [row[1:] for row in found.tables["confusion"].rows] == counts[:-1].tolist()


def test_the_same_texts_have_the_values_of_lm_eval():
    theirs = pytest.importorskip("lm_eval.api.metrics")
    said, wanted = (texts(ENGLISH, " ", 30) for _ in range(2))
    rows, pairs = items(said, ([each] for each in wanted)), list(zip(wanted, said, strict=True))
    assert Bleu().score(rows).total["bleu"] == pytest.approx(theirs.bleu(pairs))
    assert Chrf().score(rows).total["chrf"] == pytest.approx(theirs.chrf(pairs))
    assert Chrf(words=2).score(rows).total["chrf"] == pytest.approx(theirs.chrfpp(pairs))
    same = [said[0], said[1].upper(), said[2][:-1]]
    found = ExactMatch(ignore_blanks=False, ignore_number_forms=False).score(items(same, ([each] for each in said[:3])))
    wanted_share = theirs.exact_match_hf_evaluate(same, said[:3], ignore_case=True)["exact_match"]
    assert found.total["exact_match"] == pytest.approx(wanted_share) == pytest.approx(2 / 3)
    likely = [Likelihood([-random.random() * 5 for _ in range(length)], length * 3) for length in (1, 7, 30)]
    totals = Perplexity().score([Item("", ["a"], wanted=each) for each in likely]).total
    by_token, by_byte = (
        [(sum(each.logprobs), of(each)) for each in likely] for of in (lambda one: len(one.logprobs), lambda one: one.bytes)
    )
    assert totals["perplexity"] == pytest.approx(theirs.weighted_perplexity(by_token))
    assert totals["bits_per_byte"] == pytest.approx(theirs.bits_per_byte(by_byte))


def f1(shared: int, said: int, wanted: int) -> float:
    return 2 * shared / (said + wanted) if shared else 0.0


def by_hand(said: list[str], wanted: list[str]) -> list[float]:
    """ROUGE-1, ROUGE-2 and ROUGE-L by counting n-grams and filling the table of common subsequences."""
    grams = [[Counter(zip(*(each[place:] for place in range(n)), strict=False)) for each in (said, wanted)] for n in (1, 2)]
    table = [[0] * (len(wanted) + 1) for _ in range(len(said) + 1)]
    for a, one in enumerate(said):
        for b, other in enumerate(wanted):
            table[a + 1][b + 1] = table[a][b] + 1 if one == other else max(table[a][b + 1], table[a + 1][b])
    counted = [f1((one & other).total(), one.total(), other.total()) for one, other in grams]
    return [*counted, f1(table[-1][-1], len(said), len(wanted))]


def test_rouge_of_ascii_is_that_of_rouge_score_with_its_own_words():
    scorer = pytest.importorskip("rouge_score.rouge_scorer")
    theirs = scorer.RougeScorer(["rouge1", "rouge2", "rougeL"])
    said, one, other = (texts(ENGLISH, " ", 60) for _ in range(3))
    said[3] = ""
    found = Rouge().score(items(said, zip(one, other, strict=True)))
    for place, answer in enumerate(said):
        wanted = theirs.score_multi([one[place], other[place]], answer)
        for mine, name in (("rouge_1", "rouge1"), ("rouge_2", "rouge2"), ("rouge_l", "rougeL")):
            assert found.items[mine][place] == pytest.approx(wanted[name].fmeasure, abs=1e-12), (answer, name)


def test_rouge_of_chinese_counts_characters():
    said, one, other = (texts(CHINESE, "", 60) for _ in range(3))
    said[3] = ""
    found = Rouge().score(items(said, zip(one, other, strict=True)))
    for place, answer in enumerate(said):
        both = [by_hand(words(answer), words(wanted[place])) for wanted in (one, other)]
        best = [max(values) for values in zip(*both, strict=True)]
        assert [found.items[name][place] for name in Rouge.names] == pytest.approx(best, abs=1e-12), answer
