"""A server in processes of its own, as `pointsman serve` starts it, between fakes."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml
from serving_fakes import KEY, KEY_ENV, FakeUpstream, config_for

from serving.local_process import free_port

HERE = Path(__file__).parent
ENVIRON = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])]),
    KEY_ENV: KEY,
}
SERVE = """
import sys
from serving.run import serve
from serving_fakes import FakeEngine
serve(sys.argv[1], make_engine=FakeEngine)
"""
START_S = 150
END_S = 60
"""Both for a machine that does much else; a quiet one needs a few seconds."""


class ServerProcess:
    """A started server; `http` asks it."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url
        self.http = httpx.AsyncClient(base_url=url, timeout=30)
        self.log: list[dict[str, Any]] = []
        self.said: list[str] = []
        """Lines of standard error that are no log lines."""
        self._reading = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            try:
                self.log.append(json.loads(line))
            except json.JSONDecodeError:
                self.said.append(line.decode().rstrip())

    def events(self, event: str) -> list[dict[str, Any]]:
        """Log lines of an event so far."""
        return [line for line in self.log if line["event"] == event]

    async def logged(self, event: str, times: int = 1) -> dict[str, Any]:
        """The line, once there were so many."""
        try:
            await until(lambda: len(self.events(event)) >= times, event)
        except TimeoutError:
            raise TimeoutError(f"{event}: {self.said} {self.log[-20:]}") from None
        return self.events(event)[times - 1]

    async def ready(self) -> None:
        """Wait for `/readyz`."""

        async def asked() -> bool:
            assert self.process.returncode is None, (self.said, self.log)
            try:
                return (await self.http.get("/readyz")).json()["status"] == "ready"
            except httpx.TransportError:
                return False

        await until(asked, "/readyz", START_S)

    async def chat(self, text: str = "coding please", **fields: Any) -> httpx.Response:
        """One Chat Completions request to the router `work`."""
        body = {"model": "router:work", "messages": [{"role": "user", "content": text}], **fields}
        return await self.http.post("/v1/chat/completions", json=body)

    async def ended(self, limit_s: float = END_S) -> int:
        """Its exit status."""
        code = await asyncio.wait_for(self.process.wait(), limit_s)
        await self._reading
        return code


@asynccontextmanager
async def server_process(
    folder: Path,
    upstream: FakeUpstream,
    *,
    environ: Mapping[str, str] | None = None,
    **update: Any,
) -> AsyncIterator[ServerProcess]:
    """The configuration of `config_for`, served until the block ends."""
    port = free_port("127.0.0.1")
    update["listen"] = {"port": port, **update.get("listen", {})}
    config = config_for(upstream, **update)
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_defaults=True)))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SERVE, str(path)),
        env={**ENVIRON, **(environ or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=folder,
    )
    server = ServerProcess(process, f"http://127.0.0.1:{port}")
    try:
        yield server
    finally:
        if process.returncode is None:
            process.kill()
        await server.http.aclose()
        await asyncio.wait_for(server.ended(), END_S)


async def until(condition: Any, what: str, limit_s: float = END_S) -> None:
    """Wait for a condition, which may be a coroutine; raises TimeoutError with `what`."""
    for _ in range(int(limit_s / 0.02)):
        holds = condition()
        if await holds if inspect.isawaitable(holds) else holds:
            return
        await asyncio.sleep(0.02)
    raise TimeoutError(what)
