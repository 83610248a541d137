"""Fixtures: a fake provider, a fake engine, and the server between them on a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from clock import Clock
from serving_fakes import FakeEngine, FakeUpstream, Running, config_for, serving


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    fake = FakeUpstream()
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def server(upstream: FakeUpstream, engine: FakeEngine) -> AsyncIterator[Running]:
    async with serving(config_for(upstream), engine, upstream) as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()
