"""Answers that are scored while training: when a score is written, and that nothing else changes."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mlops_llm.errors import UserError
from mlops_llm.eval.questions import Question
from mlops_llm.models import load
from mlops_llm.models.load import ModelLoad
from mlops_llm.models.ref import resolve
from mlops_llm.record import MemoryRun
from mlops_llm.train import answers as asking
from mlops_llm.train import scoring
from mlops_llm.train.algorithms.sft import SFT
from mlops_llm.train.callbacks import Recorder
from mlops_llm.train.checkpoints import Shelf
from mlops_llm.train.config import Best, Train
from mlops_llm.train.divergence import Divergence
from mlops_llm.train.evaluate import Evaluate
from mlops_llm.train.overfit import Overfit
from mlops_llm.train.steps import Steps
from tests.unit.test_checkpoints import saved


class Fake:
    """Gives made-up scores every 10 steps."""

    def __init__(self, scores: dict[int, float]) -> None:
        self._scores = scores

    def due(self, step: int, last: int) -> bool:
        return step % 10 == 0 or step >= last

    def at(self, step: int) -> dict[str, float]:
        return {"score/bleu": self._scores[step]}


class Training:
    """What the Trainer does with a callback: after each step evaluate, then save."""

    def __init__(self, folder: Path, scores: dict[int, float], overfit: Overfit, best: str = "score/bleu") -> None:
        self.run, self.folder = MemoryRun(), folder
        settings = Train(algo=SFT(), best=Best(best), overfit=overfit)
        self.shelf = Shelf(self.run, settings.best, None, {}, {})
        steps = Steps(folder / "steps.jsonl")
        self.trainer = SimpleNamespace(training_step=lambda step, batch: torch.tensor(9.0 - step / 10), _prepare_inputs=None)
        steps.watch(self.trainer)
        watch = Divergence(self.run, None, 0.0)  # type: ignore[arg-type]
        self.recorder: Any = Recorder(self.run, self.shelf, steps, watch, lambda place: None, {}, settings, Fake(scores))
        self.args = SimpleNamespace(output_dir=str(folder / "out"), eval_on_start=True, logging_steps=1)
        self.stopped = 0

    def go(self, losses: dict[int, float], save: int, last: int = 80) -> None:
        state = SimpleNamespace(global_step=0, max_steps=last)
        control = SimpleNamespace(should_evaluate=False, should_save=False, should_training_stop=False, should_log=False)
        self.args.eval_on_start, self.args.eval_strategy = 0 in losses, "steps" if losses else "no"
        self.recorder.on_train_begin(self.args, state, control, model=torch.nn.Linear(1, 1))
        for step in range(last + 1):
            state.global_step = step
            if step:
                self.trainer.training_step(step, {"input_ids": torch.tensor([[step]])})
                control.should_evaluate, control.should_save = step in losses, step % save == 0
                self.recorder.on_step_end(self.args, state, control, model=torch.nn.Linear(1, 1))
            if control.should_evaluate or step in losses:
                self.recorder.on_evaluate(self.args, state, control, metrics={"eval_loss": losses.get(step, 9.0)})
            if step and control.should_save:
                saved(self.folder / "out", step)
                self.recorder.on_save(self.args, state, control)
            if control.should_training_stop:
                self.stopped = step
                return


def curve(*scores: float) -> dict[int, float]:
    return {10 * place: score for place, score in enumerate(scores)}


def test_a_score_that_gets_worse_three_times_in_a_row_marks_and_stops(tmp_path, capsys):
    scores = curve(1, 5, 9, 8, 7, 6, 5, 9, 9)
    training = Training(tmp_path, scores, Overfit(stop=True))
    training.go(dict.fromkeys(range(0, 81, 20), 1.0), 40)
    assert training.stopped == 50 and training.run.kept_tags["overfit.step"] == "50"
    assert "the deciding metric got worse 3 times in a row (9.0000 at step 20, 6.0000 at step 50)" in capsys.readouterr().err
    assert [each.step for each in training.shelf.checkpoints] == [40, 50]
    assert training.shelf.best().step == 40 and "overfit" in training.shelf.checkpoints[-1].tags
    patient = Training(tmp_path / "p", scores, Overfit(patience=2))
    patient.go({}, 40)
    assert patient.stopped == 40


def test_each_number_is_written_once_with_its_checkpoint_and_dataset(tmp_path):
    training = Training(tmp_path, curve(*range(9)), Overfit())
    training.go({0: 2.0, 20: 2.0, 40: 1.0}, 40)
    kept = sorted(training.run.kept_metrics, key=lambda each: (each[2], each[0]))
    owner = {40: "checkpoint-40", 80: "checkpoint-80"}
    wanted = [("score/bleu", step / 10, step, owner.get(step), "evaluation") for step in range(0, 81, 10)]
    wanted += [("eval/loss", {40: 1.0}.get(step, 2.0), step, owner.get(step), "validation") for step in (0, 20, 40)]
    assert kept == sorted(wanted, key=lambda each: (each[2], each[0]))
    assert training.recorder.evaluations[40] == {"score/bleu": 4, "eval/loss": 1.0}


def test_where_another_rule_stops_the_training_the_last_checkpoint_has_its_score(tmp_path):
    training = Training(tmp_path, {0: 1.0, 10: 2.0, 20: 3.0, 25: 4.0}, Overfit(evaluations=1, stop=True))
    training.go({0: 3.0, 5: 2.0, 15: 1.5, 25: 1.6}, 20)
    assert training.stopped == 25
    assert training.shelf.score(training.shelf.checkpoints[-1]) == 4.0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"every": -1}, "evaluate.every: is -1"),
        ({"samples": 0}, "evaluate.samples: is 0"),
        ({"max_new_tokens": 0}, "evaluate.max_new_tokens: is 0"),
        ({"dataset": "sales_eval"}, "score them: evaluate.every=50"),
        ({"every": 1, "metric": []}, "evaluate.metric: is empty; name one or more of: bleu"),
        ({"every": 1, "metric": ["rogue"]}, "there is no metric 'rogue' (did you mean rouge?)"),
        ({"every": 1, "metric": ["bleu", "bleu"]}, "names one twice"),
        ({"every": 1, "metric": ["bleu", "perplexity"]}, "'perplexity' is not told by answers and references alone"),
        ({"every": 1, "metric": ["length"]}, "; one of: bleu, chrf, contains, exact_match, math_equal, rouge"),
        ({"every": 1, "metric": ["label"]}, "evaluate.metric: 'label' is not told"),
        ({"every": 1, "metric": ["regex"]}, "evaluate.metric: 'regex' is not told"),
        ({"every": 1, "metric": ["hf"]}, "evaluate.metric: 'hf' is not told"),
    ],
)
def test_settings_that_do_not_fit(wrong, said):
    with pytest.raises(UserError) as caught:
        Evaluate(**wrong)
    assert said in str(caught.value)


def test_where_the_best_step_has_no_score_the_one_before_it_is_shown_with_its_step():
    evaluated = {0: {"score/a": 1.0}, 10: {"score/a": 2.0, "score/b": 5.0}, 20: {"eval/loss": 1.0}, 30: {"score/a": 9.0}}
    assert scoring.newest(evaluated, 20, ["score/a", "score/b"]) == {
        "score/a": "1.0000 -> 2.0000 (step 10)",
        "score/b": "5.0000 (step 10)",
    }
    assert scoring.newest(evaluated, 29, ["score/c"]) == {}


def test_the_model_and_every_random_state_are_as_before():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout())
    model.train()
    model[1].eval()  # a part with a mode of its own

    def draws() -> list[float]:
        return [random.random(), float(np.random.rand()), float(torch.rand(()))]

    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(3)
    wanted = draws()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(3)
    with pytest.raises(ZeroDivisionError), asking.undisturbed(model):
        assert not model.training and not model[0].training
        draws()
        raise ZeroDivisionError
    assert draws() == wanted
    assert [each.training for each in model.modules()] == [True, True, False]


@pytest.fixture(scope="module")
def small() -> tuple[Any, Any]:
    files = load.inspect(resolve("tiny"), ModelLoad())
    return load.model(files, ModelLoad(), merge=False), load.tokenizer_of(files)


def asked(*texts: str) -> list[Question]:
    return [Question([{"role": "user", "content": text}], None, ("好",)) for text in texts]


def test_a_reference_that_a_metric_cannot_compare_is_refused_before_training(small, tmp_path):
    rows = [{"prompt": "1+1", "reference": "2"}, {"prompt": "1+2", "reference": "#### 3\n#### 4"}]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = Train(algo=SFT(), evaluate=Evaluate(1, str(tmp_path / "sums.jsonl"), metric=["math_equal"]))
    with pytest.raises(UserError, match="the reference of answer 2 of 2: it contradicts itself"):
        scoring.prepare(settings, small[1], None, None)


def test_answers_are_those_of_one_at_a_time_in_any_batch(small, monkeypatch):
    questions = asked("您好，请问现在有货吗，我想今天就买一台", "好", "订单明天能到吗", "为什么")
    model, tokenizer = small
    together = asking.answers(model, tokenizer, questions, 6)
    assert together == [asking.answers(model, tokenizer, [each], 6)[0] for each in questions]
    monkeypatch.setattr(asking, "BATCH", 2)
    assert asking.answers(model, tokenizer, questions, 6) == together
    assert asking.answers(model, tokenizer, [], 6) == [] and tokenizer.padding_side == "right"


def test_weights_that_are_not_finite_have_no_score(small):
    model, tokenizer = small
    run = MemoryRun()
    plan = SimpleNamespace(settings=Train(algo=SFT(), evaluate=Evaluate(every=5, max_new_tokens=4)), tokenizer=tokenizer)
    found = SimpleNamespace(asked=asked("有货吗", "多少钱"))
    one = scoring.Scoring(plan, found, model, run)  # type: ignore[arg-type]
    assert all(0 <= value <= 100 for value in one.at(0).values())
    table = run.artifacts["scores/step-00000.json"]
    assert list(table) == ["prompt", "answer", "reference", "bleu", "rouge_1", "rouge_2", "rouge_l"]
    assert all(len(values) == 2 for values in table.values()) and "tok:zh" in run.kept_tags["metric.bleu"]
    parameter = next(iter(model.parameters())).data
    kept = parameter[0, 0].item()
    parameter[0, 0] = float("nan")
    assert all(math.isnan(value) for value in one.at(5).values()) and len(run.artifacts) == 1
    parameter[0, 0] = kept
    assert [one.due(step, 12) for step in (1, 5, 11, 12)] == [False, True, False, True]
    one.times, one.seconds = 5, 6.4
    assert one.said(25.6) == "5 times 2 answers, 6.4 s (25% of 26 s with checkpoints)"
