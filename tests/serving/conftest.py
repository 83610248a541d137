"""Fixtures: a fake provider, a fake engine, and the server between them on a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from clock import Clock
from recorded import recording
from serving_fakes import FakeEngine, FakeUpstream, Running, config_for, serving

from scripts.postgres_server import Postgres, binaries


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


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL; whoever stops it starts it again."""
    folder = binaries()
    if folder is None:
        pytest.skip("PostgreSQL's server is not installed: no initdb")
    server = Postgres(folder)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/pointsman.db"
    url: str = await request.getfixturevalue("postgres").new_database()
    return url


@pytest.fixture
async def recorder(upstream: FakeUpstream, tmp_path: Path) -> AsyncIterator[Running]:
    """A server that records, in SQLite."""
    async with recording(upstream, f"sqlite:///{tmp_path}/records.db") as running:
        yield running
