"""An OpenAI-compatible embeddings server."""

from __future__ import annotations

import json
import os
import random
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from mlops_llm.data.dedup.embedders import Embedded, unit
from mlops_llm.errors import UserError, first_line

BATCH = 64
LARGEST = 256 * 2**20
"""Bytes of an answer; a longer one is no answer to 64 texts."""
_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504}


class _TransientError(Exception):
    """What another attempt may mend."""

    def __init__(self, said: str, wait: float = 0.0) -> None:
        super().__init__(said)
        self.wait = wait


class Server:
    """Embeds through `POST BASE_URL/embeddings`."""

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
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise UserError("is no address of a server", "op.base_url", "write it as http://HOST:PORT/v1")
        self._key = os.environ.get(key_env, "") if key_env else ""
        if key_env and not self._key:
            raise UserError(f"the environment variable {key_env} is not set", "op.api_key_env", f"set it: export {key_env}=…")
        self._address = f"{base_url.rstrip('/')}/embeddings"
        self._where, self._model, self._attempts, self._timeout = base_url, model, attempts, timeout
        # A redirection would carry the key to another host.
        self._opener = urllib.request.build_opener(_NoRedirection)

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
        for attempt in range(1, self._attempts + 1):
            try:
                return _vectors(self._post(texts), len(texts))
            except _TransientError as error:
                if attempt == self._attempts:
                    remedy = "check that the server runs and serves embeddings"
                    raise UserError(f"failed {attempt} times, last: {error}", self._where, remedy) from error
                time.sleep(min(error.wait or 0.5 * 2**attempt * random.uniform(0.5, 1), 30))
        raise AssertionError("unreachable")

    def _post(self, texts: Sequence[str]) -> bytes:
        """One attempt."""
        body = json.dumps({"model": self._model, "input": list(texts), "encoding_format": "float"}).encode()
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        request = urllib.request.Request(self._address, body, headers)
        ends = time.monotonic() + self._timeout
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                found = b""
                while part := answer.read1(2**20):
                    found += part
                    if time.monotonic() > ends:
                        raise _TransientError(f"no whole answer within {self._timeout:g} s")
                    if len(found) > LARGEST:
                        raise UserError("the answer is larger than 256 MiB", self._where, "check the server")
                if answer.length:
                    raise _TransientError(f"the answer is cut off: {answer.length} bytes are missing")
                return found
        except urllib.error.HTTPError as error:
            self._refused(error)
        except TimeoutError as error:
            raise _TransientError(f"no answer within {self._timeout:g} s") from error
        except (urllib.error.URLError, OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError):
                raise _TransientError(f"no answer within {self._timeout:g} s") from error
            raise _TransientError(first_line(reason) if isinstance(reason, BaseException) else str(reason)[:200]) from error
        raise AssertionError("unreachable")

    def _refused(self, error: urllib.error.HTTPError) -> None:
        """Tell what another attempt may mend from what is final."""
        with error:
            text = error.read(4096).decode("utf-8", "replace")
        said = f"HTTP {error.code} {_message(text)}".strip()
        if self._key:
            said = said.replace(self._key, "…")
        if error.code in _AGAIN and "insufficient_quota" not in text:
            raise _TransientError(said, _seconds(error.headers.get("retry-after")))
        remedy = {401: "check the key in op.api_key_env", 403: "check the key in op.api_key_env",
                  404: "check op.base_url (it often ends in /v1) and op.embedder"}  # fmt: skip
        raise UserError(f"refuses: {said}", self._where, remedy.get(error.code, "see what the server says"))


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow none."""


def _vectors(body: bytes, count: int) -> Any:
    """Read the vectors from an answer, in the order of their indices."""
    try:
        items = json.loads(body)["data"]
        vectors = {int(item.get("index", place)): item["embedding"] for place, item in enumerate(items)}
        found = np.array([vectors[place] for place in range(count)], np.float32)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        begin = " ".join(body[:80].decode("utf-8", "replace").split())
        raise _TransientError(f"the answer holds no {count} vectors (it begins: {begin})") from error
    if found.ndim != 2 or len(items) != count or not found.shape[1]:
        raise _TransientError(f"the answer holds {len(items)} vectors for {count} texts")
    return found


def _message(text: str) -> str:
    try:
        error = json.loads(text).get("error")
        text = str(error.get("message") if isinstance(error, dict) else error or text)
    except (ValueError, AttributeError):
        pass
    return " ".join(text.split())[:150]


def _seconds(value: str | None) -> float:
    try:
        return max(0.0, float(value or 0))
    except ValueError:
        return 0.0
