"""A client of the routers' API, and servers that keep routers in a database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
from serving_fakes import FakeEngine, FakeUpstream, Running, config_for, serving, task

ROUTERS = "/v2/gen-ai/models/routers"
PATIENCE_S = 30


def body(name: str = "help", *tasks: str, **update: Any) -> dict[str, Any]:
    """A definition with a task for each name."""
    policies = [task(each, "p/code-1", "p/code-2") for each in tasks or ("refund", "delivery")]
    return {"name": name, "policies": policies, "fallback_models": ["p/fall-1"], **update}


@asynccontextmanager
async def replica(
    url: str,
    upstream: FakeUpstream,
    engine: FakeEngine | None = None,
    environ: dict[str, str] | None = None,
    **config: Any,
) -> AsyncIterator[Running]:
    """A server on a database, which looks for changes of others all the time."""
    storage = {"url": url, "timeout_s": 5, "reload_s": 0.05, **config.pop("storage", {})}
    settings = config_for(upstream, storage=storage, **config)
    async with serving(settings, engine or FakeEngine(), upstream, environ=environ) as running:
        await asyncio.wait_for(running.app.state.database.migrated(), PATIENCE_S)
        await running.app.state.gateway.routers.reload()  # rather than wait for its turn
        yield running


class Api:
    """Calls to one server."""

    def __init__(self, server: Running) -> None:
        self.http = server.http

    async def create(self, definition: dict[str, Any]) -> httpx.Response:
        return await self.http.post(ROUTERS, json=definition)

    async def made(self, definition: dict[str, Any]) -> str:
        """The id of a router that was made now."""
        answer = await self.create(definition)
        assert answer.status_code == 200, answer.text
        id: str = answer.json()["model_router"]["uuid"]
        return id

    async def get(self, path: str = "", **headers: str) -> httpx.Response:
        return await self.http.get(f"{ROUTERS}{path}", headers=headers)

    async def put(
        self, id: str, definition: dict[str, Any], seen: str | None = "*"
    ) -> httpx.Response:
        return await self.http.put(f"{ROUTERS}/{id}", json=definition, headers=matching(seen))

    async def delete(self, id: str, seen: str | None = "*") -> httpx.Response:
        return await self.http.delete(f"{ROUTERS}/{id}", headers=matching(seen))

    async def restore(self, id: str, number: int, seen: str | None = "*") -> httpx.Response:
        path = f"{ROUTERS}/{id}/revisions/{number}/restore"
        return await self.http.post(path, headers=matching(seen))


def matching(seen: str | None) -> dict[str, str]:
    return {} if seen is None else {"if-match": seen}


def named(answer: httpx.Response, *tasks: str) -> bool:
    """Whether an answer's router has these tasks."""
    policies = answer.json()["model_router"]["config"]["policies"]
    return [policy["custom_task"]["name"] for policy in policies] == list(tasks)


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds, with patience for a busy machine."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
