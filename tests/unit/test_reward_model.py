"""Reward models: their scores against plain transformers, and what is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from mlops_llm.errors import UserError
from mlops_llm.models import digested, load, tiny
from mlops_llm.models.load import ModelLoad, Task
from mlops_llm.models.ref import Place
from mlops_llm.train.peft import Full, Lora
from mlops_llm.train.reward import Answers
from mlops_llm.train.rewards.model import RewardModel

ANSWERS = Answers(
    [[{"role": "user", "content": "在吗"}], [{"role": "system", "content": "短"}, {"role": "user", "content": "3 + 5"}]] * 2,
    ["您好！在的，请问有什么可以帮您？", "8", "", "不知道，别问我。"],
    [{}] * 4,
)


def place(folder: Path) -> Place:
    return Place(str(folder), folder)


def shaken(model: Any) -> Any:
    """With every trained weight moved, so that nothing is left out unseen."""
    torch.manual_seed(1)
    with torch.no_grad():
        for each in model.parameters():
            if each.requires_grad:
                each.add_(torch.randn_like(each) * 0.05)
    return model


def saved(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny.folder()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def rated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a reward model, all its weights moved."""
    torch.manual_seed(0)  # of the new head
    model = AutoModelForSequenceClassification.from_pretrained(tiny.folder(), num_labels=1, dtype=torch.float32)
    return saved(shaken(model), tmp_path_factory.mktemp("rated") / "model")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of an adapter with its head on `tiny`, as algo=reward peft=lora saves it."""
    torch.manual_seed(0)
    files = load.inspect(Place("tiny", tiny.folder()), ModelLoad(), Task.reward, fresh=True)
    return saved(shaken(Lora().load(files, ModelLoad(), Task.reward)), tmp_path_factory.mktemp("adapter") / "model")


def plain(model: Any, most: int = 10_000) -> list[float]:
    """The score of each answer, alone in its batch, of a model that transformers loaded."""
    tokenizer, found = AutoTokenizer.from_pretrained(tiny.folder()), []
    for prompt, answer in zip(ANSWERS.prompts, ANSWERS.completions, strict=True):
        turns = [*prompt, {"role": "assistant", "content": answer}]
        ids = tokenizer(tokenizer.apply_chat_template(turns, tokenize=False), add_special_tokens=False)["input_ids"][:most]
        with torch.no_grad():
            found.append(float(model.eval()(input_ids=torch.tensor([ids])).logits[0, 0]))
    return found


@pytest.mark.parametrize("batch", [1, 3, 32])
def test_scores_are_those_of_plain_transformers(rated: Path, batch: int) -> None:
    wanted = plain(AutoModelForSequenceClassification.from_pretrained(rated))
    found = RewardModel(ref=str(rated), batch_size=batch).score(ANSWERS)
    assert found == pytest.approx(wanted, abs=1e-5) and len({round(each, 3) for each in wanted}) == 4


def test_an_adapter_scores_with_the_head_that_was_saved_with_it(adapter: Path) -> None:
    base = AutoModelForSequenceClassification.from_pretrained(tiny.folder(), num_labels=1, dtype=torch.float32)
    wanted = plain(PeftModel.from_pretrained(base, adapter))
    state = torch.get_rng_state()
    assert RewardModel(ref=str(adapter)).score(ANSWERS) == pytest.approx(wanted, abs=1e-5)
    assert torch.equal(torch.get_rng_state(), state), "loading it takes no random number of the training"


def test_long_texts_are_cut_at_the_end_and_said_once(rated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reward = RewardModel(ref=str(rated), max_tokens=8)
    assert reward.score(ANSWERS) == pytest.approx(plain(AutoModelForSequenceClassification.from_pretrained(rated), 8), abs=1e-5)
    reward.score(ANSWERS)
    assert capsys.readouterr().err.count("texts cut at 8 tokens (reward.model.max_tokens)") == 1


def test_a_score_that_is_no_number_ends_the_run(rated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlops_llm.train.rewards.model.scores", lambda *_: [1.0, float("nan")])
    with pytest.raises(UserError, match="gives a score that is not finite"):
        RewardModel(ref=str(rated)).score(ANSWERS)


def test_a_run_keeps_which_reward_model_it_began_with(rated: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(rated, tmp_path / "mine")
    run = tmp_path / "run"
    said = RewardModel(ref=str(mine)).begin(run)
    assert said == {"digest.reward.model": digested.weights_digest(place(rated))}
    assert RewardModel(ref=str(mine)).begin(run) == said
    weights = load_file(mine / "model.safetensors")
    save_file({**weights, "score.weight": weights["score.weight"] + 1}, mine / "model.safetensors", {"format": "pt"})
    digested._folder_digest.cache_clear()
    with pytest.raises(UserError, match="the reward model changed since the run began"):
        RewardModel(ref=str(mine)).begin(run)


def test_what_is_no_reward_model_is_refused(rated: Path, adapter: Path, tmp_path: Path) -> None:
    for ref, said in (
        ("", "reward.model.ref: is not given"),
        ("tiny", "tiny: is a language model, whose head gives no score; take a reward model"),
        (str(tmp_path / "none"), "there is no such model folder"),
    ):
        with pytest.raises(UserError) as caught:
            RewardModel(ref=ref).check([])
        assert said in str(caught.value) and "\n" not in str(caught.value)
    for folder in (rated, adapter):
        with pytest.raises(UserError, match=r"is a reward model, which writes no answers; take a language model"):
            load.inspect(place(folder), ModelLoad())
    classes = shutil.copytree(rated, tmp_path / "classes")
    config = json.loads((classes / "config.json").read_text()) | {"id2label": {"0": "a", "1": "b", "2": "c"}}
    (classes / "config.json").write_text(json.dumps(config))
    headless = shutil.copytree(adapter, tmp_path / "headless")
    weights = load_file(headless / "adapter_model.safetensors")
    save_file({name: each for name, each in weights.items() if "score" not in name}, headless / "adapter_model.safetensors")
    for folder, said in ((classes, "is a classifier of 3 classes"), (headless, "the adapter's head is missing")):
        with pytest.raises(UserError, match=said):
            load.inspect(place(folder), ModelLoad(), Task.reward)


def test_a_language_models_adapter_keeps_what_it_learned_under_a_new_head(tmp_path: Path) -> None:
    start = load.inspect(Place("tiny", tiny.folder()), ModelLoad())
    tuned = saved(shaken(Lora().load(start, ModelLoad())), tmp_path / "tuned")
    files = load.inspect(place(tuned), ModelLoad(), Task.reward, fresh=True)
    merged, kept = Full().load(files, ModelLoad(), Task.reward), Lora().load(files, ModelLoad(), Task.reward)
    wanted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny.folder(), dtype=torch.float32), tuned)
    body = wanted.merge_and_unload().model.state_dict()
    assert all(torch.equal(each, body[name]) for name, each in merged.model.state_dict().items())
    assert all(each.requires_grad for each in merged.parameters())
    learned = {name.rpartition(".default")[0] for name, each in kept.named_parameters() if each.requires_grad}
    assert any("score" in name for name in learned) and any("lora_B" in name for name in learned)
    again = load.inspect(place(saved(shaken(kept), tmp_path / "again")), ModelLoad(), Task.reward)
    assert again.task is Task.reward
    assert plain(load.model(again, ModelLoad(), merge=True, task=Task.reward)) == pytest.approx(plain(kept), abs=1e-5)
