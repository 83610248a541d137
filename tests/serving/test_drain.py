"""A server that is told to stop: what is under way ends whole, or is told the truth."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Awaitable
from pathlib import Path

import httpx
import pytest
from server_process import START_S, ServerProcess, server_process, until
from serving_fakes import Behaviour, FakeUpstream

from serving.readiness import Readiness

pytestmark = pytest.mark.timeout(600)


async def stream(server: ServerProcess) -> Awaitable[str]:
    """The text of a stream that has begun."""
    begun = asyncio.Event()

    async def read() -> str:
        text = ""
        body = {
            "model": "p/slow",
            "stream": True,
            "messages": [{"role": "user", "content": "hello"}],
        }
        async with server.http.stream("POST", "/v1/chat/completions", json=body) as answer:
            async for piece in answer.aiter_text():
                text += piece
                begun.set()
        return text

    task = asyncio.ensure_future(read())
    await asyncio.wait_for(begun.wait(), 30)
    return task


async def refuses(server: ServerProcess) -> bool:
    try:
        await server.http.get("/healthz")
    except httpx.ConnectError:
        return True
    except httpx.TransportError:
        pass  # it was let in by the system, and by nobody else, as the socket closed
    return False


async def test_streams_under_way_end_whole_and_nobody_new_is_let_in(
    tmp_path: Path, upstream: FakeUpstream
) -> None:
    upstream.models["slow"] = Behaviour("hang", after=2)
    async with server_process(tmp_path, upstream) as server:
        await server.ready()
        text = await stream(server)
        server.process.send_signal(signal.SIGTERM)
        await until(lambda: refuses(server), "the end of listening")
        assert server.process.returncode is None
        upstream.release.set()
        assert (await text).endswith("data: [DONE]\n\n")
        assert await server.ended() == 0
    [line] = server.events("request")
    assert (line["status"], line.get("broken")) == (200, None)
    assert server.log[-1]["event"] == "stopped"


@pytest.mark.parametrize("signals", [1, 2])
async def test_what_outlasts_the_time_is_told_so(
    tmp_path: Path, upstream: FakeUpstream, signals: int
) -> None:
    """A second signal ends the time at once."""
    upstream.models["slow"] = Behaviour("hang", after=2)
    upstream.models["code-1"] = Behaviour("hang", after=0)
    drain = {"timeout_s": 0.3 if signals == 1 else 600}
    async with server_process(tmp_path, upstream, drain=drain) as server:
        await server.ready()
        text = await stream(server)
        whole = asyncio.ensure_future(server.chat())
        await until(lambda: "code-1" in upstream.asked, "the second request")
        for _ in range(signals):
            server.process.send_signal(signal.SIGTERM)
            await server.logged("draining")
        told = await text
        assert '"code":"server_stopping"' in told
        assert "[DONE]" not in told
        answer = await whole
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "server_stopping"
        assert await server.ended() == 0
    assert server.events("stopped_with_requests_under_way")[0]["requests"] == 2
    assert {line.get("broken") for line in server.events("request")} == {"server_stopping", None}
    assert server.log[-1]["event"] == "stopped"


async def test_load_balancers_are_given_time(tmp_path: Path, upstream: FakeUpstream) -> None:
    async with server_process(tmp_path, upstream, drain={"delay_s": 600}) as server:
        await server.ready()
        assert "connection" not in (await server.chat()).headers
        server.process.send_signal(signal.SIGTERM)
        await server.logged("draining")
        answer = await server.http.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["status"] == "draining"
        late = await server.chat()
        assert late.status_code == 200
        assert late.headers["connection"] == "close"
        server.process.send_signal(signal.SIGTERM)
        assert await server.ended() == 0


async def test_systemd_is_told(tmp_path: Path, upstream: FakeUpstream) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        environ = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        async with server_process(tmp_path, upstream, environ=environ) as server:
            told = asyncio.get_running_loop().sock_recv
            assert await asyncio.wait_for(told(manager, 99), START_S) == b"READY=1"
            assert (await server.http.get("/readyz")).status_code == 200
            server.process.send_signal(signal.SIGTERM)
            assert await server.ended() == 0
            assert await told(manager, 99) == b"STOPPING=1"


def test_readiness_tells_required_parts_from_others() -> None:
    stopping = False
    readiness = Readiness(lambda: stopping)
    trouble: dict[str, str | None] = {"engine": None, "database": None}
    readiness.add("engine", lambda: trouble["engine"], required=True)
    readiness.add("database", lambda: trouble["database"])
    assert readiness.report() == ("ready", {"engine": "ready", "database": "ready"}, {})
    trouble["database"] = "does not answer"
    report = readiness.report()
    assert report.status == "degraded"
    assert report.takes_requests
    assert report.parts == {"engine": "ready", "database": "does not answer"}
    trouble["engine"] = "loading"
    report = readiness.report()
    assert (report.status, report.missing) == ("not ready", {"engine": "loading"})
    assert not report.takes_requests
    stopping = True
    assert readiness.report().status == "draining"
    assert not readiness.report().takes_requests
