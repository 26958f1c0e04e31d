"""The yardstick of `methods.py`: a training as a TRL user writes it, recording nothing but what the Trainer does.

Rows are given as TRL's conversational columns, and the reward of sampled answers is a short function. The last line is JSON:
seconds in `trainer.train()`, optimizer steps, and the SHA-256 of the weights.
"""

import argparse
import hashlib
import json
import re
import time
from pathlib import Path


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--method", required=True, choices=("dpo", "kto", "reward", "grpo", "rloo"))
    parser.add_argument("--model", required=True, help="model folder")
    parser.add_argument("--train", type=Path, required=True, help="JSON lines")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    return parser.parse_args()


def rows(method: str, path: Path) -> list[dict]:
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]

    def turn(role: str, text: str) -> list[dict]:
        return [{"role": role, "content": text}]

    asked = [(turn("user", line["prompt"]), line) for line in lines]
    if method in ("grpo", "rloo"):
        return [{"prompt": prompt, "solution": line["solution"]} for prompt, line in asked]
    sides = [(prompt, turn("assistant", line["chosen"]), turn("assistant", line["rejected"])) for prompt, line in asked]
    if method == "kto":
        answered = [(prompt, side, side is chosen) for prompt, chosen, rejected in sides for side in (chosen, rejected)]
        return [{"prompt": prompt, "completion": answer, "label": label} for prompt, answer, label in answered]
    return [{"prompt": prompt, "chosen": chosen, "rejected": rejected} for prompt, chosen, rejected in sides]


def boxed(completions: list, solution: list, **_: object) -> list[float]:
    """1 where the last box of an answer holds the solution."""
    found = [re.findall(r"\\boxed\{([^}]*)\}", completion[0]["content"]) for completion in completions]
    return [float(bool(boxes) and boxes[-1] == wanted) for boxes, wanted in zip(found, solution, strict=True)]


def trainer(asked: argparse.Namespace):
    import torch
    import trl
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, set_seed

    from datasets import Dataset

    cuda = torch.cuda.is_available()
    set_seed(0)
    common = {
        "output_dir": "plain", "max_steps": asked.steps, "per_device_train_batch_size": asked.batch,
        "learning_rate": asked.learning_rate, "lr_scheduler_type": "constant", "warmup_steps": 0, "weight_decay": 0.0,
        "max_grad_norm": 1.0, "logging_steps": 10, "save_strategy": "steps", "save_steps": asked.steps, "bf16": cuda,
        "gradient_checkpointing": False, "use_cpu": not cuda, "dataloader_pin_memory": cuda, "seed": 0, "data_seed": 0,
        "report_to": "none", "disable_tqdm": True,
    }  # fmt: skip
    sampled = {"num_generations": 8, "max_completion_length": 24, "remove_unused_columns": False}
    name, more = {
        "dpo": ("DPO", {"precompute_ref_log_probs": True, "max_length": 512}),
        "kto": ("KTO", {"max_length": 512}),
        "reward": ("Reward", {"max_length": 512}),
        "grpo": ("GRPO", sampled),
        "rloo": ("RLOO", {**sampled, "beta": 0.0}),
    }[asked.method]
    form, head = (
        (AutoModelForSequenceClassification, {"num_labels": 1}) if asked.method == "reward" else (AutoModelForCausalLM, {})
    )
    model = form.from_pretrained(asked.model, dtype=torch.bfloat16 if cuda else torch.float32, **head)
    extra = {"reward_funcs": [boxed]} if name in ("GRPO", "RLOO") else {}
    if asked.method == "kto":
        extra["ref_model"] = form.from_pretrained(asked.model, dtype=model.dtype)
    return getattr(trl, f"{name}Trainer")(
        model=model,
        args=getattr(trl, f"{name}Config")(**common, **more),
        train_dataset=Dataset.from_list(rows(asked.method, asked.train)),
        processing_class=AutoTokenizer.from_pretrained(asked.model),
        **extra,
    )


def main() -> None:
    asked = arguments()
    made = trainer(asked)
    began = time.perf_counter()
    made.train()
    seconds = time.perf_counter() - began
    weights = (Path("plain") / f"checkpoint-{asked.steps}" / "model.safetensors").read_bytes()
    print(json.dumps({"seconds": seconds, "steps": made.state.global_step, "weights": hashlib.sha256(weights).hexdigest()}))


if __name__ == "__main__":
    main()
