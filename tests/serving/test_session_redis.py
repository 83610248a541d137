"""Sessions in a real Redis that is killed, restarted and stalled while requests go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from redis_server import RedisServer, needs_redis, redis_server
from serving_fakes import Behaviour, FakeEngine, FakeUpstream, Running, config_for, serving
from structlog.testing import capture_logs

from serving.sessions.session import Session
from serving.sessions.shared import RedisStore
from serving.sessions.store import MemoryStore

pytestmark = needs_redis
TASKS = {"coding": "p/code-1", "writing": "p/write-1"}


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with redis_server(tmp_path) as server:
        yield server


@asynccontextmanager
async def replica(redis: RedisServer, upstream: FakeUpstream) -> AsyncIterator[Running]:
    # A busy machine may take longer than the 50 ms of the default.
    sessions = {"redis_url": redis.url, "redis_timeout_ms": 500}
    config = config_for(upstream, sessions=sessions)
    async with serving(config, FakeEngine(), upstream) as running:
        yield running


async def ask(server: Running, session: str, text: str) -> httpx.Response:
    answer = await server.chat(f"{text} please", headers={"x-model-affinity": session})
    assert answer.status_code == 200, answer.text
    return answer


async def model(server: Running, session: str, text: str) -> str:
    return (await ask(server, session, text)).headers["x-pointsman-model"]


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(1000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


def store_of(server: Running) -> RedisStore:
    store = server.app.state.gateway.sessions.store
    assert isinstance(store, RedisStore)
    return store


async def written(server: Running) -> None:
    """Wait until Redis has all that the replica knows."""
    await until(lambda: store_of(server).up and not store_of(server).unwritten)


async def test_two_replicas_agree(redis: RedisServer, upstream: FakeUpstream):
    async with replica(redis, upstream) as one, replica(redis, upstream) as two:
        for number in range(10):
            first, second = ("coding", "writing") if number % 2 else ("writing", "coding")
            assert await model(one, f"s{number}", first) == TASKS[first]
            await written(one)
            answer = await ask(two, f"s{number}", second)
            assert answer.headers["x-pointsman-model"] == TASKS[first]
            assert answer.headers["x-pointsman-pinned"] == "true"
        upstream.models["code-1"] = Behaviour("error", 503)
        assert await model(two, "s1", "coding") == "p/code-2"
        await written(two)
        del upstream.models["code-1"]
        assert await model(one, "s1", "coding") == "p/code-2"


async def test_a_redis_that_is_killed_fails_no_request_and_gets_its_sessions_back(
    redis: RedisServer, upstream: FakeUpstream
):
    async with replica(redis, upstream) as one, replica(redis, upstream) as two:
        with capture_logs() as logs:
            assert await model(one, "before", "coding") == "p/code-1"
            await written(one)
            redis.kill()
            assert await model(one, "before", "writing") == "p/code-1"
            assert await model(one, "during", "writing") == "p/write-1"
            assert await model(one, "during", "coding") == "p/write-1"
            assert not store_of(one).up
            await redis.start()
            await written(one)
            await until(lambda: store_of(two).up)
            assert await model(two, "before", "writing") == "p/code-1"
            assert await model(two, "during", "coding") == "p/write-1"
    events = [line["event"] for line in logs]
    assert "session_store_down" in events
    assert "session_store_up" in events
    assert redis.url not in str(logs)


@pytest.mark.parametrize("how", ["killed", "stalled"])
async def test_under_load_requests_go_on_whatever_happens_to_redis(
    redis: RedisServer, upstream: FakeUpstream, how: str
):
    """Eight clients talk on; each session must keep its model from its first answer on."""
    stop = asyncio.Event()
    answered = 0

    async def client(server: Running, name: str) -> None:
        nonlocal answered
        kept: str | None = None
        number = 0
        while not stop.is_set():
            given = await model(server, name, ("coding", "writing")[number % 2])
            assert kept in (None, given)
            kept, number, answered = given, number + 1, answered + 1

    async def more(count: int) -> None:
        reached = answered + count
        await until(lambda: answered >= reached or any(task.done() for task in clients))

    async with replica(redis, upstream) as one, replica(redis, upstream) as two:
        clients = [
            asyncio.create_task(client((one, two)[number % 2], f"c{number}")) for number in range(8)
        ]
        await more(40)
        redis.kill() if how == "killed" else redis.stall()
        await more(80)
        assert not store_of(one).up
        assert not store_of(two).up
        await redis.start() if how == "killed" else redis.go_on()
        await until(lambda: store_of(one).up and store_of(two).up)
        await more(40)
        stop.set()
        await asyncio.gather(*clients)
        await written(one)
        kept = await model(one, "c0", "coding")
        await written(one)
        assert await model(two, "c0", "writing") == kept


async def test_a_redis_that_stalls_is_waited_for_once(redis: RedisServer):
    store = RedisStore(redis.url, MemoryStore(10, 600), limit=10, ttl_s=600, timeout_s=0.5)
    await store.start()
    try:
        assert await store.get("a") is None
        assert store.up
        redis.stall()
        async with asyncio.timeout(20):
            assert await store.get("a") is None
        failures = store.failures
        assert not store.up
        assert await store.get("a") is None
        assert store.failures == failures
    finally:
        redis.go_on()
        await store.close()


async def test_what_another_replica_has_changed_since_is_not_overwritten(redis: RedisServer):
    def session(model: str, updated: float) -> Session:
        return Session(model, None, "", True, updated)

    def made() -> RedisStore:
        local = MemoryStore(10, 600, lambda: 1000.0)
        return RedisStore(redis.url, local, limit=10, ttl_s=600, timeout_s=5, clock=lambda: 1000.0)

    one, two = made(), made()
    await two.start()
    two.put("a", session("newer", 900.0))
    two.put("b", session("older", 700.0))
    await until(lambda: not two.unwritten)
    one.up = False
    one.put("a", session("older", 800.0))
    one.put("b", session("newer", 900.0))
    await one.start()
    await until(lambda: one.up and not one.unwritten)
    for store in (one, two):
        for key in "ab":
            found = await store.get(key)
            assert found is not None
            assert found.model == "newer"
    await one.close()
    await two.close()


async def test_a_server_that_begins_without_redis_serves(upstream: FakeUpstream, tmp_path: Path):
    absent = RedisServer(tmp_path)
    async with replica(absent, upstream) as server:
        assert await model(server, "s", "coding") == "p/code-1"
        assert await model(server, "s", "writing") == "p/code-1"
        assert (await server.http.get("/readyz")).status_code == 200
