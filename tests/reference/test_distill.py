"""The losses of a distillation against plain NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mlops_llm.models.template import IGNORED, Encoded
from mlops_llm.train import teacher
from mlops_llm.train.teacher import Mark


def made(tokens: int = 5, width: int = 7, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    return draw.normal(size=(tokens, width)) * 2, draw.normal(size=(tokens, width)) * 2


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_soft_loss_is_the_divergence_at_this_temperature_times_its_square(temperature):
    student, master = made()
    p, q = softmax(master / temperature), softmax(student / temperature)
    wanted = temperature**2 * (p * (np.log(p) - np.log(q))).sum(1).mean()
    found = teacher.soft_loss(torch.tensor(student), torch.tensor(master), temperature)
    assert float(found) == pytest.approx(wanted, rel=1e-5)


def test_of_the_teachers_likeliest_tokens_all_others_are_one_event():
    student, master = made()
    p, q = softmax(master / 2), softmax(student / 2)
    ids = np.argsort(-p, 1)[:, :3]
    top_p, top_q = np.take_along_axis(p, ids, 1), np.take_along_axis(q, ids, 1)
    rest_p, rest_q = 1 - top_p.sum(1), 1 - top_q.sum(1)
    wanted = 4 * ((top_p * np.log(top_p / top_q)).sum(1) + rest_p * np.log(rest_p / rest_q)).mean()
    found = teacher.soft_loss_of_top(torch.tensor(student), torch.tensor(ids), torch.log(torch.tensor(top_p)), 2.0)
    assert float(found) == pytest.approx(wanted, rel=1e-4)


def test_a_student_that_says_what_the_teacher_says_loses_nothing():
    logits, _ = made()
    same = torch.tensor(logits)
    assert float(teacher.soft_loss(same, same, 2.0)) == pytest.approx(0, abs=1e-7)
    logps, ids = torch.log_softmax(same / 2, -1).topk(4, -1)
    assert float(teacher.soft_loss_of_top(same, ids, logps, 2.0)) == pytest.approx(0, abs=1e-6)


class Fixed(torch.nn.Module):
    """Says of each token that the next one is its double, modulo 7."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.asked = 0

    def forward(self, input_ids, attention_mask, use_cache):
        self.asked += 1
        logits = torch.nn.functional.one_hot(input_ids * 2 % 7, 7).float() * 3
        return type("Out", (), {"logits": logits + self.weight})()


ROWS = [Encoded([1, 2, 4, 1], [IGNORED, IGNORED, 4, 1]), Encoded([3, 6], [IGNORED, 6]), Encoded([5, 3, 1], [IGNORED, 3, 0])]


def test_what_the_teacher_says_is_asked_once_and_read_by_row(tmp_path: Path):
    model = Fixed()
    top = teacher.written(tmp_path / "teacher", model, ROWS, 2, 1.0, batch=2)
    assert model.asked == 2
    again = teacher.written(tmp_path / "teacher", model, ROWS, 2, 1.0, batch=2)
    assert model.asked == 2
    for found in (top, again):
        ids, logps = found.of([2, 0])
        assert ids[:, 0].tolist() == [3, 6, 4, 1] and ids.shape == logps.shape == (4, 2)
        assert np.allclose(np.exp(logps[:, 0]), np.exp(3) / (np.exp(3) + 6), atol=1e-5)


def test_a_mark_is_the_mean_over_learned_tokens():
    model = Fixed()
    right, wrong = -np.log(np.exp(3) / (np.exp(3) + 6)), -np.log(1 / (np.exp(3) + 6))
    assert teacher.mark(model, ROWS, batch=2).loss == pytest.approx((4 * right + wrong) / 5, rel=1e-5)


def test_what_is_reached_is_the_ratio_of_the_probabilities():
    said = teacher.compared(Mark(1.0 + np.log(2), 1.0, 100), Mark(1.0, 3.0, 400))
    assert said["reaches"].startswith("50.0% of the teacher") and said["speed"].startswith("3.00 times")
    assert said["size"].endswith("25% of the teacher")
