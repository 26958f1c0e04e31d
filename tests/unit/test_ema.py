"""The average of the weights, against PyTorch's own."""

from __future__ import annotations

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mlops_llm.errors import UserError
from mlops_llm.train.ema import Average, Ema


def model() -> torch.nn.Module:
    torch.manual_seed(3)
    made = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    made[0].bias.requires_grad_(False)
    return made


def move(target: torch.nn.Module) -> None:
    with torch.no_grad():
        for weight in target.parameters():
            weight += 0.1 * torch.randn_like(weight) * weight.requires_grad


def test_it_is_the_average_that_pytorch_keeps():
    trained = model()
    theirs = AveragedModel(trained, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    theirs.update_parameters(trained)  # PyTorch's first update takes the weights as they are
    ours = Average(trained, 0.9)
    for _ in range(30):
        move(trained)
        ours.update()
        theirs.update_parameters(trained)
    expected = dict(theirs.module.named_parameters())
    assert set(ours.shadows) == {"0.weight", "1.weight", "1.bias"}  # what is not trained has no average
    for name, shadow in ours.shadows.items():
        torch.testing.assert_close(shadow, expected[name])
        assert not torch.equal(shadow, dict(trained.named_parameters())[name])


def test_shadows_are_float32_of_a_half_precise_model_and_its_weights_come_back_bit_for_bit():
    trained = model().to(torch.bfloat16)
    average = Average(trained, 0.999)
    before = {name: weight.detach().clone() for name, weight in trained.named_parameters()}
    for _ in range(5):
        move(trained)
        average.update()
    now = {name: weight.detach().clone() for name, weight in trained.named_parameters()}
    assert all(shadow.dtype is torch.float32 for shadow in average.shadows.values())
    # Steps of a thousandth of the way would be lost in bfloat16.
    assert not torch.equal(average.shadows["0.weight"], before["0.weight"].float())
    with pytest.raises(RuntimeError, match="inside"), average.applied():
        assert torch.equal(trained[0].weight, average.shadows["0.weight"].to(torch.bfloat16))
        raise RuntimeError("inside")
    assert all(torch.equal(weight, now[name]) for name, weight in trained.named_parameters())


def test_it_goes_on_with_the_shadows_of_another_process():
    trained = model()
    first = Average(trained, 0.5)
    move(trained)
    first.update()
    second = Average(trained, 0.5)
    second.load({name: shadow.clone() for name, shadow in first.shadows.items()})
    move(trained)
    first.update()
    second.update()
    assert all(torch.equal(shadow, second.shadows[name]) for name, shadow in first.shadows.items())


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.5, 1.5, float("nan")])
def test_a_decay_outside_0_to_1_is_refused(decay):
    with pytest.raises(UserError, match=r"ema\.decay"):
        Ema(decay=decay)


def test_a_first_step_must_lie_in_the_training_and_belong_to_an_average():
    with pytest.raises(UserError, match=r"ema\.start_step"):
        Ema(decay=0.9, start_step=-1)
    with pytest.raises(UserError, match="no average is kept"):
        Ema(start_step=5)
    Ema(decay=0.9, start_step=19).check(20)
    with pytest.raises(UserError, match="the training ends at step 20"):
        Ema(decay=0.9, start_step=20).check(20)
