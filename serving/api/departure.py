"""Requests under way, and what ends them before their answer: the client's leave, or our own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive

from serving.errors import ApiError
from serving.timers import wheel_of

T = TypeVar("T")

NOTICED_AFTER_S = 0.1
"""A client that leaves sooner is noticed then: what is answered faster is not watched over."""


class ServerStopping(ApiError):
    """The server stops, and the time for what was under way is over."""

    LABEL = "server_stopping"

    def __init__(self) -> None:
        super().__init__(503, "The server is stopping; ask again.", "server_error", code=self.LABEL)


class Departure:
    """Notices that the client has left, and cancels what is done for it.

    Begins once the body has been read; most answers are there before it even looks.
    """

    def __init__(self, receive: Receive, under_way: set[Departure]) -> None:
        self._over: type[ClientDisconnect] | type[ServerStopping] | None = None
        self._working: asyncio.Task[Any] | None = None
        self._under_way = under_way
        under_way.add(self)
        self._receive = receive
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
        else:
            self._end(ClientDisconnect)

    def stop(self) -> None:
        """Cancel what is done for the client: it is to be told that the server stops."""
        self._end(ServerStopping)

    def _end(self, why: type[ClientDisconnect] | type[ServerStopping]) -> None:
        if self._over is not None:
            return
        self._over = why
        if self._working is not None:
            self._working.cancel()

    async def unless(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`; if the client leaves first, `work` is cancelled and
        ClientDisconnect raised, and ServerStopping if the server ends it."""
        if self._over is not None:
            work.close()
            raise self._over
        # Within this task: one of its own for each request would cost more than the whole watch.
        task = self._working = asyncio.current_task()
        assert task is not None
        try:
            return await work
        except asyncio.CancelledError:
            if self._over is not None and task.uncancel() == 0:
                raise self._over from None
            raise
        finally:
            self._working = None

    def close(self) -> None:
        """Stop watching."""
        self._under_way.discard(self)
        self._slot.discard(self)
        if self._message is not None:
            self._message.remove_done_callback(self._told)
            self._message.cancel()


class Drain:
    """Whether this process stops, and the requests for models that are under way."""

    def __init__(self) -> None:
        self.stopping = False
        self._under_way: set[Departure] = set()

    def __len__(self) -> int:
        return len(self._under_way)

    def watch(self, receive: Receive) -> Departure:
        """Of a request whose body has been read."""
        return Departure(receive, self._under_way)

    def stop_all(self) -> int:
        """End whatever is under way, and return how much that was."""
        for departure in tuple(self._under_way):
            departure.stop()
        return len(self._under_way)


def watched(request: Request) -> Departure:
    """The departure of a request whose body has been read."""
    drain: Drain = request.app.state.drain
    return drain.watch(request.receive)
