"""How often a key may call: token buckets that hold a minute's worth, and fill up evenly.

A bucket is kept as the time at which it would be full again (GCRA), so it costs one number. The
`limits` package was weighed: its strategies cannot give back what an estimate took too much.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Literal, Protocol

from routing.values import value_type
from serving.bounded import Bounded

WINDOW_S = 60.0
_SLACK_S = 1e-6
_REMEMBERED = 100_000
"""Buckets; a key has at most two, and one that is forgotten is full."""

Kind = Literal["requests", "tokens"]


@value_type
class Reading:
    """A bucket after a request was let through, or refused."""

    kind: Kind
    limit: int
    filled_in_s: float
    """Until it is full again."""
    wait_s: float = 0.0
    """Until the request would be let through; 0 where it was."""

    @property
    def remaining(self) -> int:
        """What may be taken at once."""
        return max(0, math.floor((1 - self.filled_in_s / WINDOW_S) * self.limit + 1e-9))


class Rates(Protocol):
    """Buckets of all keys."""

    async def take(self, key: str, kind: Kind, limit: int, amount: int) -> Reading:
        """Take so much, or nothing where there is less; more than the limit needs a full bucket."""

    def correct(self, key: str, kind: Kind, limit: int, amount: int) -> None:
        """Take more, even what is not there, or give back where `amount` is negative."""


class LocalRates:
    """Buckets of this process. `clock` is in seconds and never goes back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._full_at: Bounded[tuple[str, Kind], float] = Bounded(_REMEMBERED)

    async def take(self, key: str, kind: Kind, limit: int, amount: int) -> Reading:
        now = self._clock()
        full_at = max(self._full_at.get((key, kind), now), now)
        after = full_at + seconds_of(amount, limit)
        wait = after - now - WINDOW_S
        if wait > _SLACK_S:
            return Reading(kind, limit, full_at - now, wait)
        self._full_at[key, kind] = after
        return Reading(kind, limit, after - now)

    def correct(self, key: str, kind: Kind, limit: int, amount: int) -> None:
        now = self._clock()
        full_at = max(self._full_at.get((key, kind), now), now)
        self._full_at[key, kind] = full_at + amount * WINDOW_S / limit


def seconds_of(amount: int, limit: int) -> float:
    """How long a bucket takes to win back what a request takes out of it."""
    return min(amount, limit) * WINDOW_S / limit
