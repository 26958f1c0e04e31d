"""A model in memory whose weights are merged anew, again and again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mlops_llm import console
from mlops_llm.errors import UserError
from mlops_llm.inference.engine import Session
from mlops_llm.models import load
from mlops_llm.models.tensors import Shape
from mlops_llm.surgery.config import Surgery
from mlops_llm.surgery.merging import Merging
from mlops_llm.surgery.planning import Source
from mlops_llm.surgery.streaming import Stream, stream
from mlops_llm.surgery.weights import Weights

if TYPE_CHECKING:
    from torch import Tensor


class Loaded:
    """Weights that stay in memory once they are read."""

    def __init__(self, weights: Weights) -> None:
        """Read nothing yet."""
        self._weights = weights
        self._read: dict[str, Tensor] = {}

    @property
    def config(self) -> dict[str, Any]:
        """config.json of the whole model."""
        return self._weights.config

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """What there is, sorted by name."""
        return self._weights.shapes

    def read(self, name: str) -> Tensor:
        """One tensor; whoever asks may not write to it."""
        if name not in self._read:
            self._read[name] = self._weights.read(name).clone()  # what is read may be valid only until the next one is
        return self._read[name]

    def close(self) -> None:
        """Close files and let memory go."""
        self._read.clear()
        self._weights.close()


class Merged:
    """The one model of transformers that takes every merge; its parents are read once.

    What it has in memory is the parents as they are stored, the base where there is one, and the model itself.
    """

    def __init__(
        self, method: Merging, request: Surgery, sources: Sequence[Source], base: Source | None, tokenizer: Any
    ) -> None:
        """See that the models can be merged, and that the result is like the first.

        Args:
            method: one of those that will be used.
            request: the command.
            sources: the models; what is merged has tokenizer and config of the first.
            base: what they were trained from, where the methods need it.
            tokenizer: of the first, with a chat template.

        Raises:
            UserError: they do not fit each other, or the result would have another vocabulary than the first.
        """
        found = stream(method, request, sources, base)
        grown = next((name for name, each in found.shapes.items() if each.shape != found.weights[0].shapes[name].shape), None)
        if grown:
            what = f"would give {grown} {found.shapes[grown].shape} instead of {found.weights[0].shapes[grown].shape}"
            raise UserError(what, "op.settings", "a sweep keeps the first model's vocabulary: op.settings={vocabulary:first}")
        self.stream: Stream = replace(found, weights=[Loaded(each) for each in found.weights], known={})
        self._request, self._tokenizer = request, tokenizer
        self._merged: Merging | None = None

    @property
    def memory(self) -> int:
        """Bytes of all that is held."""
        parents = sum(each.bytes for one in self.stream.weights for each in one.shapes.values())
        return parents + 4 * self.stream.sources[0].files.parameters + self.stream.memory

    def session(self, method: Merging) -> Session:
        """The model with the weights that a method gives; it is valid until another one is wanted.

        Raises:
            UserError: a model is broken.
        """
        import torch

        session: Session = self._session
        if self._merged != method:
            with torch.inference_mode():
                replace(self.stream, method=method).into(self._targets)
            self._merged = method
        return session

    @cached_property
    def _session(self) -> Any:
        import torch

        from mlops_llm.inference.engines.hf import HfSession

        files = self.stream.sources[0].files
        console.detail("reading the models")
        model = load.model(files, self._request.model_load, merge=True)
        model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        window = files.config.get("max_position_embeddings")
        return HfSession(model, self._tokenizer, int(window) if window else None)

    @cached_property
    def _targets(self) -> dict[str, Tensor]:
        """Where each tensor of the result goes.

        Raises:
            UserError: transformers calls one otherwise than the file does.
        """
        found = {name: each.data for name, each in self._session.model.named_parameters(remove_duplicate=False)}
        found |= dict(self._session.model.named_buffers())
        missing = next((name for name in self.stream.shapes if name not in found), None)
        if missing:
            what = f"tensor {missing} is none of the model as transformers opens it"
            raise UserError(what, self.stream.sources[0].ref, "merge at single ratios: op=merge_linear op.weights=[0.5,0.5]")
        return found

    def close(self) -> None:
        """Let the models go."""
        for each in self.stream.weights:
            each.close()
        self.__dict__.pop("_targets", None)
        self.__dict__.pop("_session", None)
        self._merged = None
