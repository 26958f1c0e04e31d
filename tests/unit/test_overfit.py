"""When a training has learned too much."""

from __future__ import annotations

import pytest

from mlops_llm.errors import UserError
from mlops_llm.train.overfit import Overfit, exhausted, first, reason

FALLING = {step: 5.0 - step / 100 for step in range(1, 101)}
RISING = {step: step / 100 for step in range(1, 101)}


def held(*losses: float) -> dict[int, float]:
    return {10 * place: loss for place, loss in enumerate(losses, 1)}


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ((2.0, 1.0, 1.1, 1.2, 1.3), True),
        ((2.0, 1.0, 1.1, 1.2), False),  # it rose twice only
        ((2.0, 1.0, 1.1, 1.1, 1.3), False),
        ((1.3, 1.2, 1.1, 1.0), False),
        ((1.0, 1.1, 1.2, 1.3, 1.2), False),  # and fell again
    ],
)
def test_the_held_out_loss_rises_while_the_training_loss_falls(losses, said):
    found = reason(FALLING, held(*losses), {}, False, Overfit())
    assert bool(found) is said
    if said:
        assert (
            found
            == "the held-out loss rose 3 times in a row (1.0000 at step 20, 1.3000 at step 50) while the training loss fell"
        )


def test_where_the_training_loss_rises_too_it_is_something_else():
    assert not reason(RISING, held(2.0, 1.0, 1.1, 1.2, 1.3), {}, False, Overfit())


@pytest.mark.parametrize(
    ("scores", "higher", "said"),
    [
        ((0.5, 0.6, 0.5, 0.4, 0.3), True, True),
        ((0.5, 0.6, 0.5, 0.4, 0.3), False, False),
        ((0.5, 0.6, 0.7, 0.8, 0.9), False, True),
        ((0.6, 0.5, 0.4, 0.4), True, False),
    ],
)
def test_the_deciding_metric_gets_worse_in_a_row(scores, higher, said):
    assert bool(reason({}, {}, held(*scores), higher, Overfit())) is said


def test_the_first_evaluation_is_told_and_later_ones_do_not_undo_it():
    losses = held(2.0, 1.0, 1.1, 1.2, 1.3, 0.5, 0.4)
    found = first(FALLING, losses, {}, False, Overfit())
    assert found is not None and found[0] == 50
    assert first(FALLING, held(3.0, 2.0, 1.0), {}, False, Overfit()) is None


def test_how_many_evaluations_is_a_setting():
    assert reason(FALLING, held(2.0, 1.0, 1.1), {}, False, Overfit(evaluations=1))
    assert reason({}, {}, held(0.5, 0.4), True, Overfit(worse=1))


def test_patience_ends():
    scores = held(0.5, 0.9, 0.8, 0.85, 0.7)
    assert exhausted(scores, True, 3) == "no better value in 3 evaluations since step 20 (overfit.patience)"
    assert not exhausted(scores, True, 4) and not exhausted(scores, True, None)
    assert exhausted(held(0.5, 0.5, 0.5), True, 2)  # an equal value is no better one


@pytest.mark.parametrize("wrong", [{"evaluations": 0}, {"worse": 0}, {"patience": 0}])
def test_ranges(wrong):
    with pytest.raises(UserError):
        Overfit(**wrong)


def test_a_value_that_is_no_number_is_no_best():
    assert not exhausted({1: float("nan"), 2: 3.0, 3: 2.0, 4: 1.0}, False, 2)
