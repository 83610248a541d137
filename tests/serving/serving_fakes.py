"""Hand-written fakes of the server's two neighbours: an engine and a provider, both scripted."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import httpx
import orjson
from aiohttp import web

from routing.conversation import Conversation
from routing.decision import Calibration, Decision, decide
from routing.errors import InvalidRequest, RoutesTooLong
from routing.tasks import Route
from serving.app import create_app
from serving.config import ServerConfig
from serving.engine.base import EngineMetrics
from serving.run import make_server

Script = Callable[[Sequence[Route], Conversation], Awaitable[Any]]
KEY = "sk-owner-secret-123"
KEY_ENV = "TEST_PROVIDER_KEY"


async def by_name(routes: Sequence[Route], conversation: Conversation) -> Decision:
    """Decides for the route whose name the last user turn holds, else for none."""
    text = conversation.turns[-1].text
    scores = [4.0 if route.name in text else 0.0 for route in routes]
    return decide([r.name for r in routes], [*scores, 0.0 if any(scores) else 4.0], Calibration())


class FakeEngine:
    """Runs a script for each decision and remembers what it was asked."""

    name = "fake"
    ill: str | None = None
    version = "0123456789ab"

    def __init__(self, script: Script = by_name, *, max_routes: int = 8) -> None:
        self.script = script
        self.max_routes = max_routes
        self.too_long_from = 10**9
        self.asked: list[tuple[list[str], Conversation]] = []
        self.was_asked = asyncio.Event()
        self.cancelled = 0
        self.loading: asyncio.Event | None = None
        self.start_error: Exception | None = None
        self.closed = False

    def check_routes(self, routes: Sequence[Route]) -> None:
        if len(routes) > self.max_routes:
            raise InvalidRequest(f"more than {self.max_routes} routes", field="routes")
        if len(routes) >= self.too_long_from:
            raise RoutesTooLong(f"{len(routes)} routes are too long", field="routes")

    async def start(self) -> None:
        if self.loading is not None:
            await self.loading.wait()
        if self.start_error is not None:
            raise self.start_error

    async def decide(self, routes: Sequence[Route], conversation: Conversation) -> Decision:
        self.asked.append(([route.name for route in routes], conversation))
        self.was_asked.set()
        try:
            decision: Decision = await self.script(routes, conversation)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return decision

    def trouble(self) -> str | None:
        return self.ill

    def metrics(self) -> EngineMetrics:
        return EngineMetrics(decisions=len(self.asked))

    async def close(self) -> None:
        self.closed = True


@dataclass
class Behaviour:
    """How the fake provider answers for one model."""

    kind: str = "ok"
    """ok, error, html, hang, cut, empty, error_event, error_in_answer, comments, redirect."""
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    after: int = 2
    """Events before a stream is cut or hangs."""
    text: str = "Hello, world!"


class FakeUpstream:
    """A provider on a real socket: Chat Completions, whole and streamed, with scripted faults."""

    def __init__(self) -> None:
        self.models: dict[str, Behaviour] = {}
        self.requests: list[dict[str, Any]] = []
        self.raw: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.dropped = asyncio.Event()
        """Set when a client left while an answer hung."""
        self.release = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self.url = ""

    @property
    def asked(self) -> list[str]:
        """Upstream model names in the order they were asked."""
        return [request["model"] for request in self.requests]

    async def start(self) -> None:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/v1"

    async def stop(self) -> None:
        self.release.set()
        assert self._runner is not None
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        body = orjson.loads(raw)
        self.raw.append(raw)
        self.requests.append(body)
        self.headers.append({k.lower(): v for k, v in request.headers.items()})
        self.paths.append(request.path)
        how = self.models.get(body["model"], Behaviour())
        if how.kind == "error":
            default = orjson.dumps(
                {"error": {"message": "scripted", "type": "t", "param": None, "code": "c"}}
            )
            content = default if how.body is None else how.body
            headers = {"content-type": "application/json", **how.headers}
            return web.Response(status=how.status, body=content, headers=headers)
        if how.kind == "redirect":
            raise web.HTTPTemporaryRedirect(f"{self.url}/elsewhere")
        if how.kind == "html":
            return web.Response(text="<html>gateway</html>", content_type="text/html")
        if how.kind == "error_in_answer":
            return web.json_response({"error": {"message": "no capacity", "code": 502}})
        if how.kind == "hang" and how.after == 0:
            await self._hang()
        if body.get("stream"):
            return await self._stream(request, body["model"], how)
        return await self._whole(request, body["model"], how)

    async def _hang(self) -> None:
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.dropped.set()
            raise

    async def _whole(self, request: web.Request, model: str, how: Behaviour) -> web.StreamResponse:
        message = {"role": "assistant", "content": how.text}
        answer = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": model,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
        }
        content = orjson.dumps(answer)
        if how.kind != "cut":
            headers = {"content-type": "application/json", **how.headers}
            return web.Response(body=content, headers=headers)
        response = web.StreamResponse(headers={"content-length": str(len(content))})
        await response.prepare(request)
        await response.write(content[:20])
        assert request.transport is not None
        request.transport.abort()
        return response

    async def _stream(self, request: web.Request, model: str, how: Behaviour) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        assert request.transport is not None
        if how.kind == "comments":
            await response.write(b": waiting\n\n")
            await asyncio.sleep(0.02)
            request.transport.abort()
            return response
        if how.kind == "error_event":
            await response.write(b'data: {"error": {"message": "overloaded", "code": 529}}\n\n')
            return response
        pieces = [*how.text.split(" "), None]
        for number, piece in enumerate(pieces):
            if how.kind == "cut" and number == how.after:
                await response.write(b'data: {"id": "half an ev')
                await asyncio.sleep(0.02)
                request.transport.abort()
                return response
            if how.kind == "hang" and number == how.after:
                await self._hang()
            delta = {} if piece is None else {"role": "assistant", "content": piece + " "}
            event = {
                "id": "chatcmpl-1",
                "object": "chat.completion.chunk",
                "created": 1,
                "model": model,
                "choices": [
                    {"index": 0, "delta": delta, "finish_reason": None if piece else "stop"}
                ],
            }
            await response.write(b"data: " + orjson.dumps(event) + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response


def refused_url() -> str:
    """A base URL where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1"


def task(name: str, *models: str, prefer: str | None = None) -> dict[str, Any]:
    """A policy of the owner's own."""
    policy: dict[str, Any] = {
        "custom_task": {"name": name, "description": f"Everything about {name}."},
        "models": list(models),
    }
    return policy | ({"selection_policy": {"prefer": prefer}} if prefer else {})


def config_for(upstream: FakeUpstream, **update: Any) -> ServerConfig:
    """A configuration with one router `work` on the fake provider `p`."""
    raw: dict[str, Any] = {
        "providers": {
            "p": {"base_url": upstream.url, "api_key_env": KEY_ENV},
            "off": {"base_url": "https://off.invalid/v1", "api_key_env": "UNSET_KEY"},
            "down": {"base_url": refused_url()},
        },
        "models": {"named": {"provider": "p", "model": "upstream-name"}},
        "routers": [
            {
                "name": "work",
                "policies": [
                    task("coding", "p/code-1", "p/code-2"),
                    task("writing", "p/write-1"),
                ],
                "fallback_models": ["p/fall-1", "p/fall-2"],
            }
        ],
        "limits": {
            "decision_timeout_ms": 150,
            "connect_s": 1,
            "first_byte_s": 0.4,
            "idle_s": 0.4,
            "total_s": 5,
        },
    }
    limits = raw["limits"] | update.pop("limits", {})
    providers = raw["providers"] | update.pop("providers", {})
    return ServerConfig.model_validate(raw | update | {"limits": limits, "providers": providers})


@dataclass
class Running:
    """A server under test, with its neighbours."""

    url: str
    http: httpx.AsyncClient
    engine: FakeEngine
    upstream: FakeUpstream
    app: Any

    async def chat(
        self, text: str = "coding please", *, model: str = "router:work", **fields: Any
    ) -> httpx.Response:
        """One Chat Completions request."""
        messages = fields.pop("messages", [{"role": "user", "content": text}])
        headers = fields.pop("headers", None)
        body = {"model": model, "messages": messages, **fields}
        return await self.http.post("/v1/chat/completions", json=body, headers=headers)

    async def decision(self, body: dict[str, Any]) -> httpx.Response:
        """One decision-only request."""
        body = {"messages": [{"role": "user", "content": "coding please"}], **body}
        return await self.http.post("/routing/v1/chat/completions", json=body)


@asynccontextmanager
async def serving(
    config: ServerConfig, engine: FakeEngine, upstream: FakeUpstream, *, wait_ready: bool = True
) -> AsyncIterator[Running]:
    """The application on granian and a real socket."""
    app = create_app(config, engine=engine, environ={KEY_ENV: KEY})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = make_server(app, "127.0.0.1", port)
    task = asyncio.create_task(server.serve())
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx.AsyncClient(base_url=url, timeout=10) as http:
            await until_answers(url + ("/readyz" if wait_ready else "/healthz"))
            yield Running(url, http, engine, upstream, app)
    finally:
        server.stop()
        await asyncio.wait_for(task, 10)


async def until_answers(url: str) -> None:
    """Wait until a URL answers 200, for a few seconds; raises TimeoutError."""
    async with aiohttp.ClientSession() as session:
        for _ in range(500):
            try:
                async with session.get(url) as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.01)
    raise TimeoutError(url)
