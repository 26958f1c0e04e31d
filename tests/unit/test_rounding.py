"""The bounds of rounding against NumPy: what a form may do passes, what it may not do is named."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mlops_llm.surgery.rounding import Corrected, Nearest, Same, compared

SCALES = {"float32": np.float32, "float16": np.float16}


def drawn(rows: int = 16, columns: int = 64, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32))


def nearest(plain: torch.Tensor, bits: int, size: int, scale: str = "float32") -> torch.Tensor:
    """Whole numbers times scales, as a form stores them."""
    groups = plain.numpy().astype(np.float64).reshape(-1, size)
    half = 2 ** (bits - 1)
    step = (np.abs(groups).max(1, keepdims=True) / (half - 0.5)).astype(np.float32).astype(SCALES[scale]).astype(np.float64)
    whole = np.clip(np.rint(groups / np.where(step, step, 1)), -half, half - 1)
    return torch.from_numpy((whole * step).astype(np.float32)).reshape(plain.shape)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("bits", "size"), [(8, 64), (4, 16), (4, 8)])
@pytest.mark.parametrize("factor", [1.0, 1e-6, 1e3, 0.0])
def test_rounding_to_the_nearest_is_within_half_a_step(bits, size, scale, factor):
    plain = drawn() * factor
    off = Nearest(2 ** (bits - 1) - 0.5, size, scale).off(plain, nearest(plain, bits, size, scale))
    assert off.share <= 1
    if factor >= 1 and scale == "float32":
        assert 0.45 < off.found <= off.most < 0.501, "the bound is no looser than it must be"


@pytest.mark.parametrize("wrong", ["zeros", "scales reversed", "rows reversed", "one number", "a huge scale"])
@pytest.mark.parametrize(("bits", "size"), [(8, 64), (4, 16)])
def test_what_is_no_rounding_is_beyond_the_bound(bits, size, wrong):
    plain = drawn()
    found = nearest(plain, bits, size)
    groups = found.reshape(-1, size)
    step = groups.abs().amax(1, keepdim=True)
    found = {
        "zeros": lambda: torch.zeros_like(found),
        "scales reversed": lambda: (groups / step * step.flip(0)).reshape(plain.shape),
        "rows reversed": lambda: found.flip(0),
        "one number": lambda: found + (torch.arange(found.numel()).reshape(found.shape) == 5) * step[0] / 2 ** (bits - 1) * 1.2,
        "a huge scale": lambda: found * 0 + 1e6,
    }[wrong]()
    assert Nearest(2 ** (bits - 1) - 0.5, size, "float32").off(plain, found).share > 1


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_what_makes_up_for_rounding_may_move_further_but_not_anywhere(bits):
    plain = drawn(64, 64)
    bound, found = Corrected(bits, 16), nearest(plain, bits, 16)
    off = bound.off(plain, found)
    assert off.share < 1
    moved = plain.reshape(-1, 16) + torch.from_numpy(np.random.default_rng(3).normal(size=(256, 16))).float() * 0.01
    moved = (moved / moved.norm(dim=1, keepdim=True) * plain.reshape(-1, 16).norm(dim=1, keepdim=True)).reshape(plain.shape)
    wanted = float(np.linalg.norm(moved - plain) / np.linalg.norm(plain))
    assert math.isclose(bound.off(plain, moved).found, wanted, rel_tol=1e-4), "groups as long as they were"
    scales = found.reshape(-1, 16).abs().amax(1, keepdim=True)
    mixed = (found.reshape(-1, 16) / scales * scales.flip(0)).reshape(plain.shape)
    for wrong in (torch.zeros_like(plain), found.flip(0), drawn(64, 64, seed=1), found * torch.nan, *[mixed] * (bits > 2)):
        assert not bound.off(plain, wrong).share <= 1


def test_the_worst_layer_is_named_with_its_number_and_its_bound():
    plain = {"a": drawn(), "b": drawn(seed=1), "norm": drawn(1, 64)}
    found = {"a": nearest(plain["a"], 4, 16), "b": plain["b"] * 1.0, "norm": plain["norm"].half()}

    def told(**other: torch.Tensor):
        there = found | other
        bound = Nearest(7.5, 16, "float32")
        return compared(
            plain,
            lambda name: (plain[name], there[name]),
            lambda name: Same() if name == "norm" else bound,
        )

    said = told()
    assert said.passed and said.said.startswith("worst layer a: 0.5 steps, at most 0.5; 2 layers are compared, 1 other tensors")
    wrong = told(b=plain["b"] * 0)
    assert wrong.passed is False and wrong.said.startswith("worst layer b: 7.5 steps, at most 0.5")
    assert told(norm=plain["norm"].half() * 2).said == "norm holds other numbers than the model's"
    assert told(a=found["a"][:3]).said == "a is (3, 64) and should be (16, 64)"
    assert told(a=found["a"] * torch.nan).passed is False
