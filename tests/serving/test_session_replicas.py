"""Ten thousand sessions over two server processes, one of which is killed."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

import orjson
import pytest
import yaml
from redis_server import needs_redis, redis_server
from serving_fakes import KEY, KEY_ENV, FakeUpstream, config_for, until_answers

from serving.local_process import free_port

pytestmark = [needs_redis, pytest.mark.timeout(600)]
HERE = Path(__file__).parent
ENVIRON = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])]),
    KEY_ENV: KEY,
}
SESSIONS = 10_000
CLIENTS = 16
ANSWERED_EVERY = 20
"""One session in so many asks for an answer, the others for a decision alone."""
TASKS = {"coding": "p/code-1", "writing": "p/write-1"}


def launched(config: Path, port: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(HERE / "replica.py"), str(config), str(port)]
    return subprocess.Popen(command, env=ENVIRON, stdout=subprocess.DEVNULL, stderr=log)


class Client:
    """Keeps a connection to each replica, and goes to the other where one does not answer.

    By hand: of 20,000 requests a real client would take longer than the servers.
    """

    def __init__(self, ports: list[int]) -> None:
        self.answered: Counter[int] = Counter()
        self._ports = ports
        self._open: dict[int, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}

    async def model(self, number: int, task: str) -> str:
        """The model of a session's next request."""
        for replica in (number % 2, 1 - number % 2):
            try:
                found = await self._ask(replica, number, task)
            except (ConnectionError, asyncio.IncompleteReadError):
                self._open.pop(replica, None)
                continue
            self.answered[replica] += 1
            return found
        raise AssertionError(f"session {number}: no replica answered")

    async def _ask(self, replica: int, number: int, task: str) -> str:
        if replica not in self._open:
            port = self._ports[replica]
            self._open[replica] = await asyncio.open_connection("127.0.0.1", port)
        reader, writer = self._open[replica]
        whole = number % ANSWERED_EVERY == 0
        path = "/v1/chat/completions" if whole else "/routing/v1/chat/completions"
        messages = [{"role": "user", "content": f"{task} please"}]
        body = orjson.dumps({"model": "router:work", "messages": messages})
        head = (
            f"POST {path} HTTP/1.1\r\nhost: replica\r\ncontent-type: application/json\r\n"
            f"x-model-affinity: session-{number}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = re.search(r"content-length: (\d+)", answer)
        assert length, answer
        told = orjson.loads(await reader.readexactly(int(length[1])))
        assert answer.startswith("http/1.1 200"), told
        if not whole:
            return str(told["models"][0])
        model = re.search(r"x-pointsman-model: (\S+)", answer)
        assert model, answer
        return model[1]

    def close(self) -> None:
        for _, writer in self._open.values():
            writer.close()


class Replicas:
    """Two server processes."""

    def __init__(self, config: Path) -> None:
        self.ports = [free_port("127.0.0.1") for _ in range(2)]
        self.log = config.with_suffix(".log")
        with self.log.open("wb") as log:
            self.processes = [launched(config, port, log) for port in self.ports]

    def kill(self, number: int) -> None:
        self.processes[number].kill()
        self.processes[number].wait()


@asynccontextmanager
async def replicas(folder: Path, url: str, upstream: FakeUpstream) -> AsyncIterator[Replicas]:
    # All processes share this machine: more patience than the 50 ms of the default.
    sessions = {"redis_url": url, "redis_timeout_ms": 2000}
    config = config_for(upstream, sessions=sessions)
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True)))
    running = Replicas(path)
    try:
        urls = [f"http://127.0.0.1:{port}/readyz" for port in running.ports]
        await asyncio.gather(*(until_answers(url, seconds=60) for url in urls))
        yield running
    except TimeoutError:
        raise AssertionError(running.log.read_text()[-2000:]) from None
    finally:
        for number in range(2):
            running.kill(number)


async def each_session(
    running: Replicas, turn: int, killed_at: int | None = None
) -> tuple[list[str], Counter[int]]:
    """The models of all sessions at their first or second turn, which is about the other task;
    and how many answers each replica gave."""
    tasks = list(TASKS)
    models = [""] * SESSIONS
    numbers = iter(range(SESSIONS))
    answered: Counter[int] = Counter()

    async def work() -> None:
        client = Client(running.ports)
        for number in numbers:
            if number == killed_at:
                running.kill(0)
            models[number] = await client.model(number, tasks[(number + turn) % 2])
        client.close()
        answered.update(client.answered)

    await asyncio.gather(*(work() for _ in range(CLIENTS)))
    return models, answered


async def test_ten_thousand_sessions_survive_the_death_of_a_replica(
    tmp_path: Path, upstream: FakeUpstream
):
    async with redis_server(tmp_path) as redis, replicas(tmp_path, redis.url, upstream) as running:
        first, answered = await each_session(running, 0)
        assert Counter(first) == dict.fromkeys(TASKS.values(), SESSIONS // 2)
        assert answered == {0: SESSIONS // 2, 1: SESSIONS // 2}
        second, answered = await each_session(running, 1, killed_at=SESSIONS // 4)
        assert second == first
        assert answered[1] > SESSIONS // 2
