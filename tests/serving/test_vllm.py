"""The engine over a real vLLM in a child process: same decisions, many at once, death, return."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from exporting import export_by_command, exportable
from forked import vllm_children
from serving_fakes import FakeUpstream, config_for, serving
from test_engine import ROUTES, difference, random_texts, say
from test_generated import adopted
from tiny import TinyCheckpoint, make_checkpoint

from routing.layout import Budget
from routing.tasks import Route
from serving.config import VllmConfig
from serving.engine.base import Engine
from serving.engine.configured import configured_engine
from serving.engine.embedded import EmbeddedEngine
from serving.engine.vllm.engine import VllmEngine
from serving.engine.vllm.in_process import InProcessReader

pytestmark = [
    # Not imported to find out: that takes longer than most tests.
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed"),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(400),
]

OPTIONS = {"enforce_eager": True}
"""Compiling takes longer than all that these tests compute."""


@pytest.fixture(scope="module", autouse=True)
def quick_children() -> Iterator[None]:
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    with vllm_children():
        yield


def vllm_engine(checkpoint: TinyCheckpoint, **updates: Any) -> VllmEngine:
    config = VllmConfig(
        kind="vllm",
        checkpoint=checkpoint.folder,
        base=checkpoint.base,
        dtype="float32",
        options=OPTIONS,
        **updates,
    )
    engine = configured_engine(config, {})
    assert isinstance(engine, VllmEngine)
    return engine


async def agree(one: Engine, other: Engine, conversations: int) -> None:
    """Both decide alike at every turn of random conversations."""
    for seed in range(conversations):
        texts = random_texts(seed, 9)
        for length in (1, 3, 5, 9):
            conversation = say(*texts[:length])
            found = await one.decide(ROUTES, conversation)
            assert difference(found, await other.decide(ROUTES, conversation)) < 1e-3


@pytest.fixture(scope="module")
def pointer(tmp_path_factory: pytest.TempPathFactory) -> TinyCheckpoint:
    return make_checkpoint(
        tmp_path_factory.mktemp("pointer") / "checkpoint",
        architecture="qwen3_moe",
        layout_version=2,
        lines="mean",
        budget=Budget(max_tokens=1024),
    )


@pytest.fixture(scope="module")
async def engine(pointer: TinyCheckpoint) -> AsyncIterator[VllmEngine]:
    started = vllm_engine(pointer)
    await started.start()
    yield started
    await started.close()


async def test_it_decides_as_the_embedded_engine_does(
    engine: VllmEngine, pointer: TinyCheckpoint
) -> None:
    embedded = EmbeddedEngine(pointer.folder, None)
    await embedded.start()
    await agree(engine, embedded, 50)  # 200 decisions
    assert engine.version == embedded.version
    await embedded.close()


async def test_what_was_read_is_not_read_again(engine: VllmEngine) -> None:
    texts = random_texts(99, 9)
    await engine.decide(ROUTES, say(*texts))
    before = engine.metrics()
    await engine.decide(ROUTES, say(*texts))
    after = engine.metrics()
    # All but the last block of tokens comes from the cache, and blocks are small.
    assert after.tokens_computed - before.tokens_computed <= 32
    assert after.tokens_cached > before.tokens_cached + 100


async def test_many_decide_at_once(engine: VllmEngine) -> None:
    conversations = [say(*random_texts(seed, 3)) for seed in range(32)]
    alone = [await engine.decide(ROUTES, each) for each in conversations[:4]]
    together = await asyncio.gather(*(engine.decide(ROUTES, each) for each in conversations))
    assert max(map(difference, alone, together[:4])) < 1e-3
    others = [Route(name=f"r{n}", description="Something else.") for n in range(40)]
    found = await engine.decide(others, conversations[0])
    assert len(found.distribution) == 41


async def test_who_stops_waiting_frees_its_place(engine: VllmEngine) -> None:
    tasks = [asyncio.create_task(engine.decide(ROUTES, say(*random_texts(n, 9)))) for n in range(8)]
    await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    reader = engine._reader
    assert isinstance(reader, InProcessReader)
    async with asyncio.timeout(10):
        while reader.under_way:  # noqa: ASYNC110 - a lines' task may outlive its asker
            await asyncio.sleep(0.02)
    assert (await engine.decide(ROUTES, say("still there?"))).distribution


async def test_it_is_killed_under_load_and_comes_back(engine: VllmEngine) -> None:
    """Sixteen clients of the server meet the death of vLLM, and none of them notices."""
    upstream = FakeUpstream()
    await upstream.start()
    reader = engine._reader
    assert isinstance(reader, InProcessReader)
    config = config_for(upstream, limits={"decision_timeout_ms": 5000})
    async with serving(config, engine, upstream) as server:  # type: ignore[arg-type]

        async def client(number: int) -> list[int]:
            statuses: list[int] = []
            for turn in range(6):
                statuses.append((await server.chat(f"{number} and {turn}")).status_code)
                await asyncio.sleep(0.05)
            return statuses

        clients = [asyncio.create_task(client(number)) for number in range(16)]
        await asyncio.sleep(0.3)
        [core] = [each for each in multiprocessing.active_children() if "EngineCore" in each.name]
        core.kill()
        answers = [each for found in await asyncio.gather(*clients) for each in found]
        assert answers == [200] * 96
        counts = (await server.http.get("/healthz")).json()["decisions"]
        assert counts.get("engine_error", 0) + counts.get("engine_not_ready", 0) > 0
        async with asyncio.timeout(120):
            while engine.trouble() is not None or reader.restarts == 0:  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        assert (await server.http.get("/readyz")).status_code == 200
        assert (await engine.decide(ROUTES, say("back again?"))).distribution
    await upstream.stop()


async def test_an_identifier_checkpoint_reads_next_tokens(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "identifier", read_out="identifier", layout_version=2)
    embedded = EmbeddedEngine(checkpoint.folder, None)
    await embedded.start()
    other = vllm_engine(checkpoint)
    try:
        await other.start()
        await agree(other, embedded, 50)
    finally:
        await other.close()
        await embedded.close()


async def test_an_export_is_compared_under_vllm_too(tmp_path: Path) -> None:
    adapter = exportable(tmp_path / "adapter")
    printed = await asyncio.to_thread(export_by_command, adapter, tmp_path)
    assert "vLLM: same choice in 100.0% of 24" in printed


async def test_a_random_model_cannot_answer_nonsense(tmp_path: Path) -> None:
    settings = VllmConfig(
        kind="vllm",
        checkpoint=adopted(tmp_path / "weights", "plano-orchestrator"),
        dtype="float32",
        options=OPTIONS,
    )
    generating = configured_engine(settings, {})
    try:
        await generating.start()
        for text in ("Mend my tap.", "Rhyme on it.", "資料"):
            decision = await generating.decide(ROUTES, say(text))
            assert set(decision.routes) <= {route.name for route in ROUTES}
            assert 0 <= decision.confidence <= 1
    finally:
        await generating.close()
