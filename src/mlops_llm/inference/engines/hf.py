"""transformers in this process."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

from mlops_llm.component import component
from mlops_llm.inference.draws import Draws, StopTexts
from mlops_llm.inference.engine import Care, Class, Failure, Generation, Request, Sampling, Session
from mlops_llm.inference.prompts import Prompt, coded
from mlops_llm.inference.server import Server, serving
from mlops_llm.inference.stops import cut, told_apart
from mlops_llm.models import load
from mlops_llm.models.load import Dtype, Files, ModelLoad

SERVE = "mlops_llm.inference.hf_server"
PATIENCE = 900.0
"""Seconds that a server may take to load its model."""
LARGEST = 2**28
"""Numbers in the logits of one forward pass of `logprobs`, at most: 1 GiB in float32."""


@component("engine", "hf")
@dataclass
class Hf:
    """transformers' generate in this process, in batches of like length: runs everywhere, and is slower than vllm."""

    family: ClassVar[str] = "hf"
    local: ClassVar[bool] = True

    @property
    def decisive(self) -> Mapping[str, Any]:
        """None."""
        return {}

    def check(self) -> None:
        """Runs everywhere."""

    @contextmanager
    def open(self, files: Files | None, how: ModelLoad, tokenizer: Any, window: int | None) -> Iterator[Session]:
        """Load the model, an adapter merged into its base.

        Raises:
            UserError: the model cannot be loaded.
        """
        import torch

        if files is None:
            raise ValueError("needs a model's files")
        model = load.model(files, how, merge=True).to("cuda" if torch.cuda.is_available() else "cpu")
        yield HfSession(model.eval(), tokenizer, window)

    def dtype(self, files: Files, how: ModelLoad) -> Dtype:
        """The number format of arithmetic."""
        return load.dtype_of(how.dtype)

    @contextmanager
    def serve(self, folder: Path, how: ModelLoad, names: Sequence[str]) -> Iterator[Server]:
        """Start our server of transformers on a whole model.

        Raises:
            UserError: it does not start; what it said last is told.
        """
        command = [sys.executable, "-m", SERVE, str(folder), "--dtype", how.dtype.name]
        more = {"TOKENIZERS_PARALLELISM": "false"}
        with serving(command, more, PATIENCE, names, "transformers' server", locked=True) as server:
            yield server


class HfSession:
    """An open model of transformers."""

    def __init__(self, model: Any, tokenizer: Any, window: int | None) -> None:
        """Keep the model, in evaluation mode, and its tokenizer.

        What the model's generation_config says of sampling is dropped, so that only `Sampling` counts; its end marks stay.
        """
        from transformers import GenerationConfig

        self.model, self.tokenizer, self.window = model, tokenizer, window
        self.own = model.generation_config
        """What the model's files say of sampling; lm-eval goes by it."""
        ends = model.generation_config.eos_token_id
        self.ends = {*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id} - {None}
        """Ids of tokens that end an answer."""
        model.generation_config = GenerationConfig()

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, care: Care
    ) -> Iterator[tuple[int, Generation | Failure]]:
        """Answer in batches of like length, the longest first, so that what memory cannot hold is known at once.

        A batch may take `care.timeout` for each of its answers; those that are not finished then have failed. Prompts that
        leave less room than `sampling.max_new_tokens` go with those that leave as much.
        """
        fit, full = coded(self.tokenizer, requests, sampling.max_new_tokens, self.window)
        yield from full
        fit.sort(key=lambda each: -len(each.ids))
        for _, same in groupby(fit, key=lambda each: each.most):
            prompts = list(same)
            for start in range(0, len(prompts), sampling.batch_size):
                part = prompts[start : start + sampling.batch_size]
                for prompt, found in zip(part, self._batch(part, sampling, care), strict=True):
                    yield prompt.request.place, found

    def _batch(self, prompts: Sequence[Prompt], sampling: Sampling, care: Care) -> list[Generation | Failure]:
        import torch
        from transformers import GenerationConfig

        most, limit = prompts[0].most, care.timeout * len(prompts)
        asked, pad, device = max(len(each.ids) for each in prompts), self.tokenizer.pad_token_id, self.model.device
        ids = torch.tensor([[pad] * (asked - len(each.ids)) + each.ids for each in prompts], device=device)
        mask = torch.tensor([[0] * (asked - len(each.ids)) + [1] * len(each.ids) for each in prompts], device=device)
        special, texts = told_apart(self.tokenizer, sampling.stop)
        ends = self.ends | set(special)
        how = GenerationConfig(
            max_new_tokens=most,
            do_sample=False,  # each row is drawn from by its own seed, see Draws
            use_cache=True,
            pad_token_id=pad,
            eos_token_id=sorted(ends) or None,
            max_time=limit,
        )
        began = time.perf_counter()
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=how,
                logits_processor=[] if sampling.greedy else [Draws(sampling, [each.request.seed for each in prompts], most)],
                stopping_criteria=[StopTexts(self.tokenizer, texts, asked, ends)] if texts else [],
            )
        seconds = time.perf_counter() - began
        share = seconds / len(prompts)
        is_late = seconds >= limit and out.shape[1] - asked < most
        found = list[Generation | Failure]()
        for prompt, row in zip(prompts, out[:, asked:].tolist(), strict=True):
            text, tokens, is_whole = self._answer(row, ends, texts)
            if is_late and not is_whole:
                found.append(Failure(Class.timeout, f"not finished in {limit:g} s with {len(prompts)} answers at once", share))
            else:
                found.append(Generation(text, tokens, len(prompt.ids), share, not is_whole))
        return found

    def _answer(self, ids: list[int], ends: set[int], stop: Sequence[str]) -> tuple[str, int, bool]:
        """Text, tokens, and whether it came to its own end."""
        end = next((place for place, token in enumerate(ids) if token in ends), None)
        if stop and (found := cut(self.tokenizer, ids[:end], stop)):
            return *found, True
        # An answer may end within a character, whose first bytes alone are none.
        text = str(self.tokenizer.decode(ids[:end], skip_special_tokens=True)).rstrip("\ufffd")
        return text, len(ids) if end is None else end + 1, end is not None

    def logprobs(
        self, sequences: Sequence[Sequence[int]], begins: Sequence[int], batch_size: int, care: Care
    ) -> Iterator[tuple[int, list[float]]]:
        """Log-probabilities of the tokens from a place on, in batches of like length.

        Logits are computed from the first wanted token of a batch on; a batch whose logits would be too many is halved.
        """
        order = sorted(range(len(sequences)), key=lambda place: (-len(sequences[place]), place))
        waiting = [order[start : start + batch_size] for start in range(0, len(order), batch_size)][::-1]
        while waiting:
            places = waiting.pop()
            first = min(begins[place] for place in places) - 1
            size = len(places) * (len(sequences[places[0]]) - first) * self.model.config.get_text_config().vocab_size
            if size > LARGEST and len(places) > 1:
                half = len(places) // 2
                waiting += [places[half:], places[:half]]
                continue
            rows = self._logprobs([list(sequences[place]) for place in places], first)
            for place, row in zip(places, rows, strict=True):
                yield place, row[begins[place] - 1 - first : len(sequences[place]) - 1 - first]

    def _logprobs(self, rows: list[list[int]], first: int) -> Iterator[list[float]]:
        """Of each row, the longest first, the log-probabilities of its tokens from place `first` + 1 on, padding included."""
        import torch

        most, pad = len(rows[0]), self.tokenizer.pad_token_id
        ids = torch.tensor([row + [pad] * (most - len(row)) for row in rows], device=self.model.device)
        mask = torch.tensor([[1] * len(row) + [0] * (most - len(row)) for row in rows], device=ids.device)
        kept = torch.arange(first, most - 1, device=ids.device)
        with torch.inference_mode():
            logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=kept).logits
            for row, said in zip(ids, logits, strict=True):
                yield said.float().log_softmax(-1).gather(1, row[first + 1 :, None])[:, 0].tolist()
