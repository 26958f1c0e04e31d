"""Metrics against sacrebleu and rouge_score themselves, on made-up texts."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from mlops_llm.eval.metrics.bleu import Bleu, Tokenize
from mlops_llm.eval.metrics.rouge import Rouge
from mlops_llm.eval.words import words

ENGLISH = ["the", "a", "cat", "Dog", "mat,", "it's", "3.5", "kg:", "U.S.A.", "well-known", "(really)", "snake_case", "100%"]
CHINESE = [*"您好请放心订单号明天发货退款，。！？…“”", "iPhone", "15", "OK", "3.5"]


def texts(pieces: list[str], blank: str, count: int) -> list[str]:
    return [blank.join(random.choices(pieces, k=random.randint(1, 25))) for _ in range(count)]


@pytest.fixture(autouse=True, scope="module")
def _same_texts_each_time() -> None:
    random.seed(7)


@pytest.mark.parametrize(("pieces", "blank", "split"), [(ENGLISH, " ", "13a"), (CHINESE, "", "zh")])
@pytest.mark.parametrize("tokenize", [Tokenize.auto, None])
def test_bleu_is_sacrebleus(pieces, blank, split, tokenize):
    sacrebleu = pytest.importorskip("sacrebleu")
    said, one, other = (texts(pieces, blank, 40) for _ in range(3))
    said[3] = ""
    found = Bleu(tokenize=tokenize or Tokenize[split]).score(said, list(zip(one, other, strict=True)))
    assert found.total["bleu"] == pytest.approx(sacrebleu.corpus_bleu(said, [one, other], tokenize=split).score, abs=1e-9)
    single = [sacrebleu.sentence_bleu(a, [b, c], tokenize=split).score for a, b, c in zip(said, one, other, strict=True)]
    assert found.items["bleu"] == pytest.approx(single, abs=1e-9)
    assert f"|tok:{split}|" in found.signature


def test_references_may_be_of_any_number():
    sacrebleu = pytest.importorskip("sacrebleu")
    said, one = (texts(ENGLISH, " ", 6) for _ in range(2))
    several = [[each, said[place]] if place % 2 else [each] for place, each in enumerate(one)]
    streams = [one, [wanted[1] if len(wanted) > 1 else None for wanted in several]]
    found = Bleu().score(said, several)
    assert found.total["bleu"] == pytest.approx(sacrebleu.corpus_bleu(said, streams).score, abs=1e-9)
    assert "nrefs:var" in found.signature


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
    found = Rouge().score(said, list(zip(one, other, strict=True)))
    for place, answer in enumerate(said):
        wanted = theirs.score_multi([one[place], other[place]], answer)
        for mine, name in (("rouge_1", "rouge1"), ("rouge_2", "rouge2"), ("rouge_l", "rougeL")):
            assert found.items[mine][place] == pytest.approx(wanted[name].fmeasure, abs=1e-12), (answer, name)


def test_rouge_of_chinese_counts_characters():
    said, one, other = (texts(CHINESE, "", 60) for _ in range(3))
    said[3] = ""
    found = Rouge().score(said, list(zip(one, other, strict=True)))
    for place, answer in enumerate(said):
        both = [by_hand(words(answer), words(wanted[place])) for wanted in (one, other)]
        best = [max(values) for values in zip(*both, strict=True)]
        assert [found.items[name][place] for name in Rouge.names] == pytest.approx(best, abs=1e-12), answer
