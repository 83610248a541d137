"""Hand-written fakes of the server's two neighbours: an engine and a provider, both scripted."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import httpx
from fake_upstream import Behaviour, FakeUpstream

from routing.conversation import Conversation
from routing.decision import Calibration, Decision, decide
from routing.errors import InvalidRequest, RoutesTooLong
from routing.tasks import Route
from serving.app import create_app
from serving.config import ServerConfig
from serving.engine.base import EngineFacts, EngineMetrics
from serving.listening import make_server

__all__ = ["Behaviour", "FakeEngine", "FakeUpstream"]

Script = Callable[[Sequence[Route], Conversation], Awaitable[Any]]
KEY = "sk-owner-secret-123"
KEY_ENV = "TEST_PROVIDER_KEY"
PATIENT = {
    "decision_timeout_ms": 10_000,
    "connect_s": 10,
    "first_byte_s": 20,
    "idle_s": 20,
    "total_s": 40,
}
"""Time limits that a machine which stands still for seconds does not reach."""
BRIEF = {"decision_timeout_ms": 150, "first_byte_s": 1.5, "idle_s": 1.5}
"""Where they are reached on purpose."""


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

    def facts(self) -> EngineFacts:
        return EngineFacts(self.name, self.version, 2, Calibration())

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
            "r": {"base_url": upstream.url, "api_key_env": KEY_ENV, "responses": True},
            "a": {"base_url": upstream.url, "api_key_env": KEY_ENV, "protocol": "anthropic"},
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
        "limits": PATIENT,
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

    async def ask(
        self,
        path: str,
        text: str = "coding please",
        *,
        model: str = "router:work",
        headers: dict[str, str] | None = None,
        **fields: Any,
    ) -> httpx.Response:
        """One request of any protocol, by its path."""
        body: dict[str, Any] = {"model": model}
        if path.endswith("/responses"):
            body["input"] = text
        else:
            body["messages"] = [{"role": "user", "content": text}]
        if path.endswith("/messages"):
            body["max_tokens"] = 100
        return await self.http.post(path, json={**body, **fields}, headers=headers)

    async def decision(self, body: dict[str, Any]) -> httpx.Response:
        """One decision-only request."""
        body = {"messages": [{"role": "user", "content": "coding please"}], **body}
        return await self.http.post("/routing/v1/chat/completions", json=body)


@asynccontextmanager
async def serving(
    config: ServerConfig,
    engine: FakeEngine,
    upstream: FakeUpstream,
    *,
    wait_ready: bool = True,
    environ: Mapping[str, str] | None = None,
) -> AsyncIterator[Running]:
    """The application on granian and a real socket; `environ` is beside the provider's key."""
    app = create_app(config, engine=engine, environ={KEY_ENV: KEY, **(environ or {})})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = make_server(app, "127.0.0.1", port)
    task = asyncio.create_task(server.serve())
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx.AsyncClient(base_url=url, timeout=60) as http:
            await until_answers(url + ("/readyz" if wait_ready else "/healthz"))
            yield Running(url, http, engine, upstream, app)
    finally:
        server.stop()
        await asyncio.wait_for(task, 10)


async def until_answers(url: str, *, seconds: float = 5) -> None:
    """Wait until a URL answers 200; raises TimeoutError."""
    async with aiohttp.ClientSession() as session:
        for _ in range(round(seconds * 100)):
            try:
                async with session.get(url) as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.01)
    raise TimeoutError(url)
