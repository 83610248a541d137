"""What is known about one request: its headers while it is answered, its log line at the end."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import orjson
import structlog
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.decider import Outcome, where_raised
from serving.errors import clipped, error_body
from serving.failover import Trail
from serving.headers import TRACE_ID, attempt_headers, decision_headers, trace_id

SCOPE_KEY = "pointsman"
QUIET_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
CLIENT_GONE = 499
"""nginx's status for a client that left; only logged."""

log = structlog.get_logger("pointsman")


@dataclass(slots=True)
class RequestRecord:
    """Filled in while a request goes its way."""

    trace_id: str
    router: str | None = None
    outcome: Outcome | None = None
    trail: Trail = field(default_factory=Trail)
    stream: bool = False
    broken: str | None = None
    """Why a stream ended early."""
    status: int = 0

    def headers(self) -> dict[str, str]:
        """Headers of the answer, whatever it is."""
        decided = decision_headers(self.router, self.outcome) if self.outcome else {}
        return {**decided, **attempt_headers(self.trail.attempts), TRACE_ID: self.trace_id}

    def log_fields(self) -> dict[str, Any]:
        """Fields of the log line: never a prompt, a key, or a client's unchecked words."""
        fields: dict[str, Any] = {"trace_id": self.trace_id, "status": self.status}
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
            fields["stream"] = self.stream
        if self.broken:
            fields["broken"] = self.broken
        return fields


def record_of(scope: Scope) -> RequestRecord:
    """The record of the request that a scope belongs to."""
    record = scope[SCOPE_KEY]
    assert isinstance(record, RequestRecord)
    return record


class RequestRecorder:
    """Outermost middleware: makes the record, adds its headers, logs one line, hides our faults."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        record = RequestRecord(trace_id(Headers(scope=scope).get("traceparent")))
        scope[SCOPE_KEY] = record

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                ours = [(k.encode(), v.encode()) for k, v in record.headers().items()]
                message = {**message, "headers": [*message.get("headers", ()), *ours]}
            await send(message)

        fault: str | None = None
        try:
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            record.broken, record.status = "client gone", record.status or CLIENT_GONE
        except Exception as error:
            fault = where_raised(error)
            if record.status:
                # The server must cut the connection; the original may hold a client's words.
                raise RuntimeError("answer broken off") from None
            await _send_fault(send_with_headers)
        finally:
            if scope["path"] not in QUIET_PATHS or fault:
                log.log(
                    40 if fault else 20,
                    "request",
                    method=scope["method"],
                    path=clipped(scope["path"]),
                    ms=round((time.perf_counter() - started) * 1000, 1),
                    **record.log_fields(),
                    **({"fault": fault} if fault else {}),
                )


async def _send_fault(send: Send) -> None:
    body = orjson.dumps(error_body("The server failed to handle this request.", "server_error"))
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 500, "headers": headers})
    await send({"type": "http.response.body", "body": body})
