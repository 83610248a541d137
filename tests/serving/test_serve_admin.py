"""Changing the checkpoint of a running server: all of it or nothing, and no request is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving_fakes import FakeEngine, FakeUpstream, by_name, config_for, serving
from test_engine import say
from tiny import make_checkpoint

from routing.conversation import Conversation
from routing.decision import Decision
from routing.errors import UnsupportedCheckpoint
from routing.tasks import Route
from serving.engine.base import EngineError
from serving.engine.embedded import EmbeddedEngine
from serving.engine.switch import ChangeRefused, SwitchableEngine

ROUTES = [Route(name="code", description="Code."), Route(name="prose", description="Prose.")]


class Makes:
    """Builds fake engines named after the folder; `bad` ones fail as their name says."""

    def __init__(self) -> None:
        self.made: list[FakeEngine] = []

    def __call__(self, folder: Path) -> FakeEngine:
        if folder.name == "no-checkpoint":
            raise UnsupportedCheckpoint(f"{folder} is no checkpoint")
        engine = FakeEngine()
        engine.version = folder.name
        if folder.name == "does-not-start":
            engine.start_error = EngineError("out of memory")
        if folder.name == "takes-no-routes":
            engine.max_routes = 0
        if folder.name == "nonsense":
            engine.script = nonsense
        self.made.append(engine)
        return engine


async def nonsense(routes: Sequence[Route], conversation: Conversation) -> Any:
    return Decision({route.name: 0.0 for route in routes}, None, [], 0.0)


@pytest.fixture
def makes() -> Makes:
    return Makes()


@pytest.fixture
def switchable(makes: Makes) -> SwitchableEngine:
    return SwitchableEngine(makes(Path("first")), makes)


async def change(http: httpx.AsyncClient, checkpoint: Any, **headers: str) -> httpx.Response:
    body = {"checkpoint": checkpoint}
    return await http.post("/admin/checkpoint", json=body, headers=headers)


async def test_another_checkpoint_takes_over(
    switchable: SwitchableEngine, makes: Makes, upstream: FakeUpstream
) -> None:
    config = config_for(upstream)
    async with serving(config, switchable, upstream) as server:  # type: ignore[arg-type]
        assert (await server.http.get("/admin/checkpoint")).json()["version"] == "first"
        answer = await change(server.http, "second")
        assert answer.status_code == 200, answer.text
        assert answer.json() == {"engine": "fake", "version": "second", "previous": "first"}
        assert (await server.http.get("/readyz")).json()["engine"]["version"] == "second"
        first, second = makes.made
        # Its routers were tried before anybody's request met it.
        assert len(second.asked) >= 2
        for _ in range(200):
            if first.closed:
                break
            await asyncio.sleep(0.01)
        assert first.closed
        assert not second.closed
        assert (await server.chat()).status_code == 200
        assert second.asked[-1][1].turns[-1].text == "coding please"


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("no-checkpoint", "is no checkpoint"),
        ("does-not-start", "out of memory"),
        ("takes-no-routes", "more than 0 routes"),
        ("nonsense", "is not over these routes"),
    ],
)
async def test_a_bad_checkpoint_is_refused_and_nothing_changes(
    switchable: SwitchableEngine, makes: Makes, upstream: FakeUpstream, folder: str, reason: str
) -> None:
    async with serving(config_for(upstream), switchable, upstream) as server:  # type: ignore[arg-type]
        answer = await change(server.http, folder)
        assert answer.status_code == 422
        error = answer.json()["error"]
        assert reason in error["message"]
        assert (error["param"], error["code"]) == ("checkpoint", "checkpoint_refused")
        assert switchable.version == "first"
        assert not makes.made[0].closed
        assert all(engine.closed for engine in makes.made[1:])
        assert (await server.chat()).status_code == 200
        # A refusal does not bar the next.
        assert (await change(server.http, "second")).status_code == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{", None),
        (b"{}", "checkpoint"),
        (b'{"checkpoint": 3}', "checkpoint"),
        (b'{"checkpoint": "a", "key": 1}', "key"),
        (b"[]", None),
    ],
)
async def test_bad_bodies(
    switchable: SwitchableEngine, upstream: FakeUpstream, body: bytes, param: str | None
) -> None:
    async with serving(config_for(upstream), switchable, upstream) as server:  # type: ignore[arg-type]
        answer = await server.http.post("/admin/checkpoint", content=body)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == param


async def test_one_change_at_a_time(makes: Makes, switchable: SwitchableEngine) -> None:
    loading = asyncio.Event()
    slow = makes(Path("slow"))
    slow.loading = loading
    switchable._build = lambda _: slow
    one = asyncio.create_task(switchable.change(Path("slow"), [ROUTES]))
    await asyncio.sleep(0.05)
    with pytest.raises(ChangeRefused, match="another checkpoint is being loaded"):
        await switchable.change(Path("third"), [ROUTES])
    assert switchable.version == "first"
    loading.set()
    assert await one == "slow"
    await switchable.close()


async def test_the_old_one_ends_what_it_began(makes: Makes, switchable: SwitchableEngine) -> None:
    go_on = asyncio.Event()

    async def waits(routes: Sequence[Route], conversation: Conversation) -> Decision:
        await go_on.wait()
        return await by_name(routes, conversation)

    first = makes.made[0]
    first.script = waits
    under_way = asyncio.create_task(switchable.decide(ROUTES, say("code")))
    await asyncio.sleep(0)
    await switchable.change(Path("second"), [ROUTES])
    assert (await switchable.decide(ROUTES, say("prose"))).route == "prose"
    assert not first.closed
    go_on.set()
    assert (await under_way).route == "code"
    async with asyncio.timeout(5):
        while not first.closed:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await switchable.close()


async def test_no_decision_is_lost_under_load(tmp_path: Path) -> None:
    """Two real checkpoints take turns while eight clients decide."""
    tinies = [make_checkpoint(tmp_path / name, seed=n) for n, name in enumerate("ab")]

    def build(folder: Path) -> EmbeddedEngine:
        return EmbeddedEngine(folder, None, max_waiting=64)

    engine = SwitchableEngine(build(tinies[0].folder), build)
    await engine.start()
    versions = {engine.version}
    done = asyncio.Event()
    counts = [0] * 8

    async def client(number: int) -> None:
        while not done.is_set():
            await engine.decide(ROUTES, say(f"number {number}, {counts[number]}"))
            counts[number] += 1

    clients = [asyncio.create_task(client(number)) for number in range(8)]
    for turn in range(4):
        versions.add(await engine.change(tinies[(turn + 1) % 2].folder, [ROUTES]))
    done.set()
    await asyncio.gather(*clients)  # raises what any of them met
    assert len(versions) == 2
    assert min(counts) > 0
    await engine.close()


async def test_a_server_that_failed_to_start_recovers(makes: Makes, upstream: FakeUpstream) -> None:
    engine = SwitchableEngine(makes(Path("does-not-start")), makes)
    config = config_for(upstream)
    async with serving(config, engine, upstream, wait_ready=False) as server:  # type: ignore[arg-type]
        assert (await server.http.get("/readyz")).status_code == 503
        assert (await change(server.http, "second")).status_code == 200
        assert (await server.http.get("/readyz")).status_code == 200


async def test_with_a_key_its_bearer_alone_may(
    switchable: SwitchableEngine, upstream: FakeUpstream
) -> None:
    environ = {"POINTSMAN_ADMIN_KEY": "owner"}
    async with serving(config_for(upstream), switchable, upstream, environ=environ) as server:  # type: ignore[arg-type]
        assert (await change(server.http, "second")).status_code == 401
        refused = await change(
            server.http, "second", authorization="Bearer öwner".encode("latin-1")
        )  # type: ignore[arg-type]
        assert refused.status_code == 401
        assert switchable.version == "first"
        answer = await change(server.http, "second", authorization="Bearer owner")
        assert answer.status_code == 200
