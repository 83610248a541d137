"""An engine in another process, seen through its socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from server_process import until
from serving_fakes import FakeEngine
from test_engine import say

from routing.conversation import Conversation
from routing.decision import Decision
from routing.errors import InvalidRequest, UnsupportedCheckpoint
from routing.tasks import Route
from serving.engine.base import Engine, EngineBusy, EngineError
from serving.engine.switch import (
    ChangeImpossible,
    ChangeRefused,
    ChangeUnderWay,
    SwitchableEngine,
)
from serving.workers.engine_host import EngineHost
from serving.workers.remote_engine import GONE, RemoteEngine

ROUTES = [Route(name="code", description="Code."), Route(name="prose", description="Prose.")]


def made(folder: Path | None) -> FakeEngine:
    """Named after the folder; `narrow` takes one route alone."""
    engine = FakeEngine()
    if folder is not None:
        engine.version = folder.name
        if folder.name == "broken":
            raise UnsupportedCheckpoint("no checkpoint")
        if folder.name == "narrow":
            engine.max_routes = 1
    return engine


class Hosted:
    """A hosted engine and two workers' views of it."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        self.socket = folder / "engine"
        self.changes: list[str] = []
        self.host = EngineHost(engine, None, self._changed)
        self.one, self.other = (RemoteEngine(self.socket, made) for _ in range(2))
        self.hosting = asyncio.ensure_future(self.host.run(self.socket))

    async def _changed(self, checkpoint: str) -> None:
        self.changes.append(checkpoint)


@asynccontextmanager
async def hosted(folder: Path, engine: Engine) -> AsyncIterator[Hosted]:
    both = Hosted(folder, engine)
    try:
        async with asyncio.timeout(20):
            await both.one.start()
            await both.other.start()
            yield both
    finally:
        await both.one.close()
        await both.other.close()
        both.hosting.cancel()
        await asyncio.gather(both.hosting, return_exceptions=True)


async def test_it_decides_as_the_engine_itself(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with hosted(tmp_path, engine) as both:
        asked = say("some prose", "an answer", "now code, ünd “quotes”")
        decision = await both.one.decide(ROUTES, asked)
        assert decision == await engine.decide(ROUTES, asked)
        assert engine.asked[0] == (["code", "prose"], asked)
        many = await asyncio.gather(
            *(both.other.decide(ROUTES, say(f"code {n}")) for n in range(50))
        )
        assert {each.route for each in many} == {"code"}
        assert both.one.version == engine.version
        assert both.one.trouble() is None


async def test_failures_are_told_by_kind_and_without_words_of_the_prompt(tmp_path: Path) -> None:
    async def fails(routes: Sequence[Route], conversation: Conversation) -> Decision:
        raise EngineBusy("full") if "busy" in conversation.turns[-1].text else ValueError("canary")

    async with hosted(tmp_path, FakeEngine(fails)) as both:
        with pytest.raises(EngineBusy):
            await both.one.decide(ROUTES, say("busy"))
        with pytest.raises(EngineError, match="ValueError") as failure:
            await both.one.decide(ROUTES, say("canary"))
        assert "canary" not in str(failure.value)


async def test_a_decision_that_nobody_waits_for_is_taken_back(tmp_path: Path) -> None:
    async def waits(routes: Sequence[Route], conversation: Conversation) -> Any:
        await asyncio.Event().wait()

    engine = FakeEngine(waits)
    async with hosted(tmp_path, engine) as both:
        deciding = asyncio.ensure_future(both.one.decide(ROUTES, say("code")))
        await engine.was_asked.wait()
        deciding.cancel()
        await until(lambda: engine.cancelled == 1, "the cancellation")


async def test_a_change_reaches_every_worker(tmp_path: Path) -> None:
    engine = SwitchableEngine(made(Path("first")), made)
    async with hosted(tmp_path, engine) as both:
        both.other.check_routes(ROUTES)
        assert await both.one.change(Path("narrow"), [ROUTES[:1]]) == "narrow"
        await until(lambda: both.other.version == both.one.version == "narrow", "the change")
        assert both.changes == ["narrow"]
        for each in (both.one, both.other):
            with pytest.raises(InvalidRequest):
                each.check_routes(ROUTES)
        with pytest.raises(ChangeRefused, match="no checkpoint"):
            await both.one.change(Path("broken"), [])
        assert both.one.version == "narrow"


async def test_refusals_keep_their_kind(tmp_path: Path) -> None:
    engine = SwitchableEngine(made(Path("first")), made)
    engine._changing = True
    async with hosted(tmp_path, engine) as both:
        with pytest.raises(ChangeUnderWay):
            await both.one.change(Path("second"), [])
    async with hosted(tmp_path, FakeEngine()) as both:
        with pytest.raises(ChangeImpossible):
            await both.one.change(Path("second"), [])


async def test_an_engine_that_goes_and_comes_back(tmp_path: Path) -> None:
    async with hosted(tmp_path, FakeEngine()) as both:
        both.hosting.cancel()
        await until(lambda: both.one.trouble() == GONE, "its end")
        with pytest.raises(EngineError):
            await both.one.decide(ROUTES, say("code"))
        again = Hosted(tmp_path, FakeEngine())
        try:
            await until(lambda: both.one.trouble() is None, "its return")
            assert (await both.one.decide(ROUTES, say("code"))).route == "code"
        finally:
            again.hosting.cancel()
            await asyncio.gather(again.hosting, return_exceptions=True)


async def test_an_engine_that_does_not_start_says_so(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.start_error = EngineError("no memory")
    both = Hosted(tmp_path, engine)
    starting = asyncio.ensure_future(both.one.start())
    try:
        await until(lambda: both.one.trouble() == "failed to start", "its failure")
        assert not starting.done()
    finally:
        starting.cancel()
        await both.one.close()
        both.hosting.cancel()
        await asyncio.gather(both.hosting, starting, return_exceptions=True)
