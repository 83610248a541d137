"""Several worker processes around one engine: they answer as one, count as one, and outlive each
other."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from server_process import START_S, ServerProcess, server_process, until
from serving_fakes import Behaviour, FakeUpstream

pytestmark = pytest.mark.timeout(600)
WORKERS = {"workers": 2}


@asynccontextmanager
async def two_workers(
    folder: Path, upstream: FakeUpstream, **update: Any
) -> AsyncIterator[ServerProcess]:
    async with server_process(folder, upstream, listen=WORKERS, **update) as server:
        await server.ready()
        yield server


def children(server: ServerProcess) -> dict[str, int]:
    """Process ids by the name that they log under."""
    pids: dict[str, int] = {}
    for line in server.events("process_started"):
        pids[line["process_name"]] = line["pid"]
    return pids


def alive(pids: dict[str, int]) -> list[str]:
    """Names of the processes that are there."""
    return [name for name, pid in pids.items() if Path(f"/proc/{pid}").exists()]


async def asked(server: ServerProcess, count: int, text: str = "coding please") -> list[int]:
    """Statuses of requests over connections of their own, so that every worker gets some."""
    body = {"model": "router:work", "messages": [{"role": "user", "content": text}]}

    async def ask() -> int:
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
            return (await http.post("/v1/chat/completions", json=body)).status_code

    return [await ask() for _ in range(count)]


async def scrape(server: ServerProcess) -> dict[str, float]:
    answer = await server.http.get("/metrics")
    return {
        sample.name + "".join(f"[{value}]" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_metrics_are_those_of_all_workers_also_of_dead_ones(
    tmp_path: Path, upstream: FakeUpstream
) -> None:
    async with two_workers(tmp_path, upstream) as server:
        assert await asked(server, 20) == [200] * 20
        for _ in range(4):  # whoever answers
            async with httpx.AsyncClient(base_url=server.url) as http:
                text = (await http.get("/metrics")).text
            assert 'pointsman_attempts_total{model="p/code-1",result="200"} 20.0' in text
        found = await scrape(server)
        assert found["pointsman_decisions_total[decided]"] == 20
        assert found["pointsman_decision_seconds_count"] == 20
        assert found["pointsman_first_byte_seconds_count[p/code-1][false]"] == 20
        assert found["pointsman_engine_ready"] == 1
        assert found["pointsman_checkpoint[0123456789ab]"] == 1
        # Each worker asked the one engine once, and remembered what it said.
        workers = {line["process"] for line in server.events("request")}
        assert workers == {"worker-1", "worker-2"}
        assert found["pointsman_engine_decisions_total"] == 2
        assert found["pointsman_decisions_remembered_total"] == 18

        os.kill(children(server)["worker-1"], signal.SIGKILL)
        await server.logged("process_died")
        assert (await scrape(server))["pointsman_attempts_total[p/code-1][200]"] == 20
        await server.logged("process_started", 4)

        async def whole() -> bool:
            return (await server.http.get("/readyz")).json()["parts"]["workers"] == "ready"

        await until(whole, "the second worker", START_S)
        assert await asked(server, 10) == [200] * 10
        found = await scrape(server)
        assert found["pointsman_attempts_total[p/code-1][200]"] == 30
        assert found["pointsman_decisions_total[decided]"] == 30
        assert found["pointsman_workers"] == 2
        assert found["pointsman_process_restarts_total[worker]"] == 1


async def test_an_engine_that_dies_is_started_again_and_nothing_outlives_the_supervisor(
    tmp_path: Path, upstream: FakeUpstream
) -> None:
    """Until the engine is back, requests go to fallbacks."""
    async with two_workers(tmp_path, upstream) as server:
        answer = await server.chat("coding one")
        assert answer.headers["x-pointsman-model"] == "p/code-1"
        os.kill(children(server)["engine"], signal.SIGKILL)
        await server.logged("engine_gone", 2)
        answer = await server.chat("coding two")
        assert answer.status_code == 200
        assert answer.headers["x-pointsman-model"] == "p/fall-1"
        assert answer.headers["x-pointsman-fallback-reason"] == "engine_not_ready"
        assert (await server.http.get("/readyz")).status_code == 503
        await server.ready()
        answer = await server.chat("coding three")
        assert answer.headers["x-pointsman-model"] == "p/code-1"

        pids = children(server)
        server.process.kill()
        await server.ended()
        await until(lambda: not alive(pids), str(pids))


async def test_all_workers_drain(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.models["code-1"] = Behaviour("hang", after=0)
    async with two_workers(tmp_path, upstream) as server:
        pids = children(server)
        under_way = asyncio.ensure_future(asked(server, 1))
        await until(lambda: upstream.asked, "the request")
        server.process.send_signal(signal.SIGTERM)
        await server.logged("draining", 2)
        upstream.release.set()
        assert await under_way == [200]
        assert await server.ended() == 0
    assert len(server.events("stopped")) == 2
    assert not server.events("process_died")
    assert not alive(pids)


async def test_what_keeps_workers_from_serving_stops_the_server_with_its_reason(
    tmp_path: Path, upstream: FakeUpstream
) -> None:
    wrong = {"stand_ins": {"default": "nobody/at-all"}}
    async with server_process(tmp_path, upstream, listen=WORKERS, **wrong) as server:
        assert await server.ended(START_S) != 0
    assert "stand_ins.default" in "\n".join(server.said)
