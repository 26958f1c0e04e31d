"""What is said to a server that speaks OpenAI's protocol, and what it says back: requests, answers, refusals."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

from mlops_llm.endpoint import Endpoint, MisshapenError, RefusedError

T = TypeVar("T")
UNREADABLE = (400, 415, 422)
"""What servers answer to a request that holds something they do not know."""
_NAMES = {
    "max_tokens": re.compile("max_completion_tokens"),
    "temperature": re.compile("temperature"),
    "response_format": re.compile("response_format|schema|structured|guided"),
}
"""A field that can be done without, or has another name -> how a refusal names it."""
_TOO_LONG = re.compile(
    "context.{0,20}length|context_length|maximum (context|model) length|too long|maximum.{0,20}tokens.{0,40}prompt"
)


@dataclass(frozen=True)
class Reply:
    """What a server answers."""

    text: str
    is_cut: bool
    """It ended because it was as long as it may be."""
    tokens_in: int | None
    tokens_out: int | None
    """None where the server does not count."""
    model: str
    """What the server says that it is."""
    refusal: str = ""
    """Why the model would not answer."""
    absent: str = ""
    """Why there is no text at all, not even an empty one."""


def reply(endpoint: Endpoint, told: Mapping[str, Any]) -> Reply:
    """Read a completion or a chat completion; the key is in no part of it.

    Raises:
        AttributeError, LookupError, TypeError: it is none.
    """
    first, usage = told["choices"][0], told.get("usage") or {}
    message = first.get("message")
    if message is None:
        message = {"content": first["text"]}
    text, refusal, absent = message.get("content"), str(message.get("refusal") or ""), ""
    if text is None:
        text, absent = "", "it calls a tool instead" if message.get("tool_calls") else "the answer has no text"
    if not isinstance(text, str):  # parts, as some servers send them
        text = "".join(str(part.get("text") or "") for part in text if isinstance(part, Mapping))
    ended = first.get("finish_reason")
    if ended == "content_filter":
        refusal = refusal or "a filter holds the answer back"
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    tokens_in, tokens_out = (each if isinstance(each, int) and not isinstance(each, bool) else None for each in counts)
    said, model = (" ".join(endpoint.masked(str(each)).split())[:200] for each in (refusal, told.get("model") or ""))
    return Reply(endpoint.masked(text), ended == "length", tokens_in, tokens_out, model, said, absent)


def parsed(endpoint: Endpoint, answer: bytes, read: Callable[[Any], T]) -> T:
    """What `read` makes of the JSON of an answer.

    Raises:
        MisshapenError: it is none, or has not the form that `read` wants, such as a web page.
    """
    try:
        return read(json.loads(answer))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        kind = "is a web page" if answer.lstrip()[:1] == b"<" else "has not the form of one"
        raise MisshapenError(f"the answer {kind} (it begins: {endpoint.beginning(answer)})") from error


class Form:
    """What all requests hold; what the server refuses to know is left out of all later ones. Several threads may ask."""

    def __init__(self, fields: Mapping[str, Any], dispensable: Collection[str]) -> None:
        """Begin with everything.

        Args:
            fields: that every request has.
            dispensable: those of them that can be left out: `temperature`, `response_format`; `max_tokens` is then written as
                `max_completion_tokens`.
        """
        self._fields, self._dispensable, self._lock = dict(fields), set(dispensable) & set(fields), threading.Lock()
        self._is_proven, self._changes = False, 0
        self.left_out = list[str]()
        """What the server did not know."""

    def body(self, **own: Any) -> dict[str, Any]:
        """A request with fields of its own."""
        with self._lock:
            return {**self._fields, **own}

    def sent(self, send: Callable[[dict[str, Any]], T], slot: AbstractContextManager[Any], **own: Any) -> T:
        """What `send` makes of a request; it is put again at once where the server can be asked without what it does not know.

        Args:
            send: asks the server.
            slot: held while it asks; who waits for it learns what others were refused.
            own: fields of this request.

        Raises:
            RefusedError: the server cannot be asked.
        """
        while True:
            try:
                with slot:
                    with self._lock:
                        body, changes = {**self._fields, **own}, self._changes
                    found = send(body)
            except RefusedError as error:
                if not self._concedes(error, changes):
                    raise
            else:
                self._is_proven = True  # only what a refusal names is left out from now on
                return found

    def _concedes(self, error: RefusedError, changes: int) -> bool:
        """Leave out what a refusal is about; return whether the request is worth another attempt."""
        if error.status not in UNREADABLE or is_too_long(error):
            return False
        said = error.said.lower()
        with self._lock:
            if changes != self._changes:
                return True
            named = [field for field in _NAMES if field in self._dispensable and _NAMES[field].search(said)]
            if not named and not self._is_proven and "response_format" in self._dispensable:
                named = ["response_format"]  # many servers do not say what they stumble over
            if not named:
                return False
            value = self._fields.pop(named[0])
            if named[0] == "max_tokens":
                self._fields["max_completion_tokens"] = value
            self._dispensable.discard(named[0])
            self.left_out.append(named[0])
            self._changes += 1
            return True


def is_too_long(error: RefusedError) -> bool:
    """Whether a refusal says that the request is longer than the model can read."""
    return bool(_TOO_LONG.search(error.said.lower()))
