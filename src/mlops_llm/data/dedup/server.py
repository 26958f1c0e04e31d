"""An OpenAI-compatible embeddings server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from mlops_llm.data.dedup.embedders import Embedded, unit
from mlops_llm.endpoint import Endpoint, TransientError
from mlops_llm.errors import UserError

BATCH = 64
LARGEST = 256 * 2**20
"""Bytes of an answer; a longer one is no answer to 64 texts."""


class Server:
    """Embeds through `POST BASE_URL/embeddings`."""

    travels: ClassVar[bool] = False

    def __init__(self, base_url: str, model: str, key_env: str = "", *, attempts: int = 4, timeout: float = 60.0) -> None:
        """Check address and key, without asking the server.

        Args:
            base_url: such as http://127.0.0.1:8000/v1.
            model: the model's name there.
            key_env: name of the environment variable with the key; empty for none.
            attempts: calls for one batch in all, when what fails may pass.
            timeout: seconds of one attempt, from connecting to the last byte.

        Raises:
            UserError: the address is none, or the variable is not set.
        """
        self._endpoint = Endpoint(
            f"{base_url.rstrip('/')}/embeddings",
            key_env,
            timeout=timeout,
            largest=LARGEST,
            where=base_url,
            settings=("op.base_url", "op.api_key_env"),
            example="http://HOST:PORT/v1",
            remedies={
                0: "check that the server runs and serves embeddings",
                404: "check op.base_url (it often ends in /v1) and op.embedder",
            },
        )
        self._where, self._model, self._attempts = base_url, model, attempts

    @property
    def id(self) -> str:
        """Model and server."""
        return f"{self._model} at {self._where}"

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Embed texts, 64 a call; unknown tokens cannot be seen from here.

        Raises:
            UserError: the server refuses, or fails in every attempt.
        """
        parts = [self._batch(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
        widths = {part.shape[1] for part in parts}
        if len(widths) > 1:
            sizes = " and ".join(map(str, sorted(widths)))
            raise UserError(f"sends vectors of {sizes} numbers", self._where, "check the server")
        return Embedded(unit(np.concatenate(parts), self.id), None, None)

    def _batch(self, texts: Sequence[str]) -> Any:
        body = {"model": self._model, "input": list(texts), "encoding_format": "float"}
        return self._endpoint.ask(body, lambda answer: self._vectors(answer, len(texts)), attempts=self._attempts)

    def _vectors(self, body: bytes, count: int) -> Any:
        """Read the vectors from an answer, in the order of their indices."""
        try:
            items = json.loads(body)["data"]
            vectors = {int(item.get("index", place)): item["embedding"] for place, item in enumerate(items)}
            found = np.array([vectors[place] for place in range(count)], np.float32)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            begin = self._endpoint.beginning(body)
            raise TransientError(f"the answer holds no {count} vectors (it begins: {begin})") from error
        if found.ndim != 2 or len(items) != count or not found.shape[1]:
            raise TransientError(f"the answer holds {len(items)} vectors for {count} texts")
        return found
