"""What clients see: OpenAI's protocol under one address, whichever process answers behind it."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from mlops_llm.inference import protocol
from mlops_llm.registry.serving.standing import Post, Standing

_PASSED = ("content-type", "retry-after")
_PATIENCE = 30.0
"""Seconds in which a client must have sent its request: one that sends a byte a minute would keep others out."""
_GONE = 499
"""What servers call a client that did not wait."""


class Front:
    """The application."""

    def __init__(self, post: Post, names: Sequence[str], key: str, at_once: int) -> None:
        """Keep what it stands for.

        Args:
            post: who answers.
            names: of the model, for clients; the first is the one that is told.
            key: which clients must know; empty for none.
            at_once: requests in work, at most; more are told to come again.
        """
        self._post, self._names, self._key, self._at_once = post, names, f"Bearer {key}".encode() if key else b"", at_once
        self._in_work = 0
        self._client: httpx.AsyncClient | None = None

    def application(self) -> Starlette:
        """The routes."""
        routes = [
            Route("/health", self.health),
            Route("/v1/models", self.models),
            Route("/v1/models/{name:path}", self.model),
            Route("/v1/chat/completions", self.forward, methods=["POST"]),
            Route("/v1/completions", self.forward, methods=["POST"]),
        ]
        errors: Any = {404: _unknown, 405: _unknown, ClientDisconnect: _gone}
        return Starlette(routes=routes, exception_handlers=errors, lifespan=self._open)

    @asynccontextmanager
    async def _open(self, application: Starlette) -> AsyncIterator[None]:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=self._at_once)
        async with httpx.AsyncClient(timeout=None, limits=limits, trust_env=False) as self._client:
            yield

    async def health(self, request: Request) -> Response:
        """Who answers; 503 where nobody does. No key is asked for."""
        now = self._post.now
        if now is None:
            return JSONResponse({"status": "down"}, 503)
        told = {"status": "ok", "model": self._names[0], "version": now.version, "weights": now.weights}
        return JSONResponse({**told, "in_work": now.in_work, "answered": self._post.answered, "failed": self._post.failed})

    async def models(self, request: Request) -> Response:
        """The model, under each of its names."""
        return self._locked(request) or JSONResponse({"object": "list", "data": [self._told(each) for each in self._names]})

    async def model(self, request: Request) -> Response:
        """The model under one of its names."""
        if refusal := self._locked(request):
            return refusal
        name = request.path_params["name"]
        return JSONResponse(self._told(name)) if name in self._names else self._no_model(name)

    def _told(self, name: str) -> dict[str, Any]:
        now = self._post.now
        more = {"version": now.version, "weights": now.weights} if now else {}
        return {"id": name, "object": "model", "created": 0, "owned_by": "mlops_llm", **more}

    async def forward(self, request: Request) -> Response:
        """Have a request answered, piece by piece where the client wants that."""
        if refusal := self._locked(request):
            return refusal
        if self._in_work >= self._at_once:
            said = f"{self._at_once} requests are in work already; try again"
            return JSONResponse(protocol.error(said, 429), 429, {"Retry-After": "1"})
        self._in_work += 1
        answer: Response | None = None
        try:
            answer = await self._answer(request)
            return answer
        finally:
            if not isinstance(answer, _Passed):
                self._in_work -= 1

    async def _answer(self, request: Request) -> Response:
        body = bytearray()
        try:
            async with asyncio.timeout(_PATIENCE):
                async for part in request.stream():
                    body += part
                    if len(body) > protocol.LARGEST:
                        return JSONResponse(protocol.error(f"the request has more than {protocol.LARGEST} bytes", 413), 413)
        except TimeoutError:
            return JSONResponse(protocol.error(f"the request was not whole after {_PATIENCE:g} s", 408), 408)
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError):
            asked = None
        if not isinstance(asked, dict):
            return JSONResponse(protocol.error("the request is no JSON object", 400), 400)
        name = asked.get("model") or self._names[0]
        if name not in self._names:
            return self._no_model(str(name))
        asked["model"] = self._names[0]
        try:
            protocol.bound(asked)
        except protocol.BadRequestError as error:
            return JSONResponse(protocol.error(error.said, error.status, error.field), error.status)
        standing = self._post.take()
        if standing is None:
            return JSONResponse(protocol.error("the model is being started", 503), 503, {"Retry-After": "2"})
        try:
            answer = await self._asked(request, standing, json.dumps(asked, ensure_ascii=False).encode("utf-8", "replace"))
        except httpx.TransportError as error:
            self._post.give_back(standing, well=False)
            return JSONResponse(protocol.error(f"the model does not answer ({type(error).__name__})", 502), 502)
        except BaseException:
            self._post.give_back(standing, well=False)
            raise
        if answer is None:
            self._post.give_back(standing, well=True)
            return Response(status_code=_GONE)
        headers = {name: value for name, value in answer.headers.items() if name in _PASSED}
        headers |= {"x-model-version": standing.version, "x-model-weights": standing.weights}
        return _Passed(answer, headers, partial(self._done, standing))

    async def _asked(self, request: Request, standing: Standing, body: bytes) -> httpx.Response | None:
        """What the model's process answers, as soon as it begins to; None where the client goes before."""
        assert self._client
        headers = {"content-type": "application/json", "authorization": f"Bearer {standing.server.key}"}
        address = f"{standing.server.address}{request.url.path}"
        sent = self._client.send(self._client.build_request("POST", address, content=body, headers=headers), stream=True)
        asking, gone = asyncio.ensure_future(sent), asyncio.ensure_future(_left(request))
        try:
            await asyncio.wait({asking, gone}, return_when=asyncio.FIRST_COMPLETED)
            return await asking if asking.done() else None
        finally:
            gone.cancel()
            if not asking.done():
                asking.cancel()

    def _done(self, standing: Standing, *, well: bool) -> None:
        self._post.give_back(standing, well=well)
        self._in_work -= 1

    def _locked(self, request: Request) -> Response | None:
        """A refusal, where the key is not the one."""
        if self._key and not hmac.compare_digest(request.headers.get("authorization", "").encode(), self._key):
            return JSONResponse(protocol.error("the key is missing or wrong", 401, code="invalid_api_key"), 401)
        return None

    def _no_model(self, name: str) -> Response:
        said = f"there is no model '{name[:100]}' here; it is called {self._names[0]}"
        return JSONResponse(protocol.error(said, 404, "model", "model_not_found"), 404)


class _Passed(StreamingResponse):  # type: ignore[misc]
    """An answer that is passed on as it comes; however that ends, it is told."""

    def __init__(self, answer: httpx.Response, headers: Mapping[str, str], done: Callable[..., None]) -> None:
        super().__init__(self._pieces(), answer.status_code, dict(headers))
        self._answer, self._done, self._well = answer, done, answer.status_code < 500

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._done(well=self._well)
            await self._answer.aclose()

    async def _pieces(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._answer.aiter_raw():
                yield piece
        except httpx.TransportError as error:
            self._well = False
            if "event-stream" not in self._answer.headers.get("content-type", ""):
                raise
            told = protocol.error(f"the model ended in the middle of its answer ({type(error).__name__})", 502)
            yield f"data: {json.dumps(told)}\n\n".encode()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _gone(request: Request, error: Exception) -> Response:
    """Of a client that went before it had asked."""
    return Response(status_code=_GONE)


async def _unknown(request: Request, error: Exception) -> Response:
    said = f"{request.method} {request.url.path[:100]} is not served here"
    return JSONResponse(protocol.error(said, 404), 404)
