"""Where sessions are kept: what a store can do, and the one in this process's memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from serving.bounded import Bounded
from serving.sessions.session import Session

Clock = Callable[[], float]
"""Seconds since 1970: replicas compare their times."""


class SessionStore(Protocol):
    """Never raises for a store that is gone: a session that cannot be read is a new one."""

    failures: int
    """Times that it could not be reached."""

    @property
    def up(self) -> bool:
        """Whether it can be reached."""

    @property
    def size(self) -> int:
        """Sessions in this process's memory."""

    async def start(self) -> None:
        """Begin to reach for it; needs a running loop."""

    async def close(self) -> None:
        """Write what is not written yet, and let go; safe to call twice."""

    async def get(self, key: str) -> Session | None:
        """The session, unless it was unused for too long."""

    def own(self, key: str) -> Session | None:
        """The same as far as this process knows it, without a wait."""

    def put(self, key: str, session: Session) -> None:
        """Keep a session; does not wait."""


class MemoryStore:
    """Sessions of one process; beyond `limit` the least recently put one goes."""

    up = True
    failures = 0

    def __init__(self, limit: int, ttl_s: float, clock: Clock = time.time) -> None:
        self._kept: Bounded[str, Session] = Bounded(limit)
        self._ttl = ttl_s
        self._clock = clock

    @property
    def size(self) -> int:
        self._forget()
        return len(self._kept)

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def get(self, key: str) -> Session | None:
        return self.own(key)

    def own(self, key: str) -> Session | None:
        found = self._kept.get(key)
        return found if found is not None and found.updated > self._clock() - self._ttl else None

    def put(self, key: str, session: Session) -> None:
        self._kept[key] = session
        self._forget()

    def _forget(self) -> None:
        """Drop what is out of date: the first in order is the longest unused."""
        oldest = self._clock() - self._ttl
        while self._kept and next(iter(self._kept.values())).updated <= oldest:
            self._kept.popitem(last=False)
