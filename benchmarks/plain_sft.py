"""The yardstick of `train.py`: supervised fine-tuning as a TRL user writes it, recording nothing but what the Trainer does.

It takes the settings of our run: model folder, rows, batch, learning rate and its schedule, logging, evaluation (also before
step 1) and checkpoint steps, number format, seed. Rows become TRL's conversational prompt and completion. The last line is
JSON: seconds from start to training, in `trainer.train()` and after it, the peak of memory, and the SHA-256 of the weights.
Token ids and labels are those of our run (the end mark and the newline after an answer are learned in both), so the weights
ought to be the same bit for bit.
"""

import time

STARTED = time.time()

import argparse  # noqa: E402
import hashlib  # noqa: E402
import json  # noqa: E402
import resource  # noqa: E402
from pathlib import Path  # noqa: E402


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", required=True, help="model folder")
    parser.add_argument("--train", type=Path, required=True, help="JSON lines of prompt and response")
    parser.add_argument("--validation", type=Path, required=True, help="held-out rows, likewise")
    parser.add_argument("--output", default="plain", help="folder of the checkpoints")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--schedule", default="cosine")
    parser.add_argument("--warmup", type=float, default=0.05, help="share of the steps")
    parser.add_argument("--logging-steps", type=int, default=10)
    parser.add_argument("--eval-steps", type=int, required=True)
    parser.add_argument("--save-steps", type=int, required=True)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--lora", action="store_true", help="rank 8, alpha 16, all linear layers")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def rows(path: Path):
    from datasets import Dataset

    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
    return Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": line["prompt"]}],
                "completion": [{"role": "assistant", "content": line["response"]}],
            }
            for line in lines
        ]
    )


def main() -> None:
    asked = arguments()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
    from trl import SFTConfig, SFTTrainer

    cuda = torch.cuda.is_available()
    set_seed(asked.seed)
    tokenizer = AutoTokenizer.from_pretrained(asked.model)
    model = AutoModelForCausalLM.from_pretrained(asked.model, dtype=torch.bfloat16 if cuda else torch.float32)
    adapter = None
    if asked.lora:
        from peft import LoraConfig

        adapter = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    settings = SFTConfig(
        output_dir=asked.output,
        max_steps=asked.steps,
        per_device_train_batch_size=asked.batch,
        per_device_eval_batch_size=asked.batch,
        learning_rate=asked.learning_rate,
        lr_scheduler_type=asked.schedule,
        warmup_steps=asked.warmup,
        weight_decay=0.0,
        max_grad_norm=1.0,
        logging_steps=asked.logging_steps,
        eval_strategy="steps",
        eval_steps=asked.eval_steps,
        eval_on_start=True,
        save_strategy="steps",
        save_steps=asked.save_steps,
        max_length=asked.max_length,
        gradient_checkpointing=False,
        bf16=cuda,
        use_cpu=not cuda,
        dataloader_pin_memory=cuda,
        seed=asked.seed,
        data_seed=asked.seed,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = SFTTrainer(
        model=model,
        args=settings,
        train_dataset=rows(asked.train),
        eval_dataset=rows(asked.validation),
        processing_class=tokenizer,
        peft_config=adapter,
    )
    began = time.time()
    trainer.train()
    trained = time.time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    name = "adapter_model.safetensors" if asked.lora else "model.safetensors"
    weights = (Path(asked.output) / f"checkpoint-{asked.steps}" / name).read_bytes()
    print(
        json.dumps(
            {
                "began": began,
                "start_up": began - STARTED,
                "training": trained - began,
                "closing": time.time() - trained,
                "peak_mb": peak,
                "weights": hashlib.sha256(weights).hexdigest(),
            }
        )
    )


if __name__ == "__main__":
    main()
