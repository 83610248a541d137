"""What the in-process reader does about a vLLM that hangs, dies or does not start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from serving.engine.base import EngineError
from serving.engine.vllm import in_process
from serving.engine.vllm.in_process import InProcessReader, VllmSettings

# Not imported to find out: every process that collects would wait for it.
pytestmark = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")

SETTINGS = VllmSettings(max_model_len=64, read_out="pointer", hang_s=0.3)


class ScriptedVllm:
    """Answers with ones; hangs, fails or is dead when told."""

    def __init__(self) -> None:
        self.hangs = self.dead = self.stopped = False
        self.freed: list[str] = []

    async def check_health(self) -> None:
        if self.dead:
            raise RuntimeError("the engine core died")

    async def encode(self, prompt: Any, params: Any, name: str) -> AsyncIterator[Any]:
        try:
            while self.hangs:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            if self.dead:
                raise RuntimeError("secret prompt text")
            tokens = prompt["prompt_token_ids"]
            shape = (len(tokens), 4) if params.task == "token_embed" else (4,)
            data = torch.ones(shape)
            yield SimpleNamespace(
                outputs=SimpleNamespace(data=data), prompt_token_ids=tokens, num_cached_tokens=1
            )
        finally:
            self.freed.append(name)

    def shutdown(self) -> None:
        self.stopped = True


class Starts:
    """Hands out scripted engines, or fails; remembers them."""

    def __init__(self) -> None:
        self.made: list[ScriptedVllm] = []
        self.failures = 0

    def __call__(self, folder: Path, settings: VllmSettings) -> ScriptedVllm:
        if self.failures:
            self.failures -= 1
            raise MemoryError("no room")
        self.made.append(ScriptedVllm())
        return self.made[-1]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_process, "WATCH_S", 0.02)
    monkeypatch.setattr(in_process, "FIRST_BACK_OFF_S", 0.02)


@pytest.fixture
async def running() -> AsyncIterator[tuple[InProcessReader, Starts]]:
    starts = Starts()
    reader = InProcessReader(lambda: Path("export"), SETTINGS, starts)
    await reader.start()
    yield reader, starts
    await reader.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - what changes knows no event
            await asyncio.sleep(0.01)


async def test_states_come_back_in_shape(running: tuple[InProcessReader, Starts]) -> None:
    reader, _ = running
    np.testing.assert_array_equal(await reader.last_state([1, 2, 3], b""), np.ones(4))
    assert (await reader.states_at([1, 2, 3], [0, 2], b"")).shape == (2, 4)
    assert (reader.counts.prompt, reader.counts.cached) == (6, 2)


@pytest.mark.parametrize("fault", ["dead", "hangs"])
async def test_a_broken_vllm_is_replaced(
    running: tuple[InProcessReader, Starts], fault: str
) -> None:
    reader, starts = running
    setattr(starts.made[0], fault, True)
    call = asyncio.create_task(reader.last_state([1], b""))
    await until(lambda: starts.made[0].stopped)
    await until(lambda: reader.restarts == 1)
    assert reader.trouble() is None
    np.testing.assert_array_equal(await reader.last_state([1], b""), np.ones(4))
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)


async def test_calls_fail_at_once_while_it_is_away(
    running: tuple[InProcessReader, Starts],
) -> None:
    reader, starts = running
    starts.failures = 3
    starts.made[0].dead = True
    await until(lambda: reader.trouble() is not None)
    with pytest.raises(EngineError, match="vLLM"):
        await reader.last_state([1], b"")
    await until(lambda: reader.restarts == 1)
    assert len(starts.made) == 2
    assert reader.trouble() is None


async def test_what_vllm_says_is_not_repeated(running: tuple[InProcessReader, Starts]) -> None:
    reader, starts = running
    starts.made[0].dead = True
    with pytest.raises(EngineError) as caught:
        await reader.last_state([1], b"")
    assert "secret" not in str(caught.value)


async def test_a_cancelled_call_is_freed(running: tuple[InProcessReader, Starts]) -> None:
    reader, starts = running
    starts.made[0].hangs = True
    call = asyncio.create_task(reader.last_state([1], b""))
    await asyncio.sleep(0.05)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert len(starts.made[0].freed) == 1
    assert reader.under_way == 0


async def test_a_call_that_was_given_up_is_no_hang(
    running: tuple[InProcessReader, Starts],
) -> None:
    reader, starts = running
    starts.made[0].hangs = True
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.last_state([1], b""), 0.05)
    starts.made[0].hangs = False
    await asyncio.sleep(0.5)
    assert reader.restarts == 0
    assert not starts.made[0].stopped


async def test_a_hang_is_seen_though_every_caller_gives_up(
    running: tuple[InProcessReader, Starts],
) -> None:
    reader, starts = running
    starts.made[0].hangs = True
    async with asyncio.timeout(10):
        while reader.restarts == 0:
            try:
                await asyncio.wait_for(reader.last_state([1], b""), 0.05)
            except (TimeoutError, EngineError):
                await asyncio.sleep(0.01)
    assert starts.made[0].stopped


async def test_a_failed_first_start_is_told() -> None:
    starts = Starts()
    starts.failures = 1
    reader = InProcessReader(lambda: Path("export"), SETTINGS, starts)
    with pytest.raises(MemoryError):
        await reader.start()
    await reader.start()
    await reader.close()
    assert starts.made[0].stopped
    with pytest.raises(EngineError, match="closed"):
        await reader.last_state([1], b"")
