"""The engine over `vllm serve` endpoints: same decisions, affinity, failover, what it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_vllm import FakeVllm
from test_engine import ROUTES, difference, random_texts, say
from tiny import TinyCheckpoint, make_checkpoint

from routing.tasks import Route
from serving.config import EndpointsConfig
from serving.engine.base import EngineBusy, EngineError
from serving.engine.configured import configured_engine
from serving.engine.embedded import EmbeddedEngine
from serving.engine.vllm.endpoints import EndpointReader
from serving.engine.vllm.engine import VllmEngine


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyCheckpoint:
    folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
    return make_checkpoint(folder, layout_version=2, lines="mean")


@asynccontextmanager
async def serving(
    tiny: TinyCheckpoint, count: int = 1, **options: Any
) -> AsyncIterator[tuple[VllmEngine, list[FakeVllm]]]:
    """An engine over fakes that serve the checkpoint; a short timeout and quick checks."""
    async with AsyncExitStack() as stack:
        fakes = [FakeVllm(tiny.folder) for _ in range(count)]
        for fake in fakes:
            await fake.start()
            stack.push_async_callback(fake.stop)
        config = EndpointsConfig(
            kind="endpoints",
            checkpoint=tiny.folder,
            urls=[fake.url for fake in fakes],
            timeout_s=2,
            **options,
        )
        engine = configured_engine(config, {"KEY": "secret"})
        assert isinstance(engine, VllmEngine)
        assert isinstance(engine._reader, EndpointReader)
        engine._reader._check_s = 0.05
        stack.push_async_callback(engine.close)
        await engine.start()
        yield engine, fakes


async def the_own(engine: VllmEngine, fakes: list[FakeVllm]) -> FakeVllm:
    """The endpoint that ROUTES belong to."""
    for fake in fakes:
        fake.calls = 0
    await engine.decide(ROUTES, say("first"))
    return max(fakes, key=lambda fake: fake.calls)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - what changes knows no event
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("read_out", "lines"), [("pointer", "mean"), ("pointer", "end"), ("identifier", "end")]
)
async def test_endpoints_decide_as_the_embedded_engine_does(
    tmp_path: Path, read_out: Any, lines: Any
) -> None:
    tiny = make_checkpoint(tmp_path / "tiny", read_out=read_out, lines=lines, layout_version=2)
    embedded = EmbeddedEngine(tiny.folder, None)
    await embedded.start()
    async with serving(tiny) as (engine, _):
        for seed in range(200):
            conversation = say(*random_texts(seed, 5))
            one = await engine.decide(ROUTES, conversation)
            assert difference(one, await embedded.decide(ROUTES, conversation)) < 1e-4
        assert engine.version == embedded.version
        assert engine.metrics().decisions == 200
        assert engine.metrics().tokens_computed > 0
    await embedded.close()


async def test_a_routers_lines_are_read_once(tiny: TinyCheckpoint) -> None:
    async with serving(tiny) as (engine, (fake,)):
        await asyncio.gather(*(engine.decide(ROUTES, say(f"number {i}")) for i in range(8)))
        before = fake.calls
        await engine.decide(ROUTES, say("one more"))
        assert fake.calls == before + 1
        # Each of the eight its own prompt, the warm-up's two, and one call for the lines.
        assert before == 8 + 2 + 1


async def test_prompts_of_a_router_go_to_one_endpoint(tiny: TinyCheckpoint) -> None:
    async with serving(tiny, 3) as (engine, fakes):
        for fake in fakes:
            fake.calls = 0
        for number in range(6):
            await engine.decide(ROUTES, say(f"number {number}"))
        assert sorted(fake.calls for fake in fakes)[:2] == [0, 0]
        routers = [[*ROUTES, Route(name=f"r{i}", description="More.")] for i in range(12)]
        for routes in routers:
            await engine.decide(routes, say("hello"))
        assert all(fake.calls for fake in fakes)


async def test_a_busy_endpoint_sheds_its_routers(tiny: TinyCheckpoint) -> None:
    async with serving(tiny, 2, max_waiting=64) as (engine, fakes):
        await engine.decide(ROUTES, say("first"))
        for fake in fakes:
            fake.calls = 0
        await asyncio.gather(*(engine.decide(ROUTES, say(f"number {i}")) for i in range(40)))
        assert min(fake.calls for fake in fakes) > 5


@pytest.mark.parametrize("fault", ["500", "hang", "dead"])
async def test_another_endpoint_takes_over(tiny: TinyCheckpoint, fault: str) -> None:
    async with serving(tiny, 2) as (engine, fakes):
        own = await the_own(engine, fakes)
        if fault == "dead":
            own.dead = True
        else:
            own.fault = fault
        decision = await engine.decide(ROUTES, say("second"))
        assert decision.route in {None, *(route.name for route in ROUTES)}
        assert engine.trouble() is None


async def test_the_dead_are_not_asked_and_come_back(tiny: TinyCheckpoint) -> None:
    async with serving(tiny, 2) as (engine, fakes):
        own = await the_own(engine, fakes)
        reader = engine._reader
        assert isinstance(reader, EndpointReader)
        (seen,) = [endpoint for endpoint in reader.endpoints if endpoint.url == own.url]
        own.dead = True
        await until(lambda: not seen.healthy)
        calls = own.calls
        await engine.decide(ROUTES, say("second"))
        assert own.calls == calls
        own.dead = False
        await until(lambda: seen.healthy)
        await engine.decide(ROUTES, say("third"))
        assert own.calls == calls + 1


async def test_with_all_dead_it_says_so_and_recovers(tiny: TinyCheckpoint) -> None:
    async with serving(tiny, 2) as (engine, fakes):
        for fake in fakes:
            fake.dead = True
        with pytest.raises(EngineError, match="2 of 2 endpoints failed"):
            await engine.decide(ROUTES, say("second"))
        await until(lambda: engine.trouble() == "none of 2 vLLM endpoints answers")
        for fake in fakes:
            fake.dead = False
        await until(lambda: engine.trouble() is None)
        await engine.decide(ROUTES, say("third"))


@pytest.mark.parametrize("fault", ["nonsense", "short", "400"])
async def test_an_odd_answer_is_an_engine_error(tiny: TinyCheckpoint, fault: str) -> None:
    async with serving(tiny, 2) as (engine, fakes):
        for fake in fakes:
            fake.fault = fault
        with pytest.raises(EngineError):
            await engine.decide(ROUTES, say("second"))
        for fake in fakes:
            fake.fault = None
        # A router whose lines could not be read is read again.
        await engine.decide(ROUTES, say("third"))


async def test_too_many_at_once_are_refused(tiny: TinyCheckpoint) -> None:
    async with serving(tiny, max_waiting=2) as (engine, (fake,)):
        fake.fault = "hang"
        waiting = [asyncio.create_task(engine.decide(ROUTES, say(f"{i}"))) for i in range(2)]
        await asyncio.sleep(0.05)
        with pytest.raises(EngineBusy):
            await engine.decide(ROUTES, say("third"))
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        fake.fault = None
        await engine.decide(ROUTES, say("fourth"))


async def test_the_key_is_sent_and_never_told(tiny: TinyCheckpoint) -> None:
    async with serving(tiny, api_key_env="KEY") as (engine, (fake,)):
        assert set(fake.headers) == {"Bearer secret"}
        fake.dead = True
        with pytest.raises(EngineError) as caught:
            await engine.decide(ROUTES, say("hello"))
        assert "secret" not in str(caught.value)


async def test_a_context_that_is_too_small_is_refused(tiny: TinyCheckpoint) -> None:
    fake = FakeVllm(tiny.folder, context=1024)
    await fake.start()
    reader = EndpointReader([fake.url], least_context=2049)
    with pytest.raises(EngineError, match="reads 1024 tokens"):
        await reader.start()
    other = EndpointReader([fake.url], least_context=512, model="gpt")
    with pytest.raises(EngineError, match="does not serve 'gpt'"):
        await other.start()
    await reader.close()
    await other.close()
    await fake.stop()


async def test_no_endpoint_at_all() -> None:
    reader = EndpointReader(["http://127.0.0.1:9"], least_context=512)
    with pytest.raises(EngineError, match="no endpoint answers"):
        await reader.start()
    await reader.close()
