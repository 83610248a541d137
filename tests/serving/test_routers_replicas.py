"""Several servers on one database: no edit is lost, and no request, whatever the database does."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from serving_fakes import FakeEngine, FakeUpstream, Running, config_for, serving
from sqlalchemy import text
from stored_routers import PATIENCE_S, Api, body, named, replica, until

from scripts.postgres_server import Postgres


class Load:
    """Clients that ask routers without a pause within its block, and count how that ends."""

    def __init__(self, *asked: tuple[Running, str, str]) -> None:
        self.ends: Counter[object] = Counter()
        self._asked = asked
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Load:
        self._tasks = [asyncio.create_task(self._ask(*each)) for each in self._asked]
        return self

    async def __aexit__(self, *_: object) -> None:
        # Whatever came of the test: a server does not end while somebody asks it on and on.
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _ask(self, server: Running, model: str, text: str) -> None:
        while True:
            try:
                answer = await server.chat(text, model=model)
                self.ends[answer.status_code] += 1
            except Exception as error:
                self.ends[type(error).__name__] += 1

    async def more(self, count: int = 20) -> None:
        """Return after so many more requests."""
        goal = self.ends.total() + count
        await until(lambda: self.ends.total() >= goal)


@asynccontextmanager
async def two(
    url: str, upstream: FakeUpstream, timeout_s: float = PATIENCE_S
) -> AsyncIterator[tuple[Running, Running]]:
    # The database's time alone is short: a busy machine must not look like a lost request.
    limits = {"first_byte_s": PATIENCE_S, "idle_s": PATIENCE_S, "total_s": PATIENCE_S}
    config = {"storage": {"timeout_s": timeout_s}, "limits": limits}
    async with (
        replica(url, upstream, **config) as one,
        replica(url, upstream, **config) as other,
    ):
        yield one, other


def label(server: Running, name: str = "help") -> str | None:
    found = server.app.state.gateway.routers.get(name)
    return found.label if found else None


async def test_concurrent_edits_are_never_lost(database: str, upstream: FakeUpstream):
    async with two(database, upstream) as servers:
        id = await Api(servers[0]).made(body(description="0"))

        async def count(api: Api, times: int) -> None:
            for _ in range(times):
                status = 0
                while status != 200:
                    read = await api.get(f"/{id}")
                    number = int(read.json()["model_router"]["description"])
                    edited = body(description=str(number + 1))
                    answer = await api.put(id, edited, read.headers["etag"])
                    status = answer.status_code
                    assert status in (200, 412), answer.text

        await asyncio.gather(*(count(Api(servers[n % 2]), 3) for n in range(4)))
        final = (await Api(servers[1]).get(f"/{id}")).json()["model_router"]
        assert (final["description"], final["revision"]) == ("12", 13)


async def test_of_two_who_make_a_name_one_succeeds(database: str, upstream: FakeUpstream):
    async with two(database, upstream) as servers:
        made = await asyncio.gather(*(Api(servers[n % 2]).create(body()) for n in range(6)))
        assert sorted(answer.status_code for answer in made) == [200] + [409] * 5


async def test_a_change_reaches_all_and_disturbs_nobody(database: str, upstream: FakeUpstream):
    async with two(database, upstream) as (one, other):
        api = Api(one)
        await api.made(body("steady", "coding"))
        id = await api.made(body("help", "refund"))
        await until(lambda: label(other) == "help@1" and label(other, "steady") is not None)
        steady = [each.app.state.gateway.routers["steady"] for each in (one, other)]
        assert (await other.chat("coding", model="router:steady")).status_code == 200
        decided = len(other.engine.asked)
        load = Load((one, "router:help", "refund"), (other, "router:help", "refund"),
                    (other, "router:steady", "coding"), (one, "router:work", "coding"))  # fmt: skip
        async with load:
            for number in range(2, 6):
                await load.more(5)
                tasks = ("refund", f"task-{number}")
                assert (await api.put(id, body("help", *tasks))).status_code == 200
                assert label(one) == f"help@{number}"
            await until(lambda: label(other) == "help@5")
            await load.more()
        assert set(load.ends) == {200}
        # The router that did not change is the same one: what was read of it is not read again.
        assert all(
            each.app.state.gateway.routers["steady"] is before
            for each, before in zip((one, other), steady, strict=True)
        )
        asked = [routes for routes, _ in other.engine.asked[decided:]]
        assert asked
        assert ["coding"] not in asked
        await api.delete(id)
        await until(lambda: label(other) is None)
        assert (await other.chat(model="router:help")).status_code == 404


@pytest.mark.parametrize("fault", ["killed", "stalled"])
async def test_requests_go_on_without_the_database(
    postgres: Postgres, upstream: FakeUpstream, fault: str
):
    harm: Callable[[], None] = postgres.kill if fault == "killed" else postgres.stall
    heal: Callable[[], None] = postgres.start if fault == "killed" else postgres.resume
    async with two(await postgres.new_database(), upstream, timeout_s=2) as (one, other):
        api = Api(one)
        id = await api.made(body("help", "refund"))
        for tasks in (["delivery"], ["refund"]):
            await api.put(id, body("help", *tasks))
        await until(lambda: label(other) == "help@3")
        assert (await other.chat("refund", model="router:help@1")).status_code == 200
        load = Load((one, "router:help", "refund"), (other, "router:help@1", "refund"),
                    (other, "router:help", "refund"), (one, "router:work", "coding"))  # fmt: skip
        async with load:
            await load.more()
            try:
                await asyncio.to_thread(harm)
                async with asyncio.timeout(PATIENCE_S):
                    changes = (await api.put(id, body("help", "lost")), await api.get())
                    unknown = await other.chat("refund", model="router:help@2")
                    nobody = await other.chat("refund", model="router:nobody")
                await load.more(40)
            finally:
                await asyncio.to_thread(heal)
            for answer in (*changes, unknown):
                assert answer.status_code == 503
                assert answer.json()["error"]["code"] == "storage_unavailable"
            assert nobody.status_code == 404
            async with asyncio.timeout(PATIENCE_S):
                while (await api.put(id, body("help", "refund", "found"))).status_code != 200:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert named(await Api(other).get(f"/{id}"), "refund", "found")
            await until(lambda: label(other) == label(one) != "help@3")
            await load.more()
        assert set(load.ends) == {200}


async def test_a_server_that_starts_without_the_database(
    postgres: Postgres, upstream: FakeUpstream
):
    url = await postgres.new_database()
    async with replica(url, upstream) as first:
        await Api(first).made(body("help", "refund"))
    try:
        postgres.stall()
        async with starting(url, upstream) as server:
            assert (await server.chat("coding", model="router:work")).status_code == 200
            # Nobody knows yet whether there is such a router.
            answer = await server.chat("refund", model="router:help")
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "storage_unavailable"
            postgres.resume()
            await until(lambda: label(server) == "help@1")
            assert (await server.chat("refund", model="router:help")).status_code == 200
    finally:
        postgres.resume()


@asynccontextmanager
async def starting(url: str, upstream: FakeUpstream) -> AsyncIterator[Running]:
    storage = {"url": url, "timeout_s": 1, "reload_s": 0.05}
    async with serving(config_for(upstream, storage=storage), FakeEngine(), upstream) as running:
        yield running


async def test_what_one_server_cannot_serve(database: str, upstream: FakeUpstream):
    """A router of a provider, or of more tasks, than another replica has."""
    more = {"q": {"base_url": upstream.url}}
    small = FakeEngine(max_routes=2)
    async with (
        replica(database, upstream, providers=more) as one,
        replica(database, upstream, small) as other,
    ):
        api = Api(one)
        id = await api.made(body("help", "refund"))
        await until(lambda: label(other) == "help@1")
        await api.put(id, body("help", "refund", fallback_models=["q/new"]))
        large = await api.made(body("large", "coding", "b", "c"))
        await until(lambda: "large" in other.app.state.gateway.routers._ids)
        # The last revision that it can serve goes on; a router without one says why.
        assert (await one.chat("refund", model="router:help")).headers["x-pointsman-router"] == (
            "help@2"
        )
        answer = await other.chat("refund", model="router:help")
        assert answer.headers["x-pointsman-router"] == "help@1"
        told = (await Api(other).get(f"/{id}")).json()["model_router"]
        assert (told["revision"], told["problem"]) == (
            2,
            "fallback_models[0]: 'q/new' is not under models, and its prefix is no configured "
            "provider",
        )
        for model in ("router:large", "router:large@1", "router:help@2"):
            answer = await other.chat("coding", model=model)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "router_unusable")
        # A checkpoint that reads more routes.
        small.max_routes, small.version = 8, "another"
        await until(lambda: label(other, "large") == "large@1")
        assert (await other.chat("coding", model="router:large")).status_code == 200
        assert (await Api(other).get(f"/{large}")).json()["model_router"]["problem"] is None


async def test_a_backup_that_is_restored_is_what_counts(tmp_path: Path, upstream: FakeUpstream):
    """The number of the last change goes back; what was known of later ones is void."""
    async with replica(f"sqlite:///{tmp_path}/a.db", upstream) as server:
        api = Api(server)
        kept, lost = [await api.made(body(name, "refund")) for name in ("kept", "lost")]
        async with server.app.state.database.begin() as connection:
            await connection.execute(text("UPDATE change_counters SET value = 1"))
            await connection.execute(text("DELETE FROM router_revisions WHERE id = 2"))
            await connection.execute(text("DELETE FROM routers WHERE name = 'lost'"))
        await until(lambda: label(server, "lost") is None)
        assert label(server, "kept") == "kept@1"
        assert (await api.get(f"/{kept}")).headers["etag"] == '"1"'
        assert (await api.get(f"/{lost}")).status_code == 404
