"""Laws of merges, over shapes and number formats, zero and parallel tensors among them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from mlops_llm import component
from mlops_llm.surgery.merge.dare import draw
from mlops_llm.surgery.merge.pieces import PIECE
from mlops_llm.surgery.merge.slerp import between, slerp
from mlops_llm.surgery.method import Target
from mlops_llm.surgery.ops.average import Average
from mlops_llm.surgery.ops.ema import shares
from mlops_llm.surgery.ops.merge_dare import MergeDare
from mlops_llm.surgery.ops.merge_linear import MergeLinear
from mlops_llm.surgery.ops.merge_slerp import MergeSlerp
from mlops_llm.surgery.ops.merge_task_arithmetic import MergeTaskArithmetic
from mlops_llm.surgery.ops.merge_ties import Form, MergeTies

component.load("mlops_llm.surgery.ops")
SHAPES = st.sampled_from([(1,), (7,), (3, 5), (2, 3, 4), (64, 33)])
DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])
METHODS = [
    MergeLinear,
    Average,
    MergeSlerp,
    MergeTaskArithmetic,
    MergeTies,
    lambda weights: MergeTies(weights=weights, form=Form.authors),
    lambda weights: MergeDare(weights=weights, drop_rate=0.5),
    lambda weights: MergeDare(weights=weights, drop_rate=0.5, ties=True, normalize=True),
]


@st.composite
def tensors(draw, count=3):
    """Tensors of one shape and format: ordinary ones, zero, parallel to the first, opposite to it."""
    shape, dtype, seed = draw(SHAPES), draw(DTYPES), draw(st.integers(0, 10_000))
    coins = torch.Generator().manual_seed(seed)
    found = [torch.randn(shape, generator=coins) for _ in range(count)]
    for place in range(1, count):
        how = draw(st.sampled_from(["random", "random", "zero", "parallel", "opposite", "equal"]))
        factor = {"zero": 0.0, "parallel": 2.5, "opposite": -1.5, "equal": 1.0}.get(how)
        found[place] = found[place] if factor is None else found[0] * factor
    return [each.to(dtype) for each in found]


def close(found, wanted, atol=1e-5):
    torch.testing.assert_close(found.float(), wanted.float(), rtol=1e-5, atol=atol)


@given(tensors())
def test_all_weight_on_the_first_gives_the_first(found):
    base, a, b = found
    one = [1.0, 0.0]
    assert torch.equal(MergeLinear(weights=one).merge([a, b]), a.float())
    assert torch.equal(MergeSlerp(weights=one).merge([a, b]), a.float())
    close(MergeTies(weights=one, density=1.0).merge([a, b], base), a)
    close(MergeDare(weights=one, drop_rate=0.0).merge([a, b], base), a)
    close(MergeDare(weights=one, drop_rate=0.0, ties=True).merge([a, b], base), a)
    close(MergeTaskArithmetic(weights=one).merge([a, b], base), a)


@given(tensors(2))
def test_slerp_ends_where_it_should(found):
    a, b = found
    assert torch.equal(MergeSlerp(t=0.0).merge([a, b]), a.float())
    assert torch.equal(MergeSlerp(t=1.0).merge([a, b]), b.float())


@given(tensors(2), st.floats(0.0, 1.0))
def test_slerp_stays_on_the_arc(found, t):
    """Of tensors of one length it keeps that length, unless they are opposite or zero."""
    a, b = (each.double() for each in found)
    if not float(a.norm()) or not float(b.norm()):
        return
    a, b = (a / a.norm()).float(), (b / b.norm()).float()
    merged, angle = slerp(t, a, b), between(a, b)
    assert torch.isfinite(merged).all()
    if angle is not None and angle > -0.99:
        assert float(merged.norm()) == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("other", [0.0, 2.0, -2.0], ids=["zero", "parallel", "opposite"])
def test_slerp_falls_back_to_the_straight_line(other):
    a = torch.randn(50, generator=torch.Generator().manual_seed(1))
    close(slerp(0.3, a, a * other), torch.lerp(a, a * other, 0.3))
    close(slerp(0.3, a * other, a), torch.lerp(a * other, a, 0.3))


@given(tensors(1))
def test_the_average_of_one_is_itself(found):
    assert torch.equal(Average().merge(found), found[0].float())
    assert torch.equal(MergeDare(drop_rate=0.0).merge(found, torch.zeros_like(found[0])), found[0].float())


@given(tensors(4), st.permutations([0, 1, 2]))
def test_the_order_of_models_of_equal_weight_does_not_matter(found, order):
    base, *models = found
    turned = [models[place] for place in order]
    for method in (MergeLinear(), MergeTaskArithmetic(weights=[0.5] * 3)):
        close(method.merge(models, base), method.merge(turned, base), atol=1e-4)
    # A sum that is 0 but for rounding elects either sign: no law holds there.
    changes = torch.stack([each.float() - base.float() for each in models]) / 3
    doubtful = (changes.sum(0).abs() < 1e-5) & (changes.abs().sum(0) > 0)
    for method in (MergeTies(density=1.0), MergeTies(form=Form.authors, density=1.0)):
        one, other = method.merge(models, base), method.merge(turned, base)
        close(one.masked_fill(doubtful, 0.0), other.masked_fill(doubtful, 0.0), atol=1e-4)


@pytest.mark.parametrize("make", METHODS)
@given(tensors(3))
def test_nothing_that_goes_in_is_changed_and_out_is_what_comes_out(make, found):
    base, *models = found
    before = [each.clone() for each in found]
    method = make(weights=[0.25, 0.75])
    wanted = method.merge(models, base, Target("a", 5))
    assert wanted.dtype is torch.float32 and torch.isfinite(wanted).all()
    for each, was in zip(found, before, strict=True):
        assert torch.equal(each, was)
    room = torch.full_like(base, float("nan"))
    assert method.merge(models, base, Target("a", 5, out=room)) is room
    assert torch.equal(room, wanted.to(base.dtype))


@given(tensors(3), st.integers(0, 5))
def test_dare_is_decided_by_seed_name_and_place(found, seed):
    base, a, b = found
    method = MergeDare(drop_rate=0.5)
    one = method.merge([a, b], base, Target("layer.1", seed))
    assert torch.equal(one, method.merge([a, b], base, Target("layer.1", seed)))
    assert len({draw(seed, name, place) for name in ("a", "b") for place in (0, 1)} | {draw(seed + 1, "a", 0)}) == 5


def test_dare_drops_others_with_another_seed_and_in_another_tensor():
    base, model = torch.zeros(1000), torch.ones(1000)
    dropped = [
        MergeDare(drop_rate=0.5).merge([model], base, Target(name, seed)) for name, seed in (("a", 0), ("a", 1), ("b", 0))
    ]
    assert not any(torch.equal(dropped[0], each) for each in dropped[1:])


@pytest.mark.parametrize("make", METHODS)
def test_more_than_a_piece_is_merged_as_less_is(make):
    """The end of a large tensor is treated as its beginning is."""
    coins = torch.Generator().manual_seed(0)
    base, a, b = (torch.randn(PIECE + 1000, generator=coins) for _ in range(3))
    merged = make(weights=[0.25, 0.75]).merge([a, b], base)
    assert merged.shape == base.shape and torch.isfinite(merged).all()
    assert float((merged[PIECE:] - base[PIECE:]).abs().mean()) == pytest.approx(
        float((merged[:PIECE] - base[:PIECE]).abs().mean()), rel=0.1
    )


def test_shares_of_a_moving_average():
    steps, decay = [10, 20, 25, 45], 0.97
    weights = shares(steps, decay)
    assert sum(weights) == pytest.approx(1.0)
    values, average = [3.0, -1.0, 4.0, 1.0], 3.0
    for before, after, value in zip(steps, steps[1:], values[1:], strict=False):
        for _ in range(after - before):
            average = decay * average + (1 - decay) * value
    assert sum(weight * value for weight, value in zip(weights, values, strict=True)) == pytest.approx(average)
    assert shares([7], 0.9) == [1.0] and shares([1, 2], 0.0) == [0.0, 1.0]


@given(st.lists(st.floats(0.01, 10.0), min_size=2, max_size=5))
@example([1.0, 1.0, 1.0])
@example([1.0] * 6)
def test_weights_that_do_not_sum_to_one_are_refused_with_those_that_do(weights):
    from mlops_llm.errors import UserError

    if math.isclose(sum(weights), 1.0, abs_tol=1e-6):
        return
    with pytest.raises(UserError, match=r"op\.weights: sum to .*; give op\.weights=\[") as told:
        MergeLinear(weights=weights)
    given_back = [float(each) for each in told.value.remedy.partition("[")[2].rstrip("]").split(",")]
    assert given_back == pytest.approx([each / sum(weights) for each in weights], rel=1e-4)
    assert MergeLinear(weights=given_back).shares(len(weights)) == given_back
