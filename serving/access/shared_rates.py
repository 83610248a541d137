"""Buckets that replicas share in Redis; while it does not answer, each uses its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from serving.access.rates import WINDOW_S, Kind, LocalRates, Reading, seconds_of
from serving.errors import ConfigError

TIMEOUT_S = 0.05
"""A request waits no longer for Redis."""
COOLING_S = 1.0
"""After a failure, nobody waits for it for so long."""
MAX_CORRECTIONS = 1000
"""Under way at once; more than that are left out."""

log = structlog.get_logger("pointsman")

# Times in microseconds, by Redis's own clock, so that the replicas' need not agree.
_SCRIPT = """
local told = redis.call('TIME')
local now = told[1] * 1000000 + told[2]
local full = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
local after = full + ARGV[1]
local wait = after - now - ARGV[2]
if wait > 1 and ARGV[3] == '0' then return {full - now, wait} end
local left = math.max(after - now, 1)
redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', math.ceil(left / 1000))
return {left, 0}
"""


class SharedRates:
    """As `LocalRates`, but of all replicas with the same Redis."""

    def __init__(
        self,
        redis: Redis,
        local: LocalRates | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        self._script = redis.register_script(_SCRIPT)
        self._local = local or LocalRates()
        self._clock = clock
        self._cooling_until = 0.0
        self._answers = True
        self._corrections: set[asyncio.Task[None]] = set()

    async def take(self, key: str, kind: Kind, limit: int, amount: int) -> Reading:
        told = await self._ask(key, kind, seconds_of(amount, limit), force=False)
        if told is None:
            return await self._local.take(key, kind, limit, amount)
        filled, wait = told
        return Reading(kind, limit, filled, wait)

    def correct(self, key: str, kind: Kind, limit: int, amount: int) -> None:
        if self._clock() < self._cooling_until:
            self._local.correct(key, kind, limit, amount)
        elif len(self._corrections) < MAX_CORRECTIONS:
            self._in_background(self._correct(key, kind, amount * WINDOW_S / limit))

    async def close(self) -> None:
        """Let go of the connections."""
        for task in self._corrections:
            task.cancel()
        await self._redis.aclose()

    async def _correct(self, key: str, kind: Kind, seconds: float) -> None:
        await self._ask(key, kind, seconds, force=True)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._corrections.add(task)
        task.add_done_callback(self._corrections.discard)

    async def _ask(
        self, key: str, kind: Kind, seconds: float, *, force: bool
    ) -> tuple[float, float] | None:
        """Seconds until the bucket is full, and to wait; None while Redis does not answer."""
        if self._clock() < self._cooling_until:
            return None
        arguments = [round(seconds * 1e6), round(WINDOW_S * 1e6), int(force)]
        try:
            async with asyncio.timeout(TIMEOUT_S):
                filled, wait = await self._script(
                    keys=[f"pointsman:rate:{kind}:{key}"], args=arguments
                )
        except (RedisError, OSError, TimeoutError) as error:
            self._cooling_until = self._clock() + COOLING_S
            if self._answers:
                log.warning("shared_limits_down", error=type(error).__name__)
            self._answers = False
            return None
        if not self._answers:
            log.info("shared_limits_up")
        self._answers = True
        return filled / 1e6, wait / 1e6


def connect(url: str, variable: str) -> Redis:
    """A client that never tries twice; raises ConfigError, without the URL, which may hold a
    password."""
    try:
        client: Redis = Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1, retry=None)
    except ValueError:
        raise ConfigError(
            f"environment variable {variable}: must be a URL such as redis://host:6379/0"
        ) from None
    return client
