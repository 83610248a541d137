"""Sessions in Redis, for all replicas: read before a request, written behind it.

Every process keeps a copy of what it has seen. While Redis is gone or slow that copy serves, and
when Redis is back what has changed is written there, but for what another replica has changed
since. Requests that ask at the same time are one question to Redis, and so are writes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, cast

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from serving.bounded import Bounded
from serving.sessions.session import Session, decoded
from serving.sessions.store import Clock, MemoryStore

PREFIX = "pointsman:session:"
BATCH = 100
"""Sessions that are read, or written, at once."""
WRITE_S = 1.0
"""A write may take so long: nobody waits for it."""
RETRY_S, RETRY_MAX_S = 0.25, 2.0
"""Redis that is gone is tried again after so long, at first and at most."""

log = structlog.get_logger("pointsman")


class RedisStore:
    """`local` is the process's own copy; `timeout_s` is how long a request waits at most."""

    def __init__(
        self,
        url: str,
        local: MemoryStore,
        *,
        limit: int,
        ttl_s: float,
        timeout_s: float,
        clock: Clock = time.time,
    ) -> None:
        self.up = True
        self.failures = 0
        self._local = local
        self._ttl = ttl_s
        self._timeout = timeout_s
        self._clock = clock
        # A pool that makes requests wait, rather than fail, when it is empty is not needed: no more
        # than one question and one write are under way.
        self._redis = Redis.from_url(
            url, protocol=2, retry=Retry(NoBackoff(), 0), socket_connect_timeout=WRITE_S
        )
        self._asked: list[tuple[str, asyncio.Future[bytes | None]]] = []
        self._wanted = asyncio.Event()
        self._changed: Bounded[str, None] = Bounded(limit)
        """Sessions that Redis has not got yet, by key."""
        self._flushing = 0
        self._stirred = asyncio.Event()
        self._behind = False
        """Whether some of them may be older than what Redis has."""
        self._retry_s = RETRY_S
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def unwritten(self) -> int:
        """Sessions that Redis has not got yet, in part or at all."""
        return len(self._changed) + self._flushing

    @property
    def size(self) -> int:
        return self._local.size

    async def start(self) -> None:
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._write())]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        while self._changed and self.up:
            await self._flush()
        with suppress(Exception):
            await self._redis.aclose()

    async def get(self, key: str) -> Session | None:
        own = self._local.own(key)
        if not self.up or not self._tasks:
            return own
        answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._asked.append((key, answer))
        self._wanted.set()
        try:
            async with asyncio.timeout(self._timeout):
                stored = await answer
        except TimeoutError as error:
            self._failed(error)
            return own
        found = decoded(stored) if stored is not None else None
        if found is None or (own is not None and own.updated >= found.updated):
            return own
        return found

    def own(self, key: str) -> Session | None:
        return self._local.own(key)

    def put(self, key: str, session: Session) -> None:
        self._local.put(key, session)
        self._changed[key] = None
        self._stirred.set()

    async def _read(self) -> None:
        while True:
            await self._wanted.wait()
            asked, self._asked = self._asked[:BATCH], self._asked[BATCH:]
            if not self._asked:
                self._wanted.clear()
            stored: Sequence[bytes | None] = [None] * len(asked)
            if self.up:
                try:
                    async with asyncio.timeout(self._timeout):
                        stored = await self._stored([key for key, _ in asked])
                except Exception as error:
                    self._failed(error)
            for (_, answer), value in zip(asked, stored, strict=True):
                if not answer.done():
                    answer.set_result(value)

    async def _write(self) -> None:
        while True:
            if not self.up:
                await asyncio.sleep(self._retry_s)
                await self._try_again()
                continue
            await self._stirred.wait()
            self._stirred.clear()
            while self._changed and self.up:
                await self._flush()

    async def _try_again(self) -> None:
        self._retry_s = min(2 * self._retry_s, RETRY_MAX_S)
        try:
            async with asyncio.timeout(self._timeout):
                await self._redis.ping()
        except Exception as error:
            self._failed(error)
            return
        self.up = self._behind = True
        self._stirred.set()
        log.info("session_store_up")

    async def _flush(self) -> None:
        """Write some of what has changed; on failure it stays to be written."""
        keys = list(islice(self._changed, BATCH))
        for key in keys:
            del self._changed[key]
        batch = {key: session for key in keys if (session := self._local.own(key)) is not None}
        self._flushing, written = len(batch), False
        try:
            async with asyncio.timeout(WRITE_S):
                if self._behind:
                    await self._leave_newer(batch)
                await self._send(batch)
            written = True
        except Exception as error:
            self._failed(error)
            return
        finally:
            self._flushing = 0
            if not written:
                self._changed.update(dict.fromkeys(batch))
        self._retry_s = RETRY_S
        self._behind = self._behind and bool(self._changed)

    async def _leave_newer(self, batch: dict[str, Session]) -> None:
        keys = list(batch)
        for key, value in zip(keys, await self._stored(keys), strict=True):
            found = decoded(value) if value is not None else None
            if found is not None and found.updated > batch[key].updated:
                del batch[key]

    async def _send(self, batch: dict[str, Session]) -> None:
        now = self._clock()
        writes = self._redis.pipeline(transaction=False)
        for key, session in batch.items():
            left_ms = max(1, round((self._ttl - (now - session.updated)) * 1000))
            writes.set(PREFIX + key, session.encoded(), px=left_ms)
        await writes.execute()

    async def _stored(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        found: Any = await self._redis.mget([PREFIX + key for key in keys]) if keys else []
        return cast(Sequence[bytes | None], found)

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        if self.up:
            # The type alone: a message may hold the URL.
            log.warning("session_store_down", error=type(error).__name__)
        self.up = False
        self._stirred.set()
