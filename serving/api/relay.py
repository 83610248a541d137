"""Answers as they go over the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

import orjson
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from serving.api.record import RequestRecord
from serving.errors import ApiError
from serving.protocols.base import Protocol
from serving.protocols.errors import error_event
from serving.stream import TOLD, StreamCut
from serving.timers import TimeLimit, wheel_of
from serving.upstream import Answer

T = TypeVar("T")

NOTICED_AFTER_S = 0.1
"""A client that leaves sooner is noticed then: what is answered faster is not watched over."""


class OrjsonResponse(Response):
    """JSON by orjson."""

    media_type = "application/json"

    def __init__(
        self, content: Any, status_code: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(content, status_code, headers)

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


class Departure:
    """Notices that the client has left, and cancels what is done for it.

    Begins once the body has been read; most answers are there before it even looks.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._left = False
        self._working: asyncio.Task[Any] | None = None
        self._message: asyncio.Future[Message] | None = None
        loop = asyncio.get_running_loop()
        self._slot = wheel_of(loop).put(self, loop.time() + NOTICED_AFTER_S)

    def due(self) -> None:
        """Begin to watch."""
        # The server's own future where it gives one: a task for it would be one a request.
        self._message = asyncio.ensure_future(self._receive())
        self._message.add_done_callback(self._told)

    def _told(self, message: asyncio.Future[Message]) -> None:
        if message.cancelled():
            return
        if message.exception() is None and message.result()["type"] != "http.disconnect":
            self.due()
            return
        self._left = True
        if self._working is not None:
            self._working.cancel()

    async def unless(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`; if the client leaves first, `work` is cancelled and
        ClientDisconnect raised."""
        if self._left:
            work.close()
            raise ClientDisconnect
        # Within this task: one of its own for each request would cost more than the whole watch.
        task = self._working = asyncio.current_task()
        assert task is not None
        try:
            return await work
        except asyncio.CancelledError:
            if self._left and task.uncancel() == 0:
                raise ClientDisconnect from None
            raise
        finally:
            self._working = None

    def close(self) -> None:
        """Stop watching."""
        self._slot.discard(self)
        if self._message is not None:
            self._message.remove_done_callback(self._told)
            self._message.cancel()


class StreamRelay(Response):
    """An upstream's events, passed on as they come until their end, a cut, or the client's leave.

    A cut is told by an event of its own, and no end is made up.
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
        finally:
            self._departure.close()
            self._answer.close()
            self._record.exchange.end(self._record.broken)

    async def _pump(self, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": [h for h in self.raw_headers if h[0] != b"content-length"],
            }
        )
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
        # Before the last byte: whoever has seen it finds the answer counted.
        self._record.exchange.end(self._record.broken)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _tell(self, send: Send, label: str) -> None:
        self._record.broken = label
        if label == TOLD:
            return
        message = "The model's answer broke off before its end."
        error = ApiError(502, message, "upstream_error", code=label)
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
