"""Calls between two of our processes over a Unix socket, either way, many at a time.

A frame is four bytes of length, big-endian, then JSON: `[number, name, value]` asks,
`[number, null, value]` answers, `[number, null, null, [kind, message]]` says that it failed, and
`[number, ""]` takes a call back.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

Answering = Callable[[str, Any], Awaitable[Any]]
"""Answers a call of a name with a value, both ways anything that JSON can hold."""


class ChannelClosed(Exception):
    """The other process is gone."""


class CallFailed(Exception):
    """The other process raised an exception of this kind."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Channel:
    """One connection; `run` it for as long as it is to be used."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answering
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._answer = answer
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._answering: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Returns when the other process closes the connection or is gone."""
        try:
            with suppress(asyncio.IncompleteReadError, OSError):
                while True:
                    size = int.from_bytes(await self._reader.readexactly(4))
                    self._read(orjson.loads(await self._reader.readexactly(size)))
        finally:
            self._end()

    async def ask(self, name: str, value: Any = None) -> Any:
        """The other's answer; raises ChannelClosed, or CallFailed for what it raised itself."""
        if self._writer.is_closing():
            raise ChannelClosed
        number = next(self._numbers)
        future = self._asked[number] = asyncio.get_running_loop().create_future()
        self._send([number, name, value])
        try:
            return await future
        except asyncio.CancelledError:
            self._send([number, ""])
            raise
        finally:
            del self._asked[number]

    def close(self) -> None:
        """End the connection; `run` returns."""
        self._writer.close()

    def _send(self, frame: list[Any]) -> None:
        content = orjson.dumps(frame)
        if not self._writer.is_closing():
            self._writer.write(len(content).to_bytes(4) + content)

    def _read(self, frame: list[Any]) -> None:
        number, name, *rest = frame
        if name:
            task = asyncio.ensure_future(self._serve(number, name, rest[0]))
            self._answering[number] = task
            task.add_done_callback(lambda _: self._answering.pop(number, None))
        elif name == "":
            if (running := self._answering.get(number)) is not None:
                running.cancel()
        elif (future := self._asked.get(number)) is not None and not future.done():
            if len(rest) == 1:
                future.set_result(rest[0])
            else:
                future.set_exception(CallFailed(*rest[1]))

    async def _serve(self, number: int, name: str, value: Any) -> None:
        try:
            frame = [number, None, await self._answer(name, value)]
        except Exception as error:
            frame = [number, None, None, [type(error).__name__, str(error)]]
        self._send(frame)

    def _end(self) -> None:
        self._writer.close()
        for future in self._asked.values():
            if not future.done():
                future.set_exception(ChannelClosed())
        for task in self._answering.values():
            task.cancel()


async def connect(path: Path, answer: Answering) -> Channel:
    """A channel to whoever listens there; raises OSError if nobody does."""
    reader, writer = await asyncio.open_unix_connection(path)
    return Channel(reader, writer, answer)
