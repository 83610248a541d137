"""Texts that wait for the encoder together are embedded together, and fail apart."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.engine.base import EngineError
from serving.engine.vllm.embeddings import Embeddings

pytestmark = pytest.mark.asyncio


class Encoder:
    """Embeds a text as its length, when it is let."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.free = threading.Event()
        self.free.set()

    def __call__(self, texts: Sequence[str]) -> NDArray[Any]:
        self.calls.append(list(texts))
        assert self.free.wait(10)
        if "bad" in texts:
            raise ValueError("bad")
        return np.array([[float(len(text))] for text in texts])


@pytest.fixture
async def held() -> Any:
    """An encoder that is busy with one text until it is let go on."""
    encoder = Encoder()
    embeddings = Embeddings(lambda: encoder)
    await embeddings.start()
    encoder.free.clear()
    first = asyncio.create_task(embeddings(["first"]))
    while not encoder.calls:  # noqa: ASYNC110 - a thread's list has no event
        await asyncio.sleep(0.001)
    yield embeddings, encoder, first
    encoder.free.set()
    embeddings.close()


async def test_what_waits_goes_together_and_each_gets_its_own(held: Any) -> None:
    embeddings, encoder, first = held
    others = [asyncio.create_task(embeddings(["x" * n, "y" * (n + 1)])) for n in range(1, 6)]
    await asyncio.sleep(0)
    encoder.free.set()
    assert (await first).tolist() == [[5.0]]
    found = await asyncio.gather(*others)
    assert [each.tolist() for each in found] == [[[n], [n + 1]] for n in range(1, 6)]
    assert [len(call) for call in encoder.calls] == [1, 10]


async def test_a_text_that_fails_fails_alone(held: Any) -> None:
    embeddings, encoder, _ = held
    good, bad = (asyncio.create_task(embeddings([text])) for text in ("good", "bad"))
    await asyncio.sleep(0)
    encoder.free.set()
    assert (await good).tolist() == [[4.0]]
    with pytest.raises(EngineError, match="ValueError: bad"):
        await bad
    assert (await embeddings(["after"])).tolist() == [[5.0]]


async def test_who_stops_waiting_costs_nothing(held: Any) -> None:
    embeddings, encoder, first = held
    gone, stays = (asyncio.create_task(embeddings([text])) for text in ("gone", "stays"))
    await asyncio.sleep(0)
    gone.cancel()
    first.cancel()
    await asyncio.sleep(0)
    encoder.free.set()
    assert (await stays).tolist() == [[5.0]]
    assert encoder.calls[1:] == [["stays"]]


async def test_closing_fails_who_waits(held: Any) -> None:
    embeddings, encoder, first = held
    waits = asyncio.create_task(embeddings(["waits"]))
    await asyncio.sleep(0)
    embeddings.close()
    encoder.free.set()
    await first
    with pytest.raises(EngineError):
        await waits
    with pytest.raises(EngineError):
        await embeddings(["late"])


async def test_what_cannot_be_loaded_is_said_at_the_start() -> None:
    def load() -> Any:
        raise OSError("no such folder")

    with pytest.raises(OSError, match="no such folder"):
        await Embeddings(load).start()
