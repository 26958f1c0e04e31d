"""Metrics against sacrebleu and rouge_score themselves, on made-up texts."""

from __future__ import annotations

import random

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


class Words:
    """Our words as rouge_score takes a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


@pytest.mark.parametrize(("pieces", "blank", "ours"), [(ENGLISH, " ", False), (CHINESE, "", True)])
def test_rouge_is_that_of_rouge_score(pieces, blank, ours):
    scorer = pytest.importorskip("rouge_score.rouge_scorer")
    theirs = scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=Words() if ours else None)
    said, one, other = (texts(pieces, blank, 60) for _ in range(3))
    said[3] = ""
    found = Rouge().score(said, list(zip(one, other, strict=True)))
    for place, answer in enumerate(said):
        wanted = theirs.score_multi([one[place], other[place]], answer)
        for mine, name in (("rouge_1", "rouge1"), ("rouge_2", "rouge2"), ("rouge_l", "rougeL")):
            assert found.items[mine][place] == pytest.approx(wanted[name].fmeasure, abs=1e-12), (answer, name)
