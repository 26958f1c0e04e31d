"""What we use of TRL beyond its public classes: a newer TRL that changes it fails here, not in a training."""

from __future__ import annotations

import inspect
import re

import pytest
from transformers import Trainer
from trl import DPOTrainer, GRPOTrainer, KTOTrainer, RewardTrainer, RLOOTrainer, SFTTrainer
from trl.generation.vllm_generation import VLLMGeneration

from mlops_llm.train.algorithms.dpo import DPO
from mlops_llm.train.algorithms.grpo import GRPO
from mlops_llm.train.algorithms.kto import KTO
from mlops_llm.train.algorithms.reward import Reward
from mlops_llm.train.algorithms.rloo import RLOO
from mlops_llm.train.algorithms.sft import SFT
from mlops_llm.train.config import Train
from mlops_llm.train.rewards.format import Format
from mlops_llm.train.samplers.vllm import Vllm

USED = {
    VLLMGeneration: {"_iter_named_params": [], "sync_weights": []},
    DPOTrainer: {"_prepare_dataset": ["dataset"]},
    KTOTrainer: {"_prepare_dataset": ["dataset"]},
    GRPOTrainer: {
        "_calculate_rewards": ["inputs", "prompts", "completions"],
        "_generate_and_score_completions": ["inputs"],
        "_compute_loss": ["model", "inputs"],
        "_prepare_inputs": ["generation_batch"],
        "_get_per_token_logps_and_entropies": ["model", "input_ids", "attention_mask", "logits_to_keep", "batch_size"],
        "_save_checkpoint": ["model", "trial"],
        "_load_optimizer_and_scheduler": ["checkpoint"],
    },
    RLOOTrainer: {"_prepare_inputs": ["generation_batch"]},
}


@pytest.mark.parametrize(("trainer", "method"), [(trainer, method) for trainer, used in USED.items() for method in used])
def test_the_methods_that_we_override_or_call_are_there(trainer, method):
    parameters = list(inspect.signature(getattr(trainer, method)).parameters)
    assert parameters[0] == "self" and parameters[1 : 1 + len(USED[trainer][method])] == USED[trainer][method]


def test_where_vllm_takes_the_weights_from():
    assert inspect.getsource(VLLMGeneration.sync_weights).count("self._iter_named_params()") >= 3
    for trainer in (GRPOTrainer, RLOOTrainer):
        assert "self.vllm_generation = VLLMGeneration(" in inspect.getsource(trainer.__init__)
        assert "self.vllm_generation.sync_weights()" in inspect.getsource(trainer)


def test_what_we_read_and_set_of_trainers():
    for trainer in (GRPOTrainer, RLOOTrainer):
        source = inspect.getsource(trainer)
        for name in ("self._last_loaded_step", "self._logs", "self._metrics", "self._buffered_inputs"):
            assert name in source, (trainer.__name__, name)
    assert inspect.getsource(SFTTrainer.log).count("self._metrics[mode]") == 2
    for name in ("_save", "_load_from_checkpoint", "_prepare_inputs", "training_step", "remove_callback"):
        assert callable(getattr(Trainer, name)), name


def test_what_a_round_of_sampling_holds():
    source = inspect.getsource(GRPOTrainer._generate_and_score_completions)
    for key in (
        "prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages", "old_per_token_logps",
        "ref_per_token_logps",
    ):  # fmt: skip
        assert f'"{key}"' in source
    loss = inspect.getsource(GRPOTrainer._compute_loss)
    assert "advantages.dim() == 1" in loss and 'completion_mask * inputs["tool_mask"]' in loss


NOT_OF_OURS = {
    "num_tokens", "frac_reward_zero_std",  # left out by `train.callbacks.evaluation`
    "aux_loss",  # of experts alone: `train.deciding`
    "tools/call_frequency", "tools/failure_frequency", "policy_loss", "entropy_coef", "cispo_clip_ratio",
    "vespo/phi_seq_mean",  # of what no setting of ours asks for
}  # fmt: skip


@pytest.mark.parametrize(
    ("trainer", "algo"),
    [
        (SFTTrainer, SFT()),
        (DPOTrainer, DPO()),
        (KTOTrainer, KTO()),
        (RewardTrainer, Reward()),
        (GRPOTrainer, GRPO(beta=0.1)),
        (RLOOTrainer, RLOO()),
    ],
)
def test_the_numbers_of_an_evaluation_are_those_that_we_name(trainer, algo):
    told = set(re.findall(r'self\._metrics\[mode\]\[f?"([^"]+)"\]', inspect.getsource(trainer)))
    told = {name.replace("{reward_func_name}", "format") for name in told - NOT_OF_OURS} | {"loss"}
    rewarded = {"reward": {"format": Format()}, "rollout": Vllm()}
    named = set(algo.evaluated(Train(algo=algo, **(rewarded if algo.rewarded else {}))))
    assert named == {f"eval/{name}" for name in told - ({"loss"} if algo.rewarded else set())}
