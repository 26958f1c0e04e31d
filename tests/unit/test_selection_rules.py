"""Which checkpoint the rules choose."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_llm.surgery.selection.rules import HELD_OUT, LOSS, RULES, Candidate, Rule, Seen, choose

BLEU = "score/bleu"


def higher(name: str) -> bool:
    return not name.endswith("loss")


def chosen(rule: Rule, rows, by=(HELD_OUT,), avoid: bool = True, **more):
    return choose(rows, RULES[rule], by, higher, avoid_overfit=avoid, **more)


def row(step: int, loss: float = 1.0, held: float = 1.0, bleu: float = 0.0, **more) -> Candidate:
    return Candidate(f"checkpoint-{step}", step, {LOSS: loss, HELD_OUT: held, BLEU: bleu}, **more)


COURSE = [
    row(10, 3.0, 2.9, 0.10),
    row(20, 2.0, 2.0, 0.30),
    row(30, 1.5, 1.8, 0.28),
    row(40, 1.0, 2.1, 0.31, overfit="the held-out loss rose"),
]


@pytest.mark.parametrize(
    ("rule", "by", "avoid", "step"),
    [
        (Rule.best, (HELD_OUT,), True, 30),
        (Rule.best, (BLEU,), True, 20),
        (Rule.best, (BLEU,), False, 40),
        (Rule.best, (HELD_OUT, BLEU), True, 30),
        (Rule.best, (BLEU, HELD_OUT), True, 20),
        (Rule.lowest_loss, (BLEU,), False, 40),
        (Rule.lowest_loss, (BLEU,), True, 30),
        (Rule.best_validation, (BLEU,), True, 30),
        (Rule.latest, (BLEU,), False, 40),
        (Rule.latest, (BLEU,), True, 30),
    ],
)
def test_rules_on_a_known_course(rule, by, avoid, step):
    found = chosen(rule, COURSE, by, avoid)
    assert found.chosen and found.chosen.step == step and found.reasons
    assert ("checkpoint-40" in found.left_out) == avoid


def seen(p: float) -> Seen:
    return Seen(p, 40, 0.125)


def test_the_earliest_is_the_first_that_the_test_cannot_tell_from_the_best():
    p = {10: 0.001, 20: 0.2}
    found = chosen(Rule.earliest, COURSE, (HELD_OUT,), test=lambda best, other, name: seen(p[other.step]))
    assert found.chosen and found.chosen.step == 20 and "p = 0.2" in found.reasons[0]
    found = chosen(Rule.earliest, COURSE, (HELD_OUT,), test=lambda best, other, name: seen(0.001))
    assert found.chosen and found.chosen.step == 30 and "every earlier one is significantly worse" in found.reasons[0]
    untold = chosen(Rule.earliest, COURSE, (HELD_OUT,))
    assert untold.chosen and untold.chosen.step == 30


def test_the_earliest_says_what_its_test_cannot_see():
    found = chosen(Rule.earliest, COURSE, (HELD_OUT,), test=lambda best, other, name: seen(0.2))
    assert "differences under 0.12 are missed by 40 samples in one of five cases and more" in found.reasons
    found = chosen(Rule.earliest, COURSE, (HELD_OUT,), test=lambda best, other, name: Seen(0.2, 40, None))
    assert "40 samples do not say how large a difference they would show" in found.reasons


def test_what_was_not_tested_is_unknown_and_not_worse():
    found = chosen(Rule.earliest, COURSE, (HELD_OUT,))
    assert not any("worse" in each for each in found.reasons)
    assert "unknown, since no samples of both are there: checkpoint-10, checkpoint-20" in found.reasons
    some = chosen(Rule.earliest, COURSE, (HELD_OUT,), test=lambda best, other, name: seen(0.001) if other.step == 10 else None)
    assert "1 of 2 earlier ones are significantly worse" in some.reasons[0]
    assert "unknown, since no samples of both are there: checkpoint-20" in some.reasons


def test_where_all_are_overfit_none_is_left_out_and_it_is_said():
    rows = [row(10, held=2.0, overfit="x"), row(20, held=1.0, overfit="x")]
    found = chosen(Rule.best, rows)
    assert found.chosen and found.chosen.step == 20 and "every checkpoint is overfit" in found.reasons[-1]


def test_what_cannot_be_taken_keeps_its_reason():
    rows = [
        row(10),
        row(20, held=0.1, gone="its files were removed"),
        Candidate("checkpoint-30", 30, {LOSS: 1.0}),
        row(40, held=float("nan")),
    ]
    found = chosen(Rule.best, rows)
    assert found.chosen and found.chosen.step == 10
    assert found.left_out == {
        "checkpoint-20": "its files were removed",
        "checkpoint-30": "has no eval/loss",
        "checkpoint-40": "has no eval/loss",
    }
    assert chosen(Rule.best, rows[1:]).chosen is None


ROWS = st.lists(
    st.tuples(st.floats(0, 10), st.floats(0, 10), st.floats(0, 1), st.booleans(), st.booleans(), st.integers(0, 10**6)),
    min_size=1,
    max_size=8,
    unique_by=lambda each: each[-1],
).map(
    lambda found: [
        row(step, loss, held, bleu, overfit="x" if over else "", gone="x" if gone else "")
        for loss, held, bleu, over, gone, step in found
    ]
)


@given(
    ROWS,
    st.sampled_from(list(Rule)),
    st.permutations(range(8)),
    st.lists(st.sampled_from([LOSS, HELD_OUT, BLEU]), min_size=1, unique=True),
)
def test_laws(rows, rule, order, by):
    found = chosen(rule, rows, by)
    there = [each for each in rows if not each.gone]
    if not there:
        assert found.chosen is None
        return
    assert found.chosen in there and found.chosen.name not in found.left_out
    shuffled = [rows[place] for place in order if place < len(rows)]
    assert chosen(rule, shuffled, by).chosen == found.chosen
    if any(not each.overfit for each in there):
        assert not found.chosen.overfit
    left = [each for each in there if each.name not in found.left_out]
    assert chosen(rule, left, by).chosen == found.chosen
    if rule is Rule.best:  # nothing is better in all that counts
        values = {each.name: [(1 if higher(name) else -1) * each.values[name] for name in by] for each in left}
        mine = values[found.chosen.name]
        assert not any(all(o > m for o, m in zip(other, mine, strict=True)) for other in values.values())
    if rule is Rule.latest:
        assert found.chosen.step == max(each.step for each in left)
