"""What is kept of a request, taken at its end. References only: rows are made of it later."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import NamedTuple

from routing.conversation import Turn
from routing.tasks import Pool
from serving.accounts import Settled
from serving.api.record import RequestRecord
from serving.decider import Outcome
from serving.failover import Attempt
from serving.needs import Need
from serving.ranking import Ranked

_MILLISECONDS = 1 << 48


class Identity(NamedTuple):
    """Who asked."""

    tenant: str | None = None
    key_id: str | None = None


class Session(NamedTuple):
    """What a session did to the choice."""

    id: str
    pinned: bool
    switched: bool
    reason: str | None = None
    saved_dollars: float | None = None
    """In the whole session until then."""


class Snapshot(NamedTuple):
    """One request that asked for a model, or for a decision alone."""

    id: str
    """32 hexadecimal digits of an UUID of version 7."""
    created: float
    """When the request came, in seconds since 1970."""
    trace_id: str
    endpoint: str
    stream: bool
    need: Need
    router: str | None
    router_revision: int | None
    pools: tuple[Pool, ...]
    """Of a routed request."""
    outcome: Outcome | None
    ranked: Sequence[Ranked]
    attempts: Sequence[Attempt]
    model: str | None
    settled: Settled | None
    status: int
    seconds: float
    broken: str | None
    identity: Identity
    session: Session | None
    turns: tuple[Turn, ...] | None
    """What was said, where that is kept."""


def snapshot(
    record: RequestRecord, path: str, seconds: float, *, text: bool = False
) -> Snapshot | None:
    """What is kept of a request that has ended; None where nothing was decided and nobody asked."""
    plan, trail = record.plan, record.trail
    if plan is None and not trail.attempts:
        return None
    created = round(time.time() - seconds, 3)
    router, _, revision = (record.router or "").partition("@")
    return Snapshot(
        time_ordered_id(created),
        created,
        record.trace_id,
        path,
        record.stream,
        record.exchange.need if plan is None else plan.need,
        router or None,
        int(revision) if revision else None,
        () if plan is None else plan.pools,
        record.outcome,
        record.ranked,
        trail.attempts,
        trail.model,
        record.exchange.settled,
        record.status,
        seconds,
        record.broken,
        Identity(record.principal.tenant, record.principal.key_id),
        session_of(record),
        plan.conversation.turns if text and plan is not None else None,
    )


def session_of(record: RequestRecord) -> Session | None:
    """The session that the request was part of, where it was one."""
    session = record.session
    if session is None:
        return None
    return Session(
        session.session_id, session.pinned, session.switched, session.reason, session.saved
    )


def time_ordered_id(seconds: float) -> str:
    """An UUID of version 7 (RFC 9562, 5.7) as 32 hexadecimal digits, of a time since 1970."""
    milliseconds = round(seconds * 1000) % _MILLISECONDS
    # No secret, and unique is enough: the system's entropy is slow.
    chance = random.getrandbits(74)
    value = milliseconds << 80 | 7 << 76 | (chance >> 62) << 64 | 2 << 62 | chance & ((1 << 62) - 1)
    return f"{value:032x}"


def first_id_at(seconds: float) -> str:
    """The lowest id of a time since 1970: those of later requests are not below it."""
    milliseconds = min(max(round(seconds * 1000), 0), _MILLISECONDS - 1)
    return f"{milliseconds << 80:032x}"
