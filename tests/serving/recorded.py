"""A server that records, and what tests ask of its records."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from serving_fakes import FakeEngine, FakeUpstream, Running, config_for, serving

from routing.conversation import Turn
from serving.needs import Need
from serving.records.snapshot import Identity, Snapshot, time_ordered_id

DECISIONS = "/routing/v1/decisions"


@asynccontextmanager
async def recording(
    upstream: FakeUpstream, url: str, engine: FakeEngine | None = None, **update: Any
) -> AsyncIterator[Running]:
    """The server of `serving`, with a database at `url`."""
    config = config_for(upstream, **{"storage": {"url": url, "timeout_s": 1}, **update})
    async with serving(config, engine or FakeEngine(), upstream) as server:
        await server.app.state.database.migrated()
        yield server


async def written(server: Running) -> None:
    """Have all records in the database."""
    await server.app.state.records.writer.write_all()


async def decision(server: Running, id: str) -> dict[str, Any]:
    """All about one decision, by its id or its trace id."""
    answer = await server.http.get(f"{DECISIONS}/{id}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def listed(server: Running, **query: Any) -> list[dict[str, Any]]:
    """All decisions that a query finds, page by page."""
    found: list[dict[str, Any]] = []
    while True:
        answer = await server.http.get(DECISIONS, params=query)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page["data"]
        assert page["has_more"] == (page["next_cursor"] is not None)
        if not page["has_more"]:
            return found
        query["cursor"] = page["next_cursor"]


async def until(met: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until a condition is met; raises TimeoutError."""
    for _ in range(round(seconds * 100)):
        if met():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


def trace_of(answer: Any) -> str:
    """The trace id that an answer names."""
    trace: str = answer.headers["x-pointsman-trace-id"]
    return trace


def a_snapshot(*said: str, created: float = 1_800_000_000.0, **fields: Any) -> Snapshot:
    """A request that nothing is known of but what a user said, and `fields`."""
    turns = tuple(Turn("user", text, index) for index, text in enumerate(said))
    plain = Snapshot(
        id=time_ordered_id(created),
        created=created,
        trace_id="0" * 31 + "1",
        endpoint="/v1/chat/completions",
        stream=False,
        need=Need(),
        router="work",
        router_revision=None,
        pools=(),
        outcome=None,
        ranked=(),
        attempts=(),
        model=None,
        settled=None,
        status=200,
        seconds=0.1,
        broken=None,
        identity=Identity(),
        session=None,
        turns=turns or None,
    )
    return plain._replace(**fields)
