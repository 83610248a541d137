"""Answers as they go over the wire."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import orjson
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serving.api.departure import Departure, ServerStopping
from serving.api.record import RequestRecord
from serving.errors import ApiError
from serving.protocols.base import Protocol
from serving.protocols.errors import error_event
from serving.stream import TOLD, StreamCut
from serving.timers import TimeLimit
from serving.upstream import Answer


class OrjsonResponse(Response):
    """JSON by orjson."""

    media_type = "application/json"

    def __init__(
        self, content: Any, status_code: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(content, status_code, headers)

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


class StreamRelay(Response):
    """An upstream's events, passed on as they come until their end, a cut, or the client's leave.

    A cut, ours too when the server stops, is told by an event of its own; no end is made up.
    """

    def __init__(
        self,
        answer: Answer,
        record: RequestRecord,
        departure: Departure,
        deadline: float,
        protocol: Protocol,
    ) -> None:
        self._answer = answer
        self._protocol = protocol
        self._record = record
        self._departure = departure
        self._deadline = deadline
        self._started = False
        self.background = None
        self.status_code = answer.status
        self.body = b""
        self.init_headers({**answer.headers, "cache-control": "no-cache"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._departure.unless(self._pump(send))
        except ClientDisconnect:
            self._record.exchange.end("client gone")
            raise
        except ServerStopping as stopping:
            await self._begin(send)
            await self._tell(send, stopping.LABEL, stopping)
            await self._finish(send)
        finally:
            self._departure.close()
            self._answer.close()
            self._record.exchange.end(self._record.broken)

    async def _begin(self, send: Send) -> None:
        if self._started:
            return
        self._started = True
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": [h for h in self.raw_headers if h[0] != b"content-length"],
            }
        )

    async def _pump(self, send: Send) -> None:
        await self._begin(send)
        if self._answer.first:
            await self._send(send, self._answer.first)
        assert self._answer.rest is not None
        try:
            with TimeLimit(self._deadline):
                async with aclosing(self._answer.rest) as pieces:
                    async for events in pieces:
                        await self._send(send, events)
        except StreamCut as cut:
            await self._tell(send, cut.label)
        except TimeoutError:
            await self._tell(send, "timeout")
        await self._finish(send)

    async def _finish(self, send: Send) -> None:
        # Before the last byte: whoever has seen it finds the answer counted.
        self._record.exchange.end(self._record.broken)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _tell(self, send: Send, label: str, error: ApiError | None = None) -> None:
        self._record.broken = label
        if label == TOLD:
            return
        message = "The model's answer broke off before its end."
        error = error or ApiError(502, message, "upstream_error", code=label)
        await self._send(send, error_event(self._protocol, error))

    @staticmethod
    async def _send(send: Send, body: bytes) -> None:
        await send({"type": "http.response.body", "body": body, "more_body": True})


def relayed(
    answer: Answer,
    record: RequestRecord,
    departure: Departure,
    deadline: float,
    protocol: Protocol,
) -> Response:
    """The response for an answer: whole, or a stream."""
    if answer.rest is not None:
        return StreamRelay(answer, record, departure, deadline, protocol)
    departure.close()
    return Response(answer.first, answer.status, answer.headers)
