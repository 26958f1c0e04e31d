"""transformers in this process."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from mlops_llm.component import component
from mlops_llm.inference.engine import Care, Class, Failure, Generation, Request, Sampling, Session
from mlops_llm.models import load
from mlops_llm.models.load import Files, ModelLoad


@component("engine", "hf")
@dataclass
class Hf:
    """transformers' generate in this process, in batches of like length: runs everywhere, and is slower than vllm."""

    family: ClassVar[str] = "hf"
    local: ClassVar[bool] = True

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


class HfSession:
    """An open model of transformers."""

    def __init__(self, model: Any, tokenizer: Any, window: int | None) -> None:
        """Keep the model, in evaluation mode, and its tokenizer; the tokenizer stays as it is."""
        self.model, self.tokenizer, self.window = model, tokenizer, window
        self.own = model.generation_config
        """What the model's files say of sampling; lm-eval goes by it."""
        self._left = copy.deepcopy(tokenizer)
        self._left.padding_side = "left"
        ends = model.generation_config.eos_token_id
        self._ends = {*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id} - {None}

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, care: Care
    ) -> Iterator[tuple[int, Generation | Failure]]:
        """Answer in batches of like length, the longest first, so that what memory cannot hold is known at once.

        A batch may take `care.timeout` for each of its answers; those that are not finished then have failed.
        """
        lengths = [len(each) for each in self._left([one.text for one in requests], add_special_tokens=False)["input_ids"]]
        order = sorted(range(len(requests)), key=lambda place: (-lengths[place], place))
        room = [place for place in order if not self.window or lengths[place] < self.window]
        for place in set(order) - set(room):
            yield requests[place].place, Failure(Class.too_long, f"{lengths[place]} tokens fill the model's {self.window}")
        for start in range(0, len(room), sampling.batch_size):
            places = room[start : start + sampling.batch_size]
            found = self._batch([requests[place] for place in places], max(lengths[place] for place in places), sampling, care)
            yield from ((requests[place].place, each) for place, each in zip(places, found, strict=True))

    def _batch(self, requests: list[Request], longest: int, sampling: Sampling, care: Care) -> list[Generation | Failure]:
        import torch
        from transformers import GenerationConfig

        most = min(sampling.max_new_tokens, (self.window or longest + sampling.max_new_tokens) - longest)
        batch = self._left([one.text for one in requests], return_tensors="pt", padding=True, add_special_tokens=False)
        limit = care.timeout * len(requests)
        how = GenerationConfig(
            max_new_tokens=most,
            do_sample=False,  # a row's own random numbers are added to its logits instead, so that no row depends on another
            use_cache=True,
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=sorted(self._ends),
            max_time=limit,
            stop_strings=sampling.stop or None,
        )
        began = time.perf_counter()
        with torch.inference_mode():
            out = self.model.generate(
                **batch.to(self.model.device),
                generation_config=how,
                logits_processor=[] if sampling.greedy else [_Drawn(sampling, [one.seed for one in requests])],
                tokenizer=self._left if sampling.stop else None,
            )
        seconds = time.perf_counter() - began
        asked = batch["input_ids"].shape[1]
        prompts = batch["attention_mask"].sum(1).tolist()
        rows = [self._answer(row[asked:].tolist(), sampling, most) for row in out]
        is_late = seconds >= limit
        return [
            Failure(Class.timeout, f"not finished in {care.timeout:g} s", seconds / len(requests))
            if not is_done and (is_late and len(out[0]) - asked < most)
            else Generation(text, tokens, prompt, seconds / len(requests), not is_done)
            for (text, tokens, is_done), prompt in zip(rows, prompts, strict=True)
        ]

    def _answer(self, ids: list[int], sampling: Sampling, most: int) -> tuple[str, int, bool]:
        """Text, tokens, and whether it came to its own end."""
        end = next((place for place, token in enumerate(ids) if token in self._ends), None)
        text = str(self.tokenizer.decode(ids[:end], skip_special_tokens=True))
        places = [text.find(each) for each in sampling.stop if each in text]
        if places:
            text = text[: min(places)]
            return text.strip(), len(self.tokenizer(text, add_special_tokens=False)["input_ids"]), True
        return text.strip(), len(ids) if end is None else end + 1, end is not None

    def logprobs(
        self, sequences: Sequence[Sequence[int]], begins: Sequence[int], batch_size: int
    ) -> Iterator[tuple[int, list[float]]]:
        """Log-probabilities of the tokens from a place on, in batches of like length."""
        import torch

        order = sorted(range(len(sequences)), key=lambda place: (-len(sequences[place]), place))
        pad = self.tokenizer.pad_token_id
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            most = len(sequences[places[0]])
            rows = [list(sequences[place]) + [pad] * (most - len(sequences[place])) for place in places]
            ids = torch.tensor(rows, device=self.model.device)
            mask = torch.tensor([[1] * len(sequences[place]) + [0] * (most - len(sequences[place])) for place in places])
            with torch.inference_mode():
                logits = self.model(input_ids=ids, attention_mask=mask.to(ids.device), use_cache=False).logits
            for row, place in enumerate(places):
                first, length = begins[place], len(sequences[place])
                said = logits[row, first - 1 : length - 1].float().log_softmax(-1)
                found = said.gather(1, ids[row, first:length, None])[:, 0]
                yield place, found.tolist()


class _Drawn:
    """Makes the likeliest token a drawn one: Gumbel noise from each row's own generator is added to its logits.

    The largest of log p + noise is a sample of p (Gumbel 1954; Maddison et al. 2014, arXiv:1411.0030, section 2).
    """

    def __init__(self, sampling: Sampling, seeds: list[int]) -> None:
        import torch

        self._sampling = sampling
        self._drawn = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, ids: Any, logits: Any) -> Any:
        import torch
        from transformers import TemperatureLogitsWarper, TopPLogitsWarper

        logits = TemperatureLogitsWarper(float(self._sampling.temperature))(ids, logits)
        if self._sampling.top_p < 1:
            logits = TopPLogitsWarper(self._sampling.top_p)(ids, logits)
        uniform = torch.stack([torch.rand(logits.shape[1], generator=each) for each in self._drawn])
        return logits - torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7))).to(logits.device)
