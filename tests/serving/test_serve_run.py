"""The process around the application: it starts, says how to call it, and cleans up."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml
from serving_fakes import KEY, KEY_ENV, FakeUpstream

from serving.listening import PortBusy, check_port_free
from serving.local_process import LocalUpstreamProcess

HERE = Path(__file__).parent
ENVIRON = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])])}
FAKE_LOCAL = "fake_local_upstream"

SERVE = """
import functools, sys
from pathlib import Path
from serving import run
from serving_fakes import FakeEngine
run.LocalUpstreamProcess = functools.partial(
    run.LocalUpstreamProcess, module="fake_local_upstream"
)
run.serve(sys.argv[1], port=0, base=Path("some-base"), make_engine=FakeEngine)
"""

PARENT = """
import sys, time
from pathlib import Path
from serving.local_process import LocalUpstreamProcess
local = LocalUpstreamProcess(Path("b"), module="fake_local_upstream")
local.start()
print(local.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def fake_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", ENVIRON["PYTHONPATH"])


async def test_serve_prints_a_curl_that_works_and_stops_on_ctrl_c(
    tmp_path: Path, upstream: FakeUpstream
):
    config = {
        "providers": {
            "p": {"base_url": upstream.url, "api_key_env": KEY_ENV},
            "local": {"base_url_env": "POINTSMAN_LOCAL_URL"},
        },
        "routers": [
            {
                "name": "work",
                "policies": [
                    {
                        "custom_task": {"name": "function", "description": "Functions."},
                        "models": ["local/small"],
                    }
                ],
                "fallback_models": ["p/f"],
            }
        ],
        "local_upstream": {"enabled": True},
    }
    path = tmp_path / "serve.yaml"
    path.write_text(yaml.safe_dump(config))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVE, str(path),
        env={**ENVIRON, KEY_ENV: KEY}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    command = ""
    while "curl" not in command:
        line = await asyncio.wait_for(process.stdout.readline(), 60)
        assert line, (await process.communicate())[1].decode()
        command = line.decode()
    words = shlex.split(command)
    request = urllib.request.Request(
        words[2], words[-1].encode(), {"content-type": "application/json"}
    )
    answer = await asyncio.to_thread(lambda: json.load(urllib.request.urlopen(request, timeout=10)))
    assert answer["choices"][0]["message"]["content"] == "from some-base"
    process.send_signal(signal.SIGINT)
    _, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, errors.decode()
    lines = [json.loads(line) for line in errors.decode().splitlines()]
    [request_line] = [line for line in lines if line["event"] == "request"]
    assert request_line["route"] == "function"
    assert request_line["model"] == "local/small"
    assert request_line["status"] == 200
    assert lines[-1]["event"] == "stopped"
    assert KEY not in errors.decode()
    assert "reverses a string" not in errors.decode()


async def test_the_local_upstream_is_restarted_when_it_dies_and_stopped_at_the_end(
    fake_on_path: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("serving.local_process.RESTART_S", 0.05)
    local = LocalUpstreamProcess(Path("b"), module=FAKE_LOCAL)
    local.start()
    supervisor = asyncio.create_task(local.supervise())
    try:
        await asyncio.wait_for(local.wait_until_ready(), 60)
        first = local.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        for _ in range(400):
            await asyncio.sleep(0.05)
            if local.pid != first:
                break
        await asyncio.wait_for(local.wait_until_ready(), 60)
        second = local.pid
        assert second not in (None, first)
    finally:
        supervisor.cancel()
        local.stop()
    assert not _alive(second)


async def test_a_local_upstream_that_cannot_start_is_an_error(fake_on_path: None):
    local = LocalUpstreamProcess(Path("b"), module="no_such_module_here")
    local.start()
    with pytest.raises(ValueError, match="local_upstream"):
        await asyncio.wait_for(local.wait_until_ready(), 60)
    local.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
def test_the_local_upstream_dies_with_a_server_that_is_killed():
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], env=ENVIRON, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert _alive(child)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 30
    while _alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(child)


def test_a_busy_port_is_told_before_anything_starts():
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortBusy, match=f"port {port}"):
            check_port_free("127.0.0.1", port)
    check_port_free("127.0.0.1", port)


def _alive(pid: int | None) -> bool:
    if pid is None:
        return False
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
