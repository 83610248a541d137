"""The least that a gateway on the same server and client can do: pass bytes through.

    python -m scripts.bench.gateway.ceiling PORT UPSTREAM

No framework, no JSON, no routing, no log: `UPSTREAM` is asked on the path that was asked here.
"""

from __future__ import annotations

import sys
from typing import Any

import aiohttp
import uvloop

from serving.listening import make_server


class PassThrough:
    """A bare ASGI application."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        assert self._session is not None
        headers = {"content-type": "application/json"}
        url = self._upstream + scope["path"]
        async with self._session.post(url, data=body, headers=headers) as response:
            kind = response.content_type
            start = [(b"content-type", kind.encode())]
            await send({"type": "http.response.start", "status": response.status, "headers": start})
            if kind == "text/event-stream":
                while chunk := await response.content.readany():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
            else:
                await send({"type": "http.response.body", "body": await response.read()})

    async def _lifespan(self, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._session = aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar()
                )
                await send({"type": "lifespan.startup.complete"})
            else:
                assert self._session is not None
                await self._session.close()
                await send({"type": "lifespan.shutdown.complete"})
                return


async def _serve(port: int, upstream: str) -> None:
    server = make_server(PassThrough(upstream), "127.0.0.1", port)  # type: ignore[arg-type]
    await server.serve()


def main() -> None:
    port, upstream = sys.argv[1:]
    uvloop.run(_serve(int(port), upstream))


if __name__ == "__main__":
    main()
