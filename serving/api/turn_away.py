"""Answers a request that is not let in, without reading its body first."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from serving.api.errors import api_error
from serving.errors import ApiError

DRAINED_BYTES = 4 * 2**20
DRAINED_S = 2.0


async def turn_away(scope: Scope, receive: Receive, send: Send, error: ApiError) -> None:
    """Send the error, and close the connection where a body is on its way.

    The answer goes out at once. Then some of the body is thrown away as it comes: to close on a
    client that still sends would reset the connection, and it would not see the answer.
    """
    sends = _sends_body(scope)
    if sends:
        error.headers = {**(error.headers or {}), "connection": "close"}
    response = await api_error(Request(scope), error)
    await response(scope, receive, send)
    if not sends:
        return
    # Whatever goes wrong now, the answer is out.
    with suppress(Exception):
        async with asyncio.timeout(DRAINED_S):
            await _drain(receive)


async def _drain(receive: Receive) -> None:
    drained = 0
    while drained < DRAINED_BYTES:
        message = await receive()
        drained += len(message.get("body", b""))
        if not message.get("more_body", False):
            return


def _sends_body(scope: Scope) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in scope["headers"]
    )
