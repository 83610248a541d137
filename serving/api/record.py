"""What is known about one request: its headers while it is answered, its log line at the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.access.limit_headers import limit_headers
from serving.access.principal import ANONYMOUS, Principal
from serving.access.rates import Reading
from serving.accounts import Accounts, Exchange
from serving.api.departure import Drain
from serving.decider import Outcome, where_raised
from serving.errors import clipped, our_fault
from serving.failover import Trail
from serving.headers import (
    COST,
    TRACE_ID,
    attempt_headers,
    decision_headers,
    session_headers,
    trace_id,
)
from serving.logs import TRACE
from serving.plan import Plan
from serving.protocols.errors import error_body_for
from serving.ranking import Ranked
from serving.requests import protocol_of
from serving.sessions.visit import SessionFacts
from serving.stopping import LAST_WORDS_S

if TYPE_CHECKING:
    from serving.tracing.spans import Tracing

SCOPE_KEY = "pointsman"
POLL_S = 0.01
QUIET_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
CLIENT_GONE = 499
"""nginx's status for a client that left; only logged."""

log = structlog.get_logger("pointsman")


@dataclass(slots=True)
class RequestRecord:
    """Filled in while a request goes its way."""

    trace_id: str
    exchange: Exchange
    principal: Principal = ANONYMOUS
    readings: list[Reading] = field(default_factory=list)
    """What the caller's key has left of its limits."""
    router: str | None = None
    """Its label: `name@3`."""
    plan: Plan | None = None
    outcome: Outcome | None = None
    ranked: Sequence[Ranked] = ()
    trail: Trail = field(default_factory=Trail)
    stream: bool = False
    broken: str | None = None
    """Why a stream ended early."""
    status: int = 0
    fault_told: bool = False
    """Whether the client has been told of a fault of ours, in a whole answer."""

    def decided(self, plan: Plan, outcome: Outcome) -> None:
        """A request of this plan came out so."""
        self.router, self.plan, self.outcome = plan.router_label, plan, outcome
        if self.trail.trace is not None:
            self.trail.trace.decided_ns = time.time_ns()

    @property
    def session(self) -> SessionFacts | None:
        """What is known of its session; None for a request that has none."""
        visit = self.plan.visit if self.plan is not None else None
        return visit.facts(self.exchange.model) if visit is not None else None

    def headers(self) -> dict[str, str]:
        """Headers of the answer, whatever it is."""
        decided = decision_headers(self.router, self.outcome) if self.outcome else {}
        headers = {**decided, **attempt_headers(self.trail.attempts), TRACE_ID: self.trace_id}
        settled = self.exchange.settled  # of a stream, not before its end
        if settled is not None and settled.cost is not None:
            headers[COST] = f"{settled.cost:.8f}"
        if (session := self.session) is not None:
            headers |= session_headers(session)
        return headers

    def log_fields(self) -> dict[str, Any]:
        """Fields of the log line: never a prompt, a key, or a client's unchecked words."""
        fields: dict[str, Any] = {"trace_id": self.trace_id, "status": self.status}
        if self.principal.key_id is not None:
            fields["key"] = self.principal.key_id
        if self.outcome:
            decision = self.outcome.decision
            fields |= {
                "router": self.router,
                "route": self.outcome.route,
                "confidence": round(decision.confidence, 4) if decision else None,
                "reason": self.outcome.reason,
                "decision_ms": round(self.outcome.milliseconds, 1),
            }
        if self.trail.attempts:
            fields["model"] = self.trail.model
            fields["attempts"] = [f"{a.model}={a.result}" for a in self.trail.attempts]
            fields["attempt_ms"] = [round(a.milliseconds, 1) for a in self.trail.attempts]
            fields["stream"] = self.stream
        settled = self.exchange.settled
        if settled is not None and settled.usage is not None:
            usage = settled.usage
            fields["tokens"] = [usage.input_tokens, usage.cached_tokens, usage.output_tokens]
            fields["cost"] = settled.cost
        if (session := self.session) is not None:
            fields |= {
                "session": session.session_id,
                "pinned": session.pinned,
                "switched": session.switched,
                "session_reason": session.reason,
                "session_saved": round(session.saved, 8),
            }
        if self.broken:
            fields["broken"] = self.broken
        return fields


def record_of(scope: Scope) -> RequestRecord:
    """The record of the request that a scope belongs to."""
    record = scope[SCOPE_KEY]
    assert isinstance(record, RequestRecord)
    return record


Ended = Callable[[RequestRecord, str, float], None]
"""Told of a request at its end: its record, its path, and how many seconds it took."""


def principal_of(scope: Scope) -> Principal:
    """Who makes the request that a scope belongs to."""
    return record_of(scope).principal


class RequestRecorder:
    """Outermost: makes the record, adds its headers, logs one line, hides our faults."""

    def __init__(self, accounts: Accounts, drain: Drain, tracing: Tracing | None = None) -> None:
        self._accounts = accounts
        self._log = log.bind()
        self._drain = drain
        self._tracing = tracing
        self.listeners: list[Ended] = []
        """Told of every request once it has been answered, whatever came of it."""
        self._under_way = 0

    async def all_ended(self) -> None:
        """Wait, within a limit, until what has been answered has been told too.

        A client may have its whole answer, by its length, before we come to the end of it.
        """
        for _ in range(round(LAST_WORDS_S / POLL_S)):
            if not self._under_way:
                break
            await asyncio.sleep(POLL_S)

    async def __call__(self, scope: Scope, receive: Receive, send: Send, app: ASGIApp) -> None:
        """Let `app` answer an HTTP request."""
        started = time.perf_counter()
        found = next((v for k, v in scope["headers"] if k == b"traceparent"), None)
        traceparent = found.decode("latin-1") if found is not None else None
        record = RequestRecord(trace_id(traceparent), Exchange(self._accounts))
        if self._tracing is not None:
            record.trail.trace = self._tracing.begin(record.trace_id, traceparent)
        scope[SCOPE_KEY] = record
        TRACE.set(record.trace_id)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                headers = record.headers()
                if record.readings:
                    headers |= limit_headers(protocol_of(scope["path"]), record.readings)
                ours = [(k.encode(), v.encode()) for k, v in headers.items()]
                if self._drain.stopping:  # the client's next request is for another server
                    ours.append((b"connection", b"close"))
                message = {**message, "headers": [*message.get("headers", ()), *ours]}
            await send(message)

        fault: str | None = None
        self._under_way += 1
        try:
            await app(scope, receive, send_with_headers)
        except ClientDisconnect:
            record.broken, record.status = "client gone", record.status or CLIENT_GONE
        except Exception as error:
            fault = where_raised(error)
            if record.status and not record.fault_told:
                # The server must cut the connection; the original may hold a client's words.
                raise RuntimeError("answer broken off") from None
            if not record.fault_told:
                await _send_fault(send_with_headers, scope)
        finally:
            self._under_way -= 1
            record.exchange.leave(asked=record.trail.pending)
            seconds = time.perf_counter() - started
            for tell in self.listeners:
                tell(record, scope["path"], seconds)
            if scope["path"] not in QUIET_PATHS or fault:
                self._log.log(
                    40 if fault else 20,
                    "request",
                    method=scope["method"],
                    path=clipped(scope["path"]),
                    ms=round(seconds * 1000, 1),
                    **record.log_fields(),
                    **({"fault": fault} if fault else {}),
                )


async def _send_fault(send: Send, scope: Scope) -> None:
    body = orjson.dumps(error_body_for(protocol_of(scope["path"]), our_fault()))
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 500, "headers": headers})
    await send({"type": "http.response.body", "body": body})
