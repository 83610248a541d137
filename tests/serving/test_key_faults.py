"""Stores that die or hang: requests go on by what was last known."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from access_fakes import Keyed, bearer, keyed, priced
from serving_fakes import FakeUpstream

from scripts.postgres_server import Postgres

MODELS = priced("p/code-1", "p/code-2", "p/fall-1", "p/fall-2")
COST = 25


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A running Redis: its URL and its process."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [binary, "--port", str(port), "--save", "", "--dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    for _ in range(200):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                break
        process.poll()
        signal.sigtimedwait([], 0.05)
    yield f"redis://127.0.0.1:{port}/0", process
    process.send_signal(signal.SIGCONT)
    process.kill()
    process.wait()


@asynccontextmanager
async def gone(postgres: Postgres, how: str) -> AsyncIterator[None]:
    """While PostgreSQL is dead or hangs."""
    if how == "killed":
        await asyncio.to_thread(postgres.kill)
    else:
        postgres.stall()
    try:
        yield
    finally:
        if how == "killed":
            await asyncio.to_thread(postgres.start)
        else:
            postgres.resume()


@pytest.mark.parametrize("how", ["killed", "stalled"])
async def test_keys_and_budgets_hold_while_postgresql_is_gone(
    upstream: FakeUpstream, postgres: Postgres, how: str
):
    url = await postgres.new_database()
    async with keyed(upstream, url, models=MODELS) as server:
        made = await server.make(monthly_budget=4 * COST + 1)
        key = made["key"]
        assert (await server.chat(key, max_tokens=1)).status_code == 200
        async with gone(postgres, how):
            for _ in range(3):
                assert (await server.chat(key, max_tokens=1)).status_code == 200
            assert (await server.chat(key, max_tokens=1)).status_code == 429
            unknown = await server.chat("pm_" + "x" * 43)
            assert unknown.status_code == 401
            refused = await server.admin("POST", "/admin/keys", json={"name": "a"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (
                503,
                "storage_unavailable",
            )
        # Once it is back, nothing that was spent meanwhile is lost.
        async with keyed(upstream, url, models=MODELS) as other, asyncio.timeout(60):
            while await spent(other, made["id"]) != 4 * COST:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            assert (await server.admin("POST", "/admin/keys", json={"name": "a"})).is_success


async def spent(server: Keyed, identifier: str) -> float:
    told = await server.admin("GET", f"/admin/keys/{identifier}")
    dollars: float = told.json()["usage"]["dollars"] if told.is_success else -1
    return dollars


async def test_a_server_that_starts_without_its_database_lets_nobody_in_until_it_answers(
    upstream: FakeUpstream, postgres: Postgres
):
    url = await postgres.new_database()
    async with keyed(upstream, url) as server:
        key = (await server.make())["key"]
    await asyncio.to_thread(postgres.kill)
    environ = {"POINTSMAN_ADMIN_KEY": ""}
    try:
        async with keyed(upstream, url, environ=environ, wait_ready=False) as server:
            for headers in (bearer(key), {}):
                told = await server.http.get("/v1/models", headers=headers)
                assert (told.status_code, told.headers["retry-after"]) == (503, "1")
            await asyncio.to_thread(postgres.start)
            async with asyncio.timeout(60):
                while (await server.chat(key)).status_code != 200:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            assert (await server.http.get("/v1/models")).status_code == 401
    finally:
        await asyncio.to_thread(postgres.start)


async def test_replicas_share_their_limits_in_redis_and_go_on_without(
    upstream: FakeUpstream, tmp_path: Path, redis: tuple[str, subprocess.Popen[bytes]]
):
    url, process = redis
    environ = {"POINTSMAN_REDIS_URL": url}
    file = tmp_path / "k.db"
    async with (
        keyed(upstream, file, environ=environ) as one,
        keyed(upstream, file, environ=environ) as other,
    ):
        key = (await one.make(requests_per_minute=6))["key"]
        told = [await server.chat(key) for server in (one, other) * 4]
        assert [each.status_code for each in told].count(200) == 6
        assert (await other.chat(key)).status_code == 429
        process.send_signal(signal.SIGSTOP)
        # Each by itself now: what is shared does not answer.
        assert [(await one.chat(key)).status_code for _ in range(7)] == [200] * 6 + [429]
        process.kill()
        assert [(await other.chat(key)).status_code for _ in range(7)] == [200] * 6 + [429]
