"""Whatever happens to the database or the server, requests go on and records stay whole."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from recorded import DECISIONS, a_snapshot, listed, recording, until
from server_process import server_process
from serving_fakes import (
    Behaviour,
    FakeEngine,
    FakeUpstream,
    Running,
    config_for,
    serving,
)

from scripts.postgres_server import Postgres
from serving.records import writer
from serving.records.queue import RecordQueue


@contextlib.asynccontextmanager
async def load(http: httpx.AsyncClient, traces: list[str]) -> AsyncIterator[None]:
    """Requests, one after the other from each of four clients, all of which must succeed."""
    stopped = asyncio.Event()
    body = {"model": "router:work", "messages": [{"role": "user", "content": "coding please"}]}

    async def client() -> None:
        while not stopped.is_set():
            answer = await http.post("/v1/chat/completions", json=body, timeout=60)
            assert answer.status_code == 200, answer.text
            traces.append(answer.headers["x-pointsman-trace-id"])

    clients = [asyncio.create_task(client()) for _ in range(4)]
    try:
        yield
    finally:
        stopped.set()
        await asyncio.gather(*clients)


async def more(traces: list[str], count: int = 20) -> None:
    """Wait until so many more requests have been answered."""
    wanted = len(traces) + count
    await until(lambda: len(traces) >= wanted)


async def samples(server: Running) -> dict[str, float]:
    """Metrics of records by name."""
    text = (await server.http.get("/metrics")).text
    lines = [line for line in text.splitlines() if line.startswith("pointsman_record")]
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines}


async def settled(server: Running) -> None:
    """Wait until nothing waits any more."""
    await until(lambda: not server.app.state.records.queue)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that comes again soon."""
    monkeypatch.setattr(writer, "LAST_WAIT_S", 0.5)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("fault", ["kill", "stall"])
async def test_a_database_that_goes_away_loses_no_record(
    upstream: FakeUpstream, postgres: Postgres, fault: str
):
    traces: list[str] = []
    url = await postgres.new_database()
    async with recording(upstream, url) as server:
        async with load(server.http, traces):
            await more(traces)
            if fault == "kill":
                postgres.kill()
            else:
                postgres.stall()
            try:
                await more(traces, 40)
                await until(lambda: server.app.state.records.writer.failed > 0)
                unavailable = await server.http.get(DECISIONS)
            finally:
                if fault == "kill":
                    postgres.start()
                else:
                    postgres.resume()
            await more(traces)
        await settled(server)
        counted = await samples(server)
        found = await listed(server, limit=200)
    assert not [name for name in counted if "dropped" in name]
    assert unavailable.status_code == 503
    assert unavailable.json()["error"]["code"] == "storage_unavailable"
    assert sorted(each["trace_id"] for each in found) == sorted(traces)


@pytest.mark.usefixtures("quick")
async def test_beyond_the_queue_records_are_dropped_and_counted(
    upstream: FakeUpstream, postgres: Postgres
):
    traces: list[str] = []
    url = await postgres.new_database()
    async with recording(upstream, url, records={"queue": 20}) as server:
        postgres.kill()
        try:
            async with load(server.http, traces):
                await more(traces, 60)
            counted = await samples(server)
            # The newest are dropped: what waits is found by its id all the while.
            waiting = await server.http.get(f"{DECISIONS}/{traces[0]}")
        finally:
            postgres.start()
        await settled(server)
        found = await listed(server)
    dropped = counted['pointsman_records_dropped_total{reason="queue_full"}']
    assert counted["pointsman_records_waiting"] == 20
    assert waiting.status_code == 200
    assert dropped == len(traces) - 20
    assert len(found) + dropped == len(traces)
    assert {each["trace_id"] for each in found} <= set(traces)


async def test_a_database_that_is_down_at_the_start_is_waited_for(
    upstream: FakeUpstream, postgres: Postgres
):
    url = await postgres.new_database()
    postgres.kill()
    try:
        config = {"storage": {"url": url, "timeout_s": 1}}
        async with serving(config_for(upstream, **config), FakeEngine(), upstream) as server:
            assert (await server.chat()).status_code == 200
            postgres.start()
            await asyncio.wait_for(server.app.state.database.migrated(), 30)
            await settled(server)
            assert len(await listed(server)) == 1
    finally:
        if not postgres.running:
            postgres.start()


async def test_what_waits_at_the_end_is_written(upstream: FakeUpstream, database: str):
    async with recording(upstream, database) as server:
        for _ in range(5):
            await server.chat()
    async with recording(upstream, database) as server:
        assert len(await listed(server)) == 5


async def test_a_batch_that_is_written_twice_is_stored_once(upstream: FakeUpstream, database: str):
    async with recording(upstream, database) as server:
        await server.chat()
        records = server.app.state.records
        [waiting] = records.queue.first(1)
        await records.writer.write_all()
        records.queue.put(waiting)
        await records.writer.write_all()
        assert len(await listed(server)) == 1
        async with records.database.read() as connection:
            rows = await connection.exec_driver_sql("SELECT count(*) FROM attempts")
            assert rows.scalar() == 1


async def test_a_record_that_the_database_refuses_costs_no_other(
    upstream: FakeUpstream, database: str
):
    async with recording(upstream, database) as server:
        await server.chat("coding please")
        await server.chat("writing please")
        records = server.app.state.records
        good, bad = records.queue.first(2)
        records.queue.forget(2)
        records.queue.put(good)
        records.queue.put(bad._replace(status="no number"))
        records.queue.put(bad._replace(trace_id=None))
        records.queue.put(bad._replace(status=2**63))
        records.queue.put(bad._replace(status=2**70))
        await records.writer.write_all()
        found = await listed(server)
        counted = await samples(server)
    assert good.trace_id in {each["trace_id"] for each in found}
    refused = counted['pointsman_records_dropped_total{reason="refused"}']
    assert refused >= 3
    assert len(found) + refused == 5
    assert counted["pointsman_records_waiting"] == 0


def test_texts_that_wait_are_bounded():
    queue = RecordQueue(10, text_characters=10)
    queue.put(a_snapshot("12345"))
    queue.put(a_snapshot("1234567"))
    assert [each.turns is None for each in queue.first(2)] == [False, True]
    assert queue.dropped == {"text_full": 1}
    queue.forget(1)
    queue.put(a_snapshot("1234567"))
    assert queue.first(2)[1].turns is not None


async def test_a_killed_server_leaves_whole_records(tmp_path: Path, upstream: FakeUpstream):
    upstream.models["code-1"] = Behaviour("error", 429)
    file = tmp_path / "killed.db"
    traces: list[str] = []
    storage = {"url": f"sqlite:///{file}"}
    async with server_process(tmp_path, upstream, storage=storage) as server:
        await server.ready()
        with contextlib.suppress(httpx.TransportError):
            async with load(server.http, traces):
                await until(lambda: bool(stored(file)))
                await more(traces)
                server.process.kill()
                await server.process.wait()
    rows = stored(file)
    assert rows
    # The first model refused each, or was passed over for that; the second answered.
    tried = {"p/code-1=429,p/code-2=200", "p/code-1=open,p/code-2=200"}
    assert all(row[1] in tried and row[2:] == ("p/code-2", 200) for row in rows)
    # What is stored was answered, but for an answer that the end cut off on its way.
    assert len({row[0] for row in rows} & set(traces)) >= len(rows) - 4
    async with recording(upstream, f"sqlite:///{file}") as again:
        assert len(await listed(again, limit=200)) == len(rows)


def stored(file: Path) -> list[tuple[Any, ...]]:
    """Trace id, attempts, model and status of all decisions in SQLite's file."""
    query = """
        SELECT d.trace_id,
               (SELECT group_concat(model || '=' || result) FROM attempts
                WHERE decision_id = d.id ORDER BY number),
               d.model, d.status
        FROM decisions d
    """
    with contextlib.closing(sqlite3.connect(file)) as connection:
        try:
            return connection.execute(query).fetchall()
        except sqlite3.OperationalError:  # not made yet
            return []
