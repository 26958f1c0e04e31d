"""`python -m mlops_llm.inference.hf_server FOLDER`: transformers behind OpenAI's protocol, on this machine alone.

transformers' own server (`transformers serve`) tells no log-probabilities, by which a model is known. Answers are made in
batches; many clients at once are vLLM's work.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import json
import os
import secrets
from collections.abc import AsyncIterator, Sequence
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from mlops_llm.errors import first_line
from mlops_llm.inference import protocol
from mlops_llm.inference.batches import Batches, Job, Piece
from mlops_llm.inference.connection import Connection
from mlops_llm.inference.engine import Sampling
from mlops_llm.inference.protocol import Asked, AskedChat, AskedText, BadRequestError, Choice, Told, Written
from mlops_llm.inference.server import KEY


class Answers:
    """The application: one model, under one or several names."""

    def __init__(self, batches: Batches, tokenizer: Any, window: int | None, names: Sequence[str]) -> None:
        """Keep what answers."""
        self._batches, self._tokenizer, self._window, self._names = batches, tokenizer, window, names

    def application(self, key: str) -> Starlette:
        """The routes, for those who know the key, if there is one."""
        return Starlette(
            routes=[
                Route("/health", self.health),
                Route("/v1/models", self.models),
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
                Route("/v1/completions", self.text, methods=["POST"]),
            ],
            exception_handlers={BadRequestError: _refused, ClientDisconnect: _gone},
            middleware=[Middleware(Locked, key=key)] if key else [],
        )

    async def health(self, request: Request) -> Response:
        """It answers."""
        return JSONResponse({"status": "ok"})

    async def models(self, request: Request) -> Response:
        """The names, each a model of its own for a client."""
        more = {"object": "model", "created": 0, "owned_by": "mlops_llm", "max_model_len": self._window}
        return JSONResponse({"object": "list", "data": [{"id": name, **more} for name in self._names]})

    async def chat(self, request: Request) -> Response:
        """A conversation, written by the model's template."""
        asked: AskedChat = protocol.read(AskedChat, await _body(request))
        variables = asked.chat_template_kwargs or {}
        if foreign := sorted(variables.keys() & signature(self._tokenizer.apply_chat_template).parameters.keys()):
            said = f"{foreign[0]} is no variable of the chat template"  # a template of the client's own could run for hours
            raise BadRequestError(said, "chat_template_kwargs")
        try:
            text = self._tokenizer.apply_chat_template(
                protocol.texts(asked.messages),
                tokenize=False,
                add_generation_prompt=True,
                **variables,
            )
        except BadRequestError:
            raise
        except Exception as error:
            raise BadRequestError(f"the chat template refuses this conversation: {first_line(error)}", "messages") from error
        return await self._answer(request, asked, [self._tokenizer(text, add_special_tokens=False)["input_ids"]])

    async def text(self, request: Request) -> Response:
        """A text, or token ids, as they are."""
        asked: AskedText = protocol.read(AskedText, await _body(request))
        most = len(self._tokenizer)
        protocol.bound({"prompt": asked.prompt, "n": asked.n})
        prompts = [each if isinstance(each, list) else self._tokenizer(each)["input_ids"] for each in asked.prompts]
        if any(not each for each in prompts) or any(not 0 <= token < most for each in prompts for token in each):
            raise BadRequestError(f"a prompt is empty, or holds a token that is not among the model's {most}", "prompt")
        return await self._answer(request, asked, prompts)

    async def _answer(self, request: Request, asked: Asked, prompts: Sequence[list[int]]) -> Response:
        if asked.model is not None and asked.model not in self._names:
            raise BadRequestError(f"there is no model '{asked.model}' here; it is called {self._names[0]}", "model", 404)
        work = Work(self._jobs(asked, prompts))
        written = Written.to(asked, secrets.token_hex(8), asked.model or self._names[0], self._tokenizer)
        for job in work.jobs:
            self._batches.add(job)
        if asked.stream:
            return StreamingResponse(_stream(work, written, asked, prompts), media_type="text/event-stream")
        watching = asyncio.ensure_future(_left(request, work))
        try:
            return JSONResponse(written.whole(await work.whole(), prompts))
        except _FailedError as error:
            return JSONResponse(protocol.error(str(error), 500), 500)
        finally:
            watching.cancel()

    def _jobs(self, asked: Any, prompts: Sequence[list[int]]) -> list[Job]:
        jobs = []
        for prompt in prompts:
            room = self._window - len(prompt) if self._window else None
            if room is not None and room < 1:
                said = f"the prompt has {len(prompt)} tokens, the model's context length is {self._window}"
                raise BadRequestError(said, "messages" if isinstance(asked, AskedChat) else "prompt")
            most = min(each for each in (asked.most, room, None if asked.most or room else 512) if each is not None)
            temperature = 1.0 if asked.temperature is None else asked.temperature
            sampling = Sampling(1, most, temperature, 1.0 if asked.top_p is None else asked.top_p, asked.stops)
            seed = secrets.randbits(31) if asked.seed is None else asked.seed % 2**63
            jobs += [Job(prompt, sampling, seed + number, asked.told or 0, lambda _: None) for number in range(asked.n or 1)]
        return jobs


class Locked:
    """Lets through what comes with the key, and the question whether the server is well."""

    def __init__(self, app: Any, key: str) -> None:
        """Keep the application behind it."""
        self._app, self._key = app, f"Bearer {key}".encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass on or refuse."""
        given = dict(scope.get("headers") or ()).get(b"authorization", b"")
        if scope["type"] == "http" and scope["path"] != "/health" and not hmac.compare_digest(given, self._key):
            await JSONResponse(protocol.error("the key is missing or wrong", 401), 401)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class _FailedError(Exception):
    """An answer could not be made."""


class Work:
    """The answers to one request, as they come."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        """Listen to the jobs, in the loop that runs now."""
        loop = asyncio.get_running_loop()
        self.jobs, self._told = jobs, asyncio.Queue[tuple[int, Piece]]()
        for index, job in enumerate(jobs):
            job.give = partial(self._hear, loop, index)

    def _hear(self, loop: asyncio.AbstractEventLoop, index: int, piece: Piece) -> None:
        """Called from the thread that answers."""
        loop.call_soon_threadsafe(self._told.put_nowait, (index, piece))

    async def pieces(self) -> AsyncIterator[tuple[int, Piece]]:
        """Each token with the number of its answer, until all are whole.

        Raises:
            _FailedError: one failed.
        """
        left = len(self.jobs)
        try:
            while left:
                index, piece = await self._told.get()
                if piece.finish == "error":
                    raise _FailedError(piece.failure)
                left -= piece.finish is not None
                yield index, piece
        finally:
            self.leave()

    async def whole(self) -> list[Choice]:
        """All answers.

        Raises:
            _FailedError: one failed.
        """
        told: list[list[Told]] = [[] for _ in self.jobs]
        said, ends = [""] * len(self.jobs), [""] * len(self.jobs)
        async for index, piece in self.pieces():
            told[index] += [piece.told] if piece.told else []
            said[index] += piece.text
            ends[index] = piece.finish or ""
        return [Choice(index, said[index], told[index], ends[index]) for index in range(len(self.jobs))]

    def leave(self) -> None:
        """Nobody waits any more."""
        for job in self.jobs:
            job.is_gone.set()


async def _stream(work: Work, written: Written, asked: Asked, prompts: Sequence[Sequence[int]]) -> AsyncIterator[str]:
    count, begun = 0, set[int]()
    try:
        async for index, piece in work.pieces():
            count += 1
            choice = Choice(index, piece.text, [piece.told] if piece.told else [], piece.finish)
            if piece.text or piece.finish or asked.return_token_ids or written.told is not None or index not in begun:
                yield _event(written.piece(choice, first=index not in begun))
                begun.add(index)
        if asked.with_usage:
            yield _event(written.last(prompts, count))
    except _FailedError as error:
        yield _event(protocol.error(str(error), 500))
    yield "data: [DONE]\n\n"


def _event(told: Any) -> str:
    return f"data: {json.dumps(told, ensure_ascii=False)}\n\n"


async def _left(request: Request, work: Work) -> None:
    """See that nobody waits any more, where the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    work.leave()


async def _body(request: Request) -> Any:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > protocol.LARGEST:
            raise BadRequestError(f"the request has more than {protocol.LARGEST} bytes", None, 413)
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequestError("the request is no JSON") from error


async def _gone(request: Request, error: Exception) -> Response:
    """Of a client that went before it had asked."""
    return Response(status_code=499)


async def _refused(request: Request, error: BadRequestError) -> Response:
    return JSONResponse(protocol.error(error.said, error.status, error.field), error.status)


def main() -> None:
    """Load a model and answer for it until the process is ended."""
    parser = argparse.ArgumentParser(prog="mlops_llm.inference.hf_server")
    parser.add_argument("folder")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--served-model-name", nargs="+", required=True)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--batch-size", type=int, default=8)
    given = parser.parse_args()

    import torch

    from mlops_llm.inference.engines.hf import HfSession
    from mlops_llm.models import load, template
    from mlops_llm.models.load import Dtype, ModelLoad
    from mlops_llm.models.ref import Place

    folder = Path(given.folder)
    how = ModelLoad(Dtype(given.dtype))
    files = load.inspect(Place(str(folder), folder), how)
    tokenizer = load.tokenizer_of(files)
    template.ensure(tokenizer, str(folder))
    model = load.model(files, how, merge=True).to("cuda" if torch.cuda.is_available() else "cpu").eval()
    session = HfSession(model, tokenizer, files.window)
    batches = Batches(session.model, tokenizer, session.ends, given.batch_size, session.window)
    answers = Answers(batches, tokenizer, session.window, given.served_model_name)
    more: dict[str, Any] = {"access_log": False, "log_level": "warning", "http": Connection, "ws": "none"}
    uvicorn.run(answers.application(os.environ.get(KEY, "")), host=given.host, port=given.port, **more)


if __name__ == "__main__":
    main()
