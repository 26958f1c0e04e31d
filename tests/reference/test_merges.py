"""Formulas of merges against NumPy in float64, and against mergekit on the same models."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlops_llm.surgery.merge.dare import Rescale, dare
from mlops_llm.surgery.merge.linear import linear
from mlops_llm.surgery.merge.slerp import slerp
from mlops_llm.surgery.merge.task_arithmetic import task_arithmetic
from mlops_llm.surgery.merge.ties import Form, changes, limit, ties
from mlops_llm.surgery.ops.merge_dare import MergeDare
from mlops_llm.surgery.ops.merge_linear import MergeLinear
from mlops_llm.surgery.ops.merge_mergekit import MergeMergekit
from mlops_llm.surgery.ops.merge_slerp import MergeSlerp
from mlops_llm.surgery.ops.merge_task_arithmetic import MergeTaskArithmetic
from mlops_llm.surgery.ops.merge_ties import MergeTies
from tests import miniatures
from tests.surgeries import written

SHAPE = (37, 61)
WEIGHTS = [0.5, 0.3, 0.2]


@pytest.fixture(scope="module")
def drawn():
    """A base and three models, far apart, as tensors and as float64 arrays."""
    torch.manual_seed(3)
    found = [torch.randn(SHAPE) for _ in range(4)]
    return found, [each.numpy().astype(np.float64) for each in found]


def near(found: torch.Tensor, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(found.double().numpy(), wanted, rtol=2e-6, atol=2e-6)


def test_linear(drawn):
    (_, *models), (_, *arrays) = drawn
    near(linear(models, WEIGHTS), sum(weight * each for weight, each in zip(WEIGHTS, arrays, strict=True)))


@pytest.mark.parametrize("t", [0.1, 0.4, 0.9])
def test_slerp(drawn, t):
    (_, a, b, _), (_, x, y, _) = drawn
    cosine = (x * y).sum() / np.linalg.norm(x) / np.linalg.norm(y)
    angle = np.arccos(cosine)
    near(slerp(t, a, b), (np.sin((1 - t) * angle) * x + np.sin(t * angle) * y) / np.sin(angle))
    assert not torch.allclose(slerp(t, a, b), torch.lerp(a, b, t), atol=1e-3), "these are far apart"


def test_task_arithmetic(drawn):
    (base, *models), (start, *arrays) = drawn
    factors = [1.5, -0.5, 0.25]
    near(
        task_arithmetic(base, models, factors),
        start + sum(factor * (each - start) for factor, each in zip(factors, arrays, strict=True)),
    )


def trimmed(change: np.ndarray, density: float) -> np.ndarray:
    kept = max(1, int(density * change.size))
    smallest = np.sort(np.abs(change), axis=None)[-kept]
    return np.where(np.abs(change) >= smallest, change, 0.0)


@pytest.mark.parametrize("density", [0.2, 0.8, 1.0])
@pytest.mark.parametrize("form", list(Form))
def test_ties(drawn, density, form):
    (base, *models), (start, *_) = drawn
    # Changes are differences of float32 numbers: what is trimmed is decided on these.
    deltas = [trimmed((each - base).double().numpy(), density) for each in models]
    factors = [3 * weight for weight in WEIGHTS] if form is Form.authors else WEIGHTS
    weighted = [factor * delta for factor, delta in zip(factors, deltas, strict=True)]
    sign = np.where(sum(weighted) >= 0, 1.0, -1.0)
    agrees = [np.sign(each) == sign for each in weighted]
    counts = [1.0, 1.0, 1.0] if form is Form.authors else WEIGHTS
    divisor = sum(count * agree for count, agree in zip(counts, agrees, strict=True))
    merged = sum(each * agree for each, agree in zip(weighted, agrees, strict=True)) / np.where(divisor == 0, 1, divisor)
    limits = [limit(changes(base, each), density) for each in models]
    near(ties(base, models, WEIGHTS, limits, form, 0.7), start + 0.7 * merged)


@pytest.mark.parametrize("density", [0.001, 0.37, 0.999])
def test_the_limit_is_the_smallest_kept_change(density):
    torch.manual_seed(0)
    values = torch.cat([torch.randn(50_001) * 10.0**power for power in (-9, 0, 9)])
    wanted = np.sort(values.abs().numpy())[-max(1, int(density * len(values)))]
    assert limit(lambda: iter(values.split(7_000)), density) == wanted


def kept(change: np.ndarray, left: np.ndarray) -> np.ndarray:
    return np.where(left != 0, change, 0.0)


@pytest.mark.parametrize("with_ties", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("rescale", list(Rescale))
def test_dare(drawn, with_ties, normalize, rescale):
    (base, *models), (start, *arrays) = drawn
    rate, draws = 0.4, [11, 12, 13]
    found = dare(base, models, WEIGHTS, rate, draws, rescale, ties=with_ties, normalize=normalize and with_ties)
    weighted = []
    for place, (weight, array, draw) in enumerate(zip(WEIGHTS, arrays, draws, strict=True)):
        # What was dropped is seen where the model is merged alone.
        alone = dare(base, [models[place]], [1.0], rate, [draw])
        left = kept(array - start, (alone - base).double().numpy())
        assert 0.5 < (left != 0).mean() < 0.7
        factor = 1 / (1 - rate) if rescale is Rescale.paper else np.abs(array - start).sum() / np.abs(left).sum()
        weighted.append(weight * factor * left)
    if not with_ties:
        near(found, start + sum(weighted))
        return
    sign = np.where(sum(weighted) >= 0, 1.0, -1.0)
    agrees = [np.sign(each) == sign for each in weighted]
    total = sum(each * agree for each, agree in zip(weighted, agrees, strict=True))
    divisor = sum(weight * agree for weight, agree in zip(WEIGHTS, agrees, strict=True)) if normalize else 1.0
    near(found, start + total / np.where(divisor == 0, 1, divisor))


def test_dare_keeps_the_expected_change():
    torch.manual_seed(0)
    base, model = torch.zeros(400_000), torch.randn(400_000)
    found = dare(base, [model], [1.0], 0.9, [5])
    assert abs(float((found * model).mean()) - 1.0) < 0.02
    assert abs(float((found != 0).float().mean()) - 0.1) < 0.003


MERGEKIT = [
    (MergeLinear(weights=[0.6, 0.4]), "linear", {}, False),
    (MergeSlerp(t=0.3), "slerp", {"t": 0.3}, False),
    (MergeTaskArithmetic(weights=[0.6, 0.4]), "task_arithmetic", {}, True),
    (MergeTies(weights=[0.6, 0.4], density=0.3), "ties", {"density": 0.3}, True),
    (MergeDare(weights=[0.6, 0.4], drop_rate=0.0, ties=True), "dare_ties", {"density": 1.0}, True),
    (MergeDare(weights=[0.6, 0.4], drop_rate=0.0), "dare_linear", {"density": 1.0}, True),
]


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    for family in ("qwen2", "llama"):
        for seed, name in enumerate(("base", "a", "b")):
            miniatures.model(folder / family / name, family, seed)
    return folder


@pytest.mark.parametrize("family", ["qwen2", "llama"])
@pytest.mark.parametrize(("own", "method", "parameters", "based"), MERGEKIT, ids=[each[1] for each in MERGEKIT])
def test_the_same_model_as_mergekits(families, here, family, own, method, parameters, based):
    pytest.importorskip("mergekit")
    models = [str(families / family / name) for name in ("a", "b")]
    base = {"base": str(families / family / "base")} if based else {}
    written(own, here / "ours", models=models, **base)
    theirs = MergeMergekit(method=method, parameters=parameters, weights=[] if method == "slerp" else [0.6, 0.4])
    written(theirs, here / "theirs", models=models, **(base or ({"base": models[0]} if method == "slerp" else {})))
    found, wanted = miniatures.tensors(here / "ours"), miniatures.tensors(here / "theirs")
    assert found.keys() == wanted.keys()
    for name in found:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-5, atol=2e-6, msg=name)


def test_bfloat16_is_merged_in_float32(here):
    """mergekit without dtype: float32 gives other signs and trims other changes in a sixth of the elements."""
    names = [str(miniatures.model(here / name, seed=seed, dtype="bfloat16")) for seed, name in enumerate(("base", "a", "b"))]
    written(MergeTies(density=0.5), here / "out", models=names[1:], base=names[0])
    found = miniatures.tensors(here / "out")
    start, *models = (miniatures.tensors(here / name) for name in ("base", "a", "b"))
    for name in ("model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight"):
        base, parts = start[name].float(), [each[name].float() for each in models]
        limits = [limit(changes(base, each), 0.5) for each in parts]
        assert torch.equal(found[name], ties(base, parts, [0.5, 0.5], limits).to(torch.bfloat16))
