"""What a training needs, predicted and corrected; what cannot fit is refused with the change that would."""

from __future__ import annotations

import itertools
import json
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlops_llm import console
from mlops_llm.errors import UserError
from mlops_llm.models import load
from mlops_llm.models.load import Dtype, Files, ModelLoad
from mlops_llm.models.ref import Place
from mlops_llm.models.template import Encoded
from mlops_llm.record import MemoryRun
from mlops_llm.train import distributed, machine, preflight, sparing
from mlops_llm.train.algorithms.distill import Distill
from mlops_llm.train.algorithms.dpo import DPO
from mlops_llm.train.algorithms.grpo import GRPO
from mlops_llm.train.algorithms.kto import KTO
from mlops_llm.train.algorithms.ppo import PPO
from mlops_llm.train.algorithms.rloo import RLOO
from mlops_llm.train.algorithms.sft import SFT
from mlops_llm.train.config import Train, Trainer
from mlops_llm.train.ema import Ema
from mlops_llm.train.examples import Answered, Pair
from mlops_llm.train.history import Correction, Past, correction, told
from mlops_llm.train.machine import Machine
from mlops_llm.train.needs import Rows
from mlops_llm.train.peft import Full, Lora
from mlops_llm.train.preflight import Case, estimate
from mlops_llm.train.prompts import Prompt
from mlops_llm.train.samplers.hf import Hf
from mlops_llm.train.samplers.vllm import Vllm, Where
from mlops_llm.train.sharing.ddp import Replicated
from mlops_llm.train.sharing.fsdp2 import Sharded
from mlops_llm.train.sharing.zero3 import Zero3

GB = 10**9
HIDDEN, LAYERS, INNER, KV, VOCABULARY = 512, 4, 1024, 128, 2048
SHAPES = {"q": (HIDDEN, HIDDEN), "k": (KV, HIDDEN), "v": (KV, HIDDEN), "o": (HIDDEN, HIDDEN)}
SHAPES |= {"gate": (INNER, HIDDEN), "up": (INNER, HIDDEN), "down": (HIDDEN, INNER)}
PARAMETERS = LAYERS * (sum(math.prod(shape) for shape in SHAPES.values()) + 2 * HIDDEN) + VOCABULARY * HIDDEN
ADAPTER = 8 * LAYERS * sum(sum(shape) for shape in SHAPES.values())
"""Of rank 8: two matrices for each linear map."""


def written(folder: Path, tensors: dict[str, tuple[int, ...]]) -> Path:
    """A model of empty tensors, which takes no room on the disk."""
    folder.mkdir()
    config = {"hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "intermediate_size": INNER, "vocab_size": VOCABULARY}
    config |= {"num_attention_heads": 8, "num_key_value_heads": 2}
    (folder / "config.json").write_text(json.dumps(config))
    header, end = {}, 0
    for name, shape in tensors.items():
        size = math.prod(shape) * 4
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    file = folder / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(file, 8 + len(text) + end)
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    tensors: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for layer in range(LAYERS):
        tensors |= {f"model.layers.{layer}.{name}_proj.weight": shape for name, shape in SHAPES.items()}
        tensors |= {f"model.layers.{layer}.{name}.weight": (HIDDEN,) for name in ("before", "after")}
    folder = written(tmp_path_factory.mktemp("models") / "model", tensors)
    return load.inspect(Place(str(folder), folder), ModelLoad())


def answer(tokens: int) -> Encoded:
    return Encoded([0] * tokens, [0] * tokens, 0)


def case(files: Files, algo: Any = None, memory: int = 100 * GB, **changes: Any) -> Case:
    algo = algo or SFT()
    examples = {
        DPO: [Pair([0] * 20, [0] * 80, [0] * 60)] * 64,
        KTO: [Answered([0] * 20, [0] * 80)] * 64,
        SFT: [answer(100)] * 64,
        Distill: [answer(100)] * 64,
    }
    encoded: Any = examples.get(type(algo), [Prompt([0] * 20, [], {})] * 64)
    given = {name: changes.pop(name) for name in ("disk", "correction", "done", "held_out") if name in changes}
    trainer = Trainer(**{"max_steps": 20, "batch_size": 16, **changes.pop("trainer", {})})
    load, host = ModelLoad(changes.pop("dtype", Dtype.float32)), changes.pop("host", memory)
    settings = Train(
        rollout=changes.pop("rollout", Hf()),
        dataset="rows", model="./model", algo=algo, peft=changes.pop("peft", Full()), trainer=trainer, output="out",
        model_load=load, **changes,
    )  # fmt: skip
    there = Machine("Processor x 2", memory, GB // 10, GB // 20, 1e10, 1e-3, 1e-3, 1e-3, host)
    return Case(settings, files, encoded, **{"held_out": 0, "disk": 100 * GB, "machine": there, **given})


def test_all_weights_take_sixteen_bytes_each_and_an_adapter_little_more_than_its_base(files: Files):
    assert files.parameters == PARAMETERS
    full, lora = estimate(case(files)), estimate(case(files, peft=Lora()))
    assert full.trained == PARAMETERS and lora.trained == ADAPTER
    assert full.parts["model"] + full.parts["gradients and optimizer"] == 16 * PARAMETERS
    assert lora.parts["model"] + lora.parts["gradients and optimizer"] == 4 * PARAMETERS + 16 * ADAPTER
    assert full.parts["process"] == GB // 10 and full.memory == full.raw_memory == sum(full.parts.values())
    targets = estimate(case(files, peft=Lora(targets=["q_proj", "v_proj"])))
    assert targets.trained == 8 * LAYERS * (2 * HIDDEN + HIDDEN + KV)


def test_activations_grow_with_the_batch_and_shrink_by_recomputing(files: Files):
    def activations(**trainer: Any) -> int:
        return estimate(case(files, trainer=trainer)).parts["activations"]

    assert activations(batch_size=32) == 2 * activations(batch_size=16)
    assert activations(gradient_checkpointing=True) < activations()
    # Nine of the hidden width, key and value, four of the inner width; the logits four times.
    token = LAYERS * (9 * HIDDEN + 2 * KV + 4 * INNER) * 4 + 4 * VOCABULARY * 4
    assert activations(batch_size=1) == 100 * token


def test_a_critic_learns_while_the_models_own_activations_wait(files: Files):
    def activations(algo: Any, **trainer: Any) -> int:
        return estimate(case(files, algo, trainer={"batch_size": 1, **trainer})).parts["activations"]

    kept, row = LAYERS * (9 * HIDDEN + 2 * KV + 4 * INNER), 20 + 128
    assert activations(PPO()) - activations(GRPO()) == row * kept * 4
    kept = LAYERS * HIDDEN + kept // LAYERS
    recomputed = {"gradient_checkpointing": True}
    assert activations(PPO(), **recomputed) - activations(GRPO(), **recomputed) == row * kept * 4
    plain, longer = (estimate(case(files, PPO(), trainer=how)).seconds for how in ({}, recomputed))
    alone = [estimate(case(files, RLOO(generations=2, iterations=2), trainer=how)).seconds for how in ({}, recomputed)]
    assert longer - plain == pytest.approx(2 * (alone[1] - alone[0]))


@pytest.mark.parametrize(
    ("algo", "peft", "held"),
    [
        (SFT(), Full(), {}),
        (DPO(), Full(), {}),
        (DPO(precompute=False), Full(), {"reference": 4}),
        (DPO(precompute=False), Lora(), {"reference": 0}),
        (KTO(precompute=False), Full(), {"reference": 4}),
        (GRPO(), Full(), {}),
        (GRPO(beta=0.1), Full(), {"reference": 4}),
        (GRPO(beta=0.1), Lora(), {"reference": 0}),
        (RLOO(beta=0.0), Full(), {}),
        (PPO(), Full(), {"reference": 4, "critic": 16}),
        (PPO(), Lora(), {"reference": 0, "critic": 16}),
    ],
)
def test_what_each_method_holds_besides(files: Files, algo: Any, peft: Any, held: dict[str, int]):
    found = estimate(case(files, algo, peft=peft)).parts
    besides = {name: size for name, size in found.items() if name in ("reference", "critic", "teacher")}
    assert besides == {name: each * PARAMETERS for name, each in held.items()}


def test_a_reference_has_numbers_as_the_model_and_is_there_wherever_the_model_is_divided(
    files: Files, monkeypatch: pytest.MonkeyPatch
):
    for algo in (GRPO(beta=0.1), RLOO(), PPO(), DPO(precompute=False)):
        assert estimate(case(files, algo, dtype=Dtype.bfloat16)).parts["reference"] == 2 * PARAMETERS
    monkeypatch.setattr(distributed, "gpus", lambda: 2)
    alone = estimate(case(files, DPO(), distributed=Replicated(2)))
    for how in (Sharded(2), Zero3(2)):
        divided = estimate(case(files, DPO(), distributed=how))
        assert divided.parts["reference"] == 2 * PARAMETERS and divided.seconds == alone.seconds
    assert "reference" not in alone.parts


@pytest.mark.parametrize(
    ("how", "dtype", "each", "kept"),
    [
        (distributed.Distributed(), Dtype.bfloat16, 8, 6),
        (Replicated(2), Dtype.bfloat16, 8, 6),
        (Sharded(2), Dtype.bfloat16, 16, 12),
        (Zero3(2), Dtype.bfloat16, 16, 14),
        (distributed.Distributed(), Dtype.float32, 16, 12),
        (Sharded(2), Dtype.float32, 16, 12),
        (Zero3(2), Dtype.float32, 16, 12),
    ],
)
def test_what_divides_a_model_trains_in_32_bits(files: Files, monkeypatch: Any, how: Any, dtype: Dtype, each: int, kept: int):
    """Accelerate raises weights for FSDP2, and DeepSpeed copies them: the figures of docs/scale.md."""
    monkeypatch.setattr(distributed, "gpus", lambda: 2)
    found = estimate(case(files, dtype=dtype, distributed=how))
    divided = 2 if how.sharded else 1
    assert found.parts["model"] + found.parts["gradients and optimizer"] == each * PARAMETERS // divided
    assert found.checkpoint // PARAMETERS == kept
    adapter = estimate(case(files, dtype=dtype, distributed=how, peft=Lora()))
    base = (2 if dtype is Dtype.bfloat16 else 4) * PARAMETERS
    assert adapter.parts["model"] + adapter.parts["gradients and optimizer"] == (base + 16 * ADAPTER) // divided


def test_without_gpus_what_is_divided_keeps_its_numbers(files: Files, monkeypatch: Any):
    monkeypatch.setattr(distributed, "gpus", lambda: 0)
    found = estimate(case(files, dtype=Dtype.bfloat16, distributed=Sharded(2)))
    assert found.parts["model"] + found.parts["gradients and optimizer"] == 8 * PARAMETERS


@pytest.mark.parametrize(
    ("how", "words"), [(Sharded(2), "distributed.cpu_offload=true"), (Zero3(2), "distributed.offload=true")]
)
def test_offloaded_parts_lie_in_the_memory_of_the_machine(files: Files, monkeypatch: pytest.MonkeyPatch, how: Any, words: str):
    monkeypatch.setattr(distributed, "gpus", lambda: 2)
    away = how.lighter()[words]
    assert away.lighter() == {} and Replicated(2).lighter() == {}
    found = estimate(case(files, distributed=away))
    assert set(found.parts) == {"process", "activations"} and found.host == 16 * PARAMETERS
    assert "in the CPU's memory" in found.facts() and "in the CPU's memory" not in estimate(case(files)).facts()
    assert change(files, found.memory, trainer={"batch_size": 1}, distributed=how) == ""
    tight = {"batch_size": 1, "gradient_checkpointing": True}
    least = needed(files, trainer=tight, distributed=away)
    assert change(files, least, trainer=tight, distributed=how, host=GB) == words
    one = case(files, distributed=away, host=15 * PARAMETERS)
    with pytest.raises(UserError, match=r"of the CPU's memory are needed, .* are there; with peft=lora it"):
        preflight.refuse_impossible(one, estimate(one))


def test_what_a_teacher_says_takes_disk(files: Files):
    how = {"trainer": {"max_steps": 20, "save_steps": 10, "eval_steps": 10}}
    asked = Distill(teacher=str(files.place.folder), top_k=1000)
    none, found = (estimate(case(files, algo, **how)) for algo in (replace(asked, top_k=None), asked))
    said = 64 * 99 * 1000 * 8  # 64 rows of 99 predicted tokens, an id and a log-probability of each
    assert (none.beside, found.beside) == (0, said) and found.disk == none.disk + said == 2 * found.checkpoint + said
    assert estimate(case(files, asked, resume="run")).beside == 0
    tight = case(files, asked, disk=found.checkpoint + said - 1)
    with pytest.raises(UserError, match=r"and what the teacher says 50\.7 MB, .* are free; with algo.top_k=64 it needs"):
        preflight.refuse_impossible(tight, estimate(tight))


def test_a_reference_of_an_adapter_that_is_trained_on_is_a_copy_of_it(files: Files):
    adapter = replace(files, base=files.place, adapter=1000)
    found = estimate(case(adapter, DPO(), peft=Lora()))
    assert found.trained == 1000 and found.parts["reference adapter"] == 4000


def test_a_teacher_that_is_asked_before_is_never_there_together_with_activations(files: Files):
    teacher = str(files.place.folder)
    present, before = (estimate(case(files, Distill(teacher=teacher, top_k=top))) for top in (None, 8))
    assert present.parts["teacher"] == before.parts["teacher"] == 4 * PARAMETERS
    assert present.raw_memory - before.raw_memory == min(4 * PARAMETERS, present.parts["activations"])
    assert before.seconds < present.seconds


def test_the_average_takes_memory_time_and_room_in_each_checkpoint(files: Files):
    plain, averaged = (estimate(case(files, held_out=16, ema=ema)) for ema in (Ema(), Ema(0.9)))
    assert averaged.parts["average"] == 4 * PARAMETERS and averaged.seconds > plain.seconds
    assert averaged.checkpoint - plain.checkpoint >= 8 * PARAMETERS


def test_keys_and_values_of_a_round_of_answers_count_where_they_are_more_than_a_step(files: Files):
    many = {"batch_size": 16, "gradient_accumulation_steps": 256}
    found = estimate(case(files, GRPO(), trainer=many)).parts["activations"]
    assert found == 4096 * ((20 + 128) * LAYERS * 2 * KV * 4 + VOCABULARY * 12)


def test_an_engine_beside_the_model_counts_and_doing_without_it_is_named(files: Files, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "2")
    assert estimate(case(files, GRPO(), rollout=Vllm())).parts["engine"] == 4 * PARAMETERS + 2 * 2**30 + 10**9
    for algo, how in ((GRPO(), Hf()), (SFT(), Vllm())):
        assert estimate(case(files, algo, rollout=how)).parts["engine"] == 0
    assert change(files, 3 * GB, GRPO(), rollout=Vllm()) == "rollout=hf"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert Vllm(gpu_memory_utilization=0.25).memory(1, 80 * GB) == 20 * GB
    assert Vllm(mode=Where.server, url="http://127.0.0.1:1").memory(1, 80 * GB) == 0


def test_padding_is_the_expected_longest_of_a_batch():
    lengths = [3, 7, 20]
    every = [max(drawn) for drawn in itertools.product(lengths, repeat=3)]
    assert Rows(lengths).padded(3) == pytest.approx(sum(every) / len(every))


@pytest.mark.parametrize(
    ("trainer", "steps"),
    [({"max_steps": 7}, 7), ({"max_steps": -1, "epochs": 1.5}, 6), ({"max_steps": -1, "gradient_accumulation_steps": 3}, 2)],
)
def test_steps(files: Files, trainer: dict[str, Any], steps: int):
    assert estimate(case(files, trainer=trainer)).steps == steps


def test_steps_of_sampling_count_rounds_of_prompts(files: Files):
    algo = PPO(generations=4, iterations=2)  # 16 answers to 4 of 64 prompts a round, each round twice
    assert estimate(case(files, algo, trainer={"max_steps": -1})).steps == 32


def test_time_grows_with_steps_batch_and_sampling_and_a_resumed_run_has_less_of_it(files: Files):
    def time(**changes: Any) -> float:
        return estimate(case(files, **changes)).seconds

    assert time(trainer={"max_steps": 40}) == pytest.approx(2 * time())
    assert time(done=15) == pytest.approx(time() / 4)
    assert time(trainer={"batch_size": 32}) > 1.5 * time()
    once = (time(held_out=64) - time()) / 2  # before the first step and after the last
    assert once == pytest.approx(4 * (2 * PARAMETERS * 1600 / 1e10 + LAYERS * 1e-3))
    assert time(held_out=64, trainer={"eval_steps": 8, "save_steps": 8}) == pytest.approx(time() + 4 * once)
    assert time(peft=Lora()) < time() < time(trainer={"gradient_checkpointing": True})
    # 6 operations a parameter and token, and three passes through the layers a step.
    assert time() == pytest.approx(20 * (6 * PARAMETERS * 1600 / 1e10 + 3 * LAYERS * 1e-3 + 1e-3))
    assert time(algo=PPO()) > time(algo=RLOO(generations=2)) > time(algo=RLOO(generations=2, max_new_tokens=8))


def test_disk_holds_what_is_trained_with_its_optimizer(files: Files):
    trainer = {"max_steps": 100, "eval_steps": 10, "save_steps": 10}
    full, lora, ppo = (
        estimate(case(files, algo, peft=peft, trainer=trainer))
        for algo, peft in ((SFT(), Full()), (SFT(), Lora()), (PPO(), Full()))
    )
    assert full.checkpoint == pytest.approx(12 * PARAMETERS, abs=10**5) and full.disk == 10 * full.checkpoint
    assert lora.checkpoint == pytest.approx(12 * ADAPTER, abs=10**5)
    assert ppo.checkpoint - full.checkpoint == 12 * PARAMETERS
    assert estimate(case(files, trainer={**trainer, "save_total_limit": 2})).disk == 3 * full.checkpoint


def test_the_nearest_earlier_runs_correct_by_their_median():
    runs = [("tiny", "sft", "none", 1), ("tiny", "sft", "none", 2), ("tiny", "sft", "none", 9), ("tiny", "sft", "lora", 5)]
    facts = [
        ({"tags.base": base, "params.choice.algo": algo, "params.choice.peft": peft}, Past(ratio, 10 * ratio))
        for base, algo, peft, ratio in runs
    ]

    def find(same: Mapping[str, str]) -> list[Past]:
        return [past for fact, past in facts if same.items() <= fact.items()]

    assert correction(find, "tiny", "sft", "none") == Correction(2, 20, 3)
    assert correction(find, "tiny", "sft", "lora") == Correction(5, 50, 1)
    assert correction(find, "other", "sft", "none") == Correction(3.5, 35, 4)
    assert correction(find, "tiny", "dpo", "none") == Correction(3.5, 35, 4)
    assert correction(lambda same: [], "tiny", "sft", "none") == Correction(1, 1, 0)


def test_a_run_tells_how_far_the_prediction_before_its_correction_was_off():
    metrics = {"predicted/raw_memory_bytes": 4.0, "real/memory_bytes": 6.0, "predicted/memory_bytes": 5.0}
    metrics |= {"predicted/raw_seconds": 10.0, "real/seconds": 15.0, "predicted/seconds": 30.0}
    assert told(metrics | {"predicted/steps": 40, "real/steps": 40}) == Past(1.5, 1.5)
    assert told(metrics | {"predicted/steps": 40, "real/steps": 10}) == Past(1.5, 6.0)  # it stopped early
    assert told(metrics | {"predicted/steps": 0, "real/steps": 0}) is None
    assert told({"real/seconds": 15.0}) is None


def test_a_correction_scales_the_prediction_and_the_record_keeps_both(files: Files):
    plain, corrected = estimate(case(files)), estimate(case(files, correction=Correction(1.5, 3.0, 4)))
    assert corrected.memory == int(1.5 * plain.memory) and corrected.seconds == pytest.approx(3 * plain.seconds)
    run = MemoryRun()
    preflight.record(run, corrected, 0)
    written = {key: value for key, value, *_ in run.kept_metrics}
    assert written["predicted/raw_memory_bytes"] == plain.memory and written["predicted/raw_seconds"] == plain.seconds
    assert written["predicted/memory_bytes"] == corrected.memory and written["predicted/seconds"] == corrected.seconds
    assert "(corrected by 4 earlier runs)" in corrected.facts()["time"] and "(uncorrected)" in plain.facts()["time"]


def needed(files: Files, algo: Any = None, **changes: Any) -> int:
    return estimate(case(files, algo, **changes)).memory


def change(files: Files, memory: int, algo: Any = None, **changes: Any) -> str | None:
    """The change that is found; what it says it needs fits, and is what its settings need."""
    tight = case(files, algo, memory, **changes)
    found = sparing.fitting(tight)
    assert found is None or found[1].memory <= memory
    return found and " ".join(found[0])


def test_the_change_that_costs_least_is_named_and_nothing_that_does_not_help(files: Files):
    half = {"batch_size": 8, "gradient_accumulation_steps": 2}
    assert change(files, needed(files)) == ""
    assert change(files, needed(files) - 1) == "trainer.batch_size=8 trainer.gradient_accumulation_steps=2"
    assert change(files, needed(files, trainer=half)) == "trainer.batch_size=8 trainer.gradient_accumulation_steps=2"
    least = {"batch_size": 1, "gradient_accumulation_steps": 16}
    recomputed = needed(files, trainer={**least, "gradient_checkpointing": True})
    assert change(files, recomputed) == (
        "trainer.batch_size=1 trainer.gradient_accumulation_steps=16 trainer.gradient_checkpointing=true"
    )
    single = {"batch_size": 1}
    assert change(files, needed(files, trainer=single, peft=Lora()), trainer=single) == "peft=lora"
    short = needed(files, SFT(max_tokens=32), trainer={**least, "gradient_checkpointing": True}, peft=Lora())
    assert change(files, short) == (
        "trainer.batch_size=1 trainer.gradient_accumulation_steps=16 trainer.gradient_checkpointing=true peft=lora "
        "algo.max_tokens=32"
    )
    assert change(files, 4 * PARAMETERS) is None


def test_what_only_one_method_can_save(files: Files):
    one = {"batch_size": 1, "gradient_checkpointing": True}
    without = needed(files, DPO(), trainer=one)
    assert str(change(files, without, DPO(precompute=False))).endswith("algo.precompute=true")
    teacher = Distill(teacher=str(files.place.folder))
    with_top = needed(files, replace(teacher, top_k=64))
    assert change(files, with_top, teacher) != "" and change(files, needed(files, teacher), teacher) == ""
    big = case(files, teacher, 1).settings.algo.lighter()
    assert list(big) == ["algo.top_k=64"]


def test_a_smaller_batch_keeps_the_rules_of_its_method(files: Files):
    """KTO compares the rows of a batch; a round of GRPO holds whole groups."""
    least = needed(files, KTO(), trainer={"batch_size": 2})
    assert change(files, least, KTO()) == "trainer.batch_size=2 trainer.gradient_accumulation_steps=8"
    spare = {"batch_size": 2, "gradient_checkpointing": True}
    assert "batch_size=2 " in str(change(files, needed(files, KTO(max_tokens=16), trainer=spare, peft=Lora()), KTO()))
    assert change(files, needed(files, KTO(max_tokens=16), trainer=spare, peft=Lora()) - 1, KTO()) is None
    fixed = GRPO(generations=8, steps_per_generation=1)
    assert change(files, needed(files, fixed, trainer={"batch_size": 8}), fixed) == (
        "trainer.batch_size=8 trainer.gradient_accumulation_steps=2"
    )
    assert "batch_size=4 " not in str(change(files, needed(files, fixed, trainer={"batch_size": 4}), fixed))


def test_what_cannot_fit_is_refused_and_what_might_not_is_warned_of(files: Files, capsys: pytest.CaptureFixture[str]):
    def checked(memory: int, **changes: Any) -> None:
        one = case(files, memory=memory, **changes)
        preflight.refuse_impossible(one, estimate(one))

    checked(needed(files))
    assert capsys.readouterr().err == ""
    checked(needed(files) - 1)
    assert "trainer.batch_size=8 trainer.gradient_accumulation_steps=2 it needs about" in capsys.readouterr().err
    least = GB // 10 + 16 * PARAMETERS
    with pytest.raises(UserError, match=r"^\./model: at least .* \(gradients and optimizer .*\), .* with .*peft=lora it needs"):
        checked(least - 1)
    with pytest.raises(UserError, match="no setting makes it fit: take a smaller model"):
        checked(GB // 10)
    with pytest.raises(UserError, match=r"one checkpoint needs .* of disk are free; with peft=lora it"):
        checked(100 * GB, disk=6 * PARAMETERS)
    checked(100 * GB, disk=13 * PARAMETERS, trainer={"save_steps": 5, "eval_steps": 5})
    assert "set trainer.save_total_limit" in capsys.readouterr().err


def test_a_teacher_that_does_not_fit_is_named(files: Files, tmp_path: Path):
    teacher = str(written(tmp_path / "teacher", {"model.embed_tokens.weight": (10**9, HIDDEN)}))
    one = case(files, Distill(teacher=teacher))
    with pytest.raises(UserError, match=r"teacher: at least .* \(teacher 2\.0 TB\), .* take a smaller teacher"):
        preflight.refuse_impossible(one, estimate(one))


def group(folder: Path, **numbers: int | str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in numbers.items():
        (folder / name.replace("__", ".")).write_text(f"{value}\n")


def test_the_limit_of_a_container_counts(tmp_path: Path):
    member, root = tmp_path / "member", tmp_path / "cgroup"
    group(root / "job" / "task", memory__max="max", memory__current=5, memory__stat="anon 3\ninactive_file 2")
    group(root / "job", memory__max=100, memory__current=60, memory__stat="anon 30\ninactive_file 20")
    member.write_text("0::/job/task\n")
    assert machine.cgroup_rooms(root, member) == [60]
    member.write_text("0::/elsewhere/outside\n")  # as it is called outside of the container
    group(root, memory__max=50, memory__current=60, memory__stat="inactive_file 0")
    assert machine.cgroup_rooms(root, member) == [0]
    group(root / "memory", memory__limit_in_bytes=2**63 - 4096, memory__usage_in_bytes=1, memory__stat="total_inactive_file 0")
    group(root / "memory" / "a", memory__limit_in_bytes=90, memory__usage_in_bytes=30, memory__stat="total_inactive_file 10")
    member.write_text("9:cpu,cpuacct:/a\n4:memory:/a\n1:name=systemd:/\n")
    assert machine.cgroup_rooms(root, member) == [70]
    assert machine.cgroup_rooms(root, tmp_path / "none") == []


@pytest.mark.parametrize(
    ("count", "said"), [(0.31, "0.3 s"), (42.4, "42 s"), (134, "2 min 14 s"), (7500, "2 h 5 min"), (200_000, "2 d 7 h")]
)
def test_durations(count: float, said: str):
    assert console.seconds(count) == said
