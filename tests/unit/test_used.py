"""What a training takes otherwise than it was given is written down."""

from __future__ import annotations

from pathlib import Path

from mlops_llm import component
from mlops_llm.models.load import Files
from mlops_llm.models.ref import Place
from mlops_llm.train import rollouts
from mlops_llm.train.config import PACKAGES, Train, Trainer
from mlops_llm.train.peft import Lora
from mlops_llm.train.used import changed

for package in PACKAGES:
    component.load(package)


def test_values_that_were_moved_are_told_by_their_names():
    settings = Train(
        dataset="x", algo=component.build("algo", "grpo"), peft=Lora(), trainer=Trainer(eval_steps=5, save_steps=10)
    )
    asked = component.plain(settings)
    assert changed(asked, component.plain(settings)) == {}
    rollouts.align(settings, 4)
    config = {"r": 4, "lora_alpha": 9, "target_modules": ["a.v_proj", "a.q_proj"]}
    place = Place("start", Path("start"))
    settings.peft = settings.peft.starting(
        Files(place, {}, 1, 1, base=Files(place, {}, 1, 1), adapter=1, adapter_config=config)
    )
    settings.best.metric, settings.output = "eval/reward", "outputs/run"
    assert changed(asked, component.plain(settings)) == {
        "trainer.eval_steps": "8",
        "trainer.save_steps": "16",
        "peft.r": "4",
        "peft.alpha": "9.0",
        "peft.targets": "q_proj,v_proj",
        "best.metric": "eval/reward",
    }
