"""Train the embedded model from nothing: tokenizer, then weights, in two to three minutes on one slow core."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlops_llm import files
from mlops_llm.models.template import CHATML
from mlops_llm.models.tiny import corpus

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VOCABULARY = 1024
LENGTH = 512
BATCH = 32
LEARNING_RATE = 4e-3
EXCHANGES = 8000


def build(out: Path, seed: int = 0, steps: int = 700) -> Path:
    """Train tokenizer and model and write them as a Hugging Face folder.

    On the CPU the same seed, steps and library versions give the same weights; another torch release may not.

    Args:
        out: a folder that does not exist yet; it appears complete or not at all.
        seed: of the corpus, the first weights and the order of rows.
        steps: optimizer steps of 32 rows; 700 is what ships.

    Raises:
        UserError: `out` exists, or its parent cannot be written.
    """
    with files.whole_folder(out) as draft, _repeatable(seed):
        rows = corpus.exchanges(seed, EXCHANGES)
        tokenizer = _tokenizer(seed)
        model = _model(tokenizer)
        _train(model, tokenizer, rows, seed, steps)
        model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        for file in draft.iterdir():
            file.chmod(0o644)  # safetensors writes for the owner alone
    return out


@contextmanager
def _repeatable(seed: int) -> Iterator[None]:
    """Seed torch and make it deterministic on one thread; put everything back afterwards."""
    import torch

    threads, before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]):
        try:
            torch.set_num_threads(1)
            torch.use_deterministic_algorithms(True)
            torch.manual_seed(seed)
            yield
        finally:
            torch.use_deterministic_algorithms(before)
            torch.set_num_threads(threads)


def _tokenizer(seed: int) -> Any:
    """Train a byte-level BPE on more of the shop's talk than the model sees, for sums need few merges."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, START, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    talk = corpus.exchanges(seed, 3000, sums=0.2)
    bpe.train_from_iterator((f"user\n{each.prompt}\nassistant\n{each.response}" for each in talk), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token=PAD, eos_token=END, model_max_length=LENGTH, padding_side="right"
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def _model(tokenizer: Any) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen2ForCausalLM(config)


def _train(model: Any, tokenizer: Any, rows: list[corpus.Exchange], seed: int, steps: int) -> None:
    """Fit whole texts with AdamW on a one-cycle schedule; rows are drawn without regard to earlier batches."""
    import torch

    ids = functools.cache(lambda place: _ids(tokenizer, rows[place]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=max(steps, 2), pct_start=0.1)
    order = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(steps):
        drawn = torch.randint(len(rows), (BATCH,), generator=order).tolist()
        picked = sorted((ids(place) for place in drawn), key=len)
        learned = sum(len(row) - 1 for row in picked)
        # Sums are short and shop talk is long: apart, the batch has little padding.
        for part in (picked[: BATCH * 3 // 4], picked[BATCH * 3 // 4 :]):
            batch = tokenizer.pad({"input_ids": part}, return_tensors="pt")
            labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
            model(**batch, labels=labels, num_items_in_batch=learned).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.eval()


def _ids(tokenizer: Any, row: corpus.Exchange) -> list[int]:
    """Render an exchange with the chat template and tokenize it."""
    messages = [{"role": "user", "content": row.prompt}, {"role": "assistant", "content": row.response}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
