"""An open session as lm-eval asks models. Imported late: lm-eval takes ten seconds."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text

from mlops_llm.eval.benchmarks.book import Book
from mlops_llm.inference.engine import Care, Failure, Request, Sampling, Session
from mlops_llm.inference.engines.hf import HfSession

_STOPS = 4
"""Texts at which a chat server ends an answer, at most."""


def model(session: Session, sampling: Sampling, care: Care, seed: int, local: bool, book: Book) -> Any:
    """The session as lm-eval asks it.

    Args:
        session: hf's is asked by lm-eval's own code, so that numbers are its own to the last digit.
        sampling: its batch size counts; all else is the task's.
        care: for servers.
        seed: of answers that are drawn.
        local: whether it has the model's files; else a chat server answers.
        book: keeps the answers.
    """
    if isinstance(session, HfSession):
        return Direct(session, sampling.batch_size, book)
    return Asked(session, sampling, care, seed, local, book)


class Direct(HFLM):  # type: ignore[misc]
    """lm-eval's own class for transformers, on a model that is open; each batch is written down before the next begins."""

    def __init__(self, session: HfSession, batch_size: int, book: Book) -> None:
        """Wrap the model; the tokenizer is copied, since lm-eval changes it."""
        super().__init__(pretrained=session.model, tokenizer=copy.deepcopy(session.tokenizer), batch_size=batch_size)
        self.book, self.own = book, session.own
        self.set_cache_hook(book)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """As lm-eval's, for what is not known yet."""
        return self.book.answered("loglikelihood", requests, super().loglikelihood)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """As lm-eval's, for what is not known yet."""
        return self.book.answered("loglikelihood_rolling", requests, super().loglikelihood_rolling)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """As lm-eval's, for what is not known yet."""
        return self.book.answered("generate_until", requests, super().generate_until)

    def _model_call(self, *args: Any, **kwargs: Any) -> Any:
        self.book.flush()
        return super()._model_call(*args, **kwargs)

    def _model_generate(self, *args: Any, **kwargs: Any) -> Any:
        self.book.flush()
        before, self.model.generation_config = self.model.generation_config, self.own
        try:
            return super()._model_generate(*args, **kwargs)
        finally:
            self.model.generation_config = before

    def _loglikelihood_tokens(self, requests: list[Any], *args: Any, **kwargs: Any) -> list[tuple[float, bool]]:
        most = self.max_length + 1
        self.book.cut |= {text[0] for text, context, wanted in requests if text and len(context) + len(wanted) > most}
        found: list[tuple[float, bool]] = super()._loglikelihood_tokens(requests, *args, **kwargs)
        return found

    def tok_batch_encode(
        self, strings: list[str], padding_side: str = "left", left_truncate_len: int | None = None, truncation: bool = False
    ) -> tuple[Any, Any]:
        """As lm-eval's; what is cut off is counted."""
        ids, mask = super().tok_batch_encode(strings, padding_side, None, truncation)
        if left_truncate_len:
            longer = (mask.sum(1) > left_truncate_len).tolist()
            self.book.cut |= {text for text, is_longer in zip(strings, longer, strict=True) if is_longer}
            ids, mask = ids[:, -left_truncate_len:], mask[:, -left_truncate_len:]
        return ids, mask


class Asked(TemplateLM):  # type: ignore[misc]
    """Any other session. Which token is the likeliest it does not tell, so that tasks which ask for it are refused before."""

    def __init__(self, session: Session, sampling: Sampling, care: Care, seed: int, local: bool, book: Book) -> None:
        """Keep what asks."""
        super().__init__()
        self.session, self.sampling, self.care, self.seed, self.local = session, sampling, care, seed, local
        self.tokenizer, self.book = session.tokenizer, book
        self.set_cache_hook(book)

    @property
    def eot_token_id(self) -> int:
        """The end of a text."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """What a likelihood without a context is given."""
        return int(self.tokenizer.bos_token_id if self.tokenizer.bos_token_id is not None else self.eot_token_id)

    @property
    def max_length(self) -> int:
        """Tokens of a prompt and its answer."""
        return self.session.window or 2048

    @property
    def tokenizer_name(self) -> str:
        """Only names caches of lm-eval that are not used."""
        return "session"

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Token ids, as lm-eval's class for transformers gives them."""
        how = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        if add_special_tokens is None and string.startswith(self.tokenizer.decode(self.prefix_token_id)):
            how = {"add_special_tokens": False}
        return list(self.tokenizer.encode(string, **how))

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The conversation as the template writes it; as JSON where only a server knows the template."""
        if self.tokenizer is None:
            return json.dumps(chat_history, ensure_ascii=False)
        return str(
            self.tokenizer.apply_chat_template(
                chat_history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Of continuations that are not known yet."""
        return self.book.answered("loglikelihood", requests, super().loglikelihood)

    def _loglikelihood_tokens(self, requests: list[Any], **kwargs: Any) -> list[tuple[float, bool]]:
        most = self.max_length  # one less than lm-eval: servers count the last token, too
        sequences = [[*context, *wanted][-most:] for _, context, wanted in requests]
        self.book.cut |= {text[0] for text, context, wanted in requests if text and len(context) + len(wanted) > most}
        begins = [len(ids) - len(wanted) for ids, (_, _, wanted) in zip(sequences, requests, strict=True)]
        found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        for place, values in self.session.logprobs(sequences, begins, self.sampling.batch_size, self.care):
            found[place] = (float(sum(values)), False)
            if requests[place][0] is not None:
                self.cache_hook.add_partial("loglikelihood", requests[place][0], found[place])
                self.book.flush()
        return found

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Of whole texts, in windows, each token once."""
        return self.book.answered("loglikelihood_rolling", requests, self._rolling)

    def _rolling(self, requests: list[Any]) -> list[float]:
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

        windows, owners = [], []
        for number, request in enumerate(requests):
            rolled = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length - 1,
                context_len=1,
            )
            for context, wanted in map(make_disjoint_window, rolled):
                windows.append((None, context, wanted))
                owners.append(number)
        totals = [0.0] * len(requests)
        for owner, (value, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            totals[owner] += value
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Answers that are not known yet, each up to where its task says."""
        return self.book.answered("generate_until", requests, self._generated)

    def _generated(self, requests: list[Any]) -> list[str]:
        found = [""] * len(requests)
        groups = dict[str, list[int]]()
        for place, request in enumerate(requests):
            groups.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(place)
        for places in groups.values():
            how = normalize_gen_kwargs(requests[places[0]].args[1], 256)
            stops = [how["until"]] if isinstance(how.get("until"), str) else [each for each in how.get("until") or [] if each]
            wanted = replace(
                self.sampling,
                max_new_tokens=int(how["max_gen_toks"]),
                temperature=float(how.get("temperature") or 1.0) if how["do_sample"] else 0.0,
                top_p=float(how.get("top_p", 1.0)),
                stop=stops if self.local else stops[:_STOPS],
            )
            made = [self._request(place, requests[place].args[0], wanted) for place in places]
            for place, answer in self.session.generate(made, wanted, self.care):
                if isinstance(answer, Failure):
                    self.book.failed("generate_until", requests[place].args, "", answer)
                else:
                    found[place] = str(postprocess_generated_text(answer.text, stops, None))
                    self.cache_hook.add_partial("generate_until", requests[place].args, found[place])
                self.book.flush()
        return found

    def _request(self, place: int, context: str, wanted: Sampling) -> Request:
        if self.tokenizer is None:
            return Request(place, json.loads(context), "", self.seed + place)
        room, ids = self.max_length - wanted.max_new_tokens, self.tok_encode(context)
        if len(ids) > room:
            self.book.cut.add(context)
            context = str(self.tokenizer.decode(ids[-room:]))
        elif len(ids) > 1 and ids[0] == self.tokenizer.bos_token_id and not context.startswith(self.tokenizer.bos_token):
            context = self.tokenizer.bos_token + context  # sessions add no marks of their own
        return Request(place, [{"role": "user", "content": context}], context, self.seed + place)


def quiet(modules: Iterable[Any]) -> list[tuple[Any, Any]]:
    """Put bars that show nothing in place of some modules' own; return what was there."""
    before = [(module, module.tqdm) for module in modules]
    for module, bar in before:
        module.tqdm = _silent(bar)
    return before


def _silent(bar: Any) -> Any:
    def made(*args: Any, **kwargs: Any) -> Any:
        return bar(*args, **{**kwargs, "disable": True})

    return made
