"""Servers that others can reach, with storage, and the calls that tests of keys make."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from serving_fakes import FakeEngine, FakeUpstream, Running, config_for, serving

ADMIN = "the-owner-s-own-key-9f8e7d"
FERNET = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
PRICE = {"input": 1_000_000, "output": 2_000_000}
"""US dollars per million tokens: one a token of a prompt, two of an answer."""


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@dataclass
class Keyed:
    """A server with keys, called by its owner unless said otherwise."""

    server: Running

    @property
    def http(self) -> httpx.AsyncClient:
        return self.server.http

    async def admin(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        return await self.http.request(method, path, headers=bearer(ADMIN), **arguments)

    async def make(self, name: str = "a key", **fields: Any) -> dict[str, Any]:
        """A new key, as it is answered."""
        answer = await self.admin("POST", "/admin/keys", json={"name": name, **fields})
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def chat(self, key: str, text: str = "coding please", **fields: Any) -> httpx.Response:
        return await self.server.chat(text, headers=bearer(key), **fields)

    async def own(self, key: str) -> dict[str, Any]:
        answer = await self.http.get("/v1/key", headers=bearer(key))
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told


@asynccontextmanager
async def keyed(
    upstream: FakeUpstream,
    database: Path | str,
    *,
    engine: FakeEngine | None = None,
    environ: Mapping[str, str] | None = None,
    host: str = "0.0.0.0",  # noqa: S104
    access: Mapping[str, Any] | None = None,
    wait_ready: bool = True,
    **update: Any,
) -> AsyncIterator[Keyed]:
    """A server whose configured address is not loopback; `database` is a SQLite file or a URL, and
    is waited for if `wait_ready`."""
    url = f"sqlite:///{database}" if isinstance(database, Path) else database
    config = config_for(
        upstream,
        listen={"host": host},
        storage={"url": url, "timeout_s": 5},
        access={"refresh_s": 0.05, **(access or {})},
        **update,
    )
    known = {
        "POINTSMAN_ADMIN_KEY": ADMIN,
        "POINTSMAN_KEY_SECRET": "a secret of tests that is long enough",
        "POINTSMAN_ENCRYPTION_KEYS": FERNET,
        **(environ or {}),
    }
    async with serving(config, engine or FakeEngine(), upstream, environ=known) as server:
        if wait_ready:
            await asyncio.wait_for(server.app.state.database.migrated(), 30)
        yield Keyed(server)


def priced(*models: str) -> dict[str, Any]:
    """`models` of a configuration in which these cost `PRICE`."""
    return {
        model: {"provider": "p", "model": model.partition("/")[2], "price": PRICE}
        for model in models
    }
