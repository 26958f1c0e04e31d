"""`python -m mlops_llm.registry.serving.expected FOLDER DTYPE FILE`: what a model must say to the probe, told by transformers.

A process of its own, on the CPU: the model's memory is free again before the server takes its own, or while another serves.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlops_llm.errors import UserError
from mlops_llm.files import write_text

CONVERSATIONS: tuple[list[dict[str, str]], ...] = (
    [{"role": "user", "content": "请用一句话介绍你自己。"}],
    [{"role": "user", "content": "What is 17 + 25? Answer with the number."}],
    [
        {"role": "user", "content": "Name a colour."},
        {"role": "assistant", "content": "Blue."},
        {"role": "user", "content": "再说一种。"},
    ],
)
TOKENS = 16
TOP = 8
"""Likeliest tokens that are kept of each place: where two are as good, arithmetic of another order may take the other."""


@dataclass(frozen=True)
class Expected:
    """What a model answers to one conversation, always taking the likeliest token."""

    messages: Sequence[dict[str, str]]
    prompt: Sequence[int]
    """Token ids of the conversation as the template writes it."""
    places: Sequence[dict[str, float]]
    """Of each token of the answer the likeliest ids with their log-probabilities (nats), the taken one first."""
    texts: Sequence[dict[str, str]]
    """The same ids as texts, for servers that tell no ids."""


def expected(folder: Path, dtype: str) -> list[Expected]:
    """What the model in a folder must say.

    Args:
        folder: of a whole model with its template.
        dtype: name of the number format that the server computes in.

    Raises:
        UserError: the model cannot be loaded or asked.
    """
    with tempfile.TemporaryDirectory(prefix="mlops_llm-") as name:
        path = Path(name) / "expected.json"
        command = [sys.executable, "-m", __name__, str(folder), dtype, str(path)]
        kept = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TRANSFORMERS_VERBOSITY": "error"}
        done = subprocess.run(command, env=kept, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or [f"code {done.returncode}"])[-1]
            raise UserError(f"cannot be asked by transformers: {said[:300]}", str(folder), "see that its files are whole")
        return [Expected(**each) for each in json.loads(path.read_text("utf-8"))]


def _told(folder: Path, dtype: str) -> list[Expected]:
    import torch
    from transformers import GenerationConfig

    from mlops_llm.inference.engines.hf import HfSession
    from mlops_llm.models import load, template
    from mlops_llm.models.load import Dtype, ModelLoad
    from mlops_llm.models.ref import Place

    how = ModelLoad(Dtype(dtype))
    files = load.inspect(Place(str(folder), folder), how)
    tokenizer = load.tokenizer_of(files)
    template.ensure(tokenizer, str(folder))
    model = load.model(files, how, merge=True).eval()
    session = HfSession(model, tokenizer, files.window)
    settings = GenerationConfig(
        max_new_tokens=TOKENS,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
        eos_token_id=sorted(session.ends) or None,
        pad_token_id=tokenizer.pad_token_id,
    )
    found = []
    for messages in CONVERSATIONS:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            out: Any = model.generate(input_ids=torch.tensor([ids]), generation_config=settings)
        places = []
        for logits in out.logits:
            best = logits[0].float().log_softmax(-1).topk(TOP)
            places.append({str(token): value for token, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)})
        texts = [{token: str(tokenizer.decode([int(token)])) for token in place} for place in places]
        found.append(Expected(messages, ids, places, texts))
    return found


if __name__ == "__main__":
    try:
        told = _told(Path(sys.argv[1]), sys.argv[2])
    except UserError as error:
        sys.exit(str(error))
    write_text(Path(sys.argv[3]), json.dumps([asdict(each) for each in told], ensure_ascii=False))
