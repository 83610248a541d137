"""One attempt at one upstream: an answer that has begun, or the reason that there is none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import aiohttp

from serving.catalogue import Target
from serving.config import Limits
from serving.sse import MAX_HELD, EventSplitter, first_data, is_error

FAIL_OVER = frozenset({401, 402, 403, 404, 408, 409, 425, 429})
"""Statuses below 500 after which the next model is asked."""
PRIVATE = frozenset({401, 402, 403, 404})
"""About the owner's account or configuration: never shown to a client as they are."""
RELAYED_HEADERS = ("content-type", "content-encoding", "x-request-id", "retry-after")
MAX_ERROR_BYTES = 64 * 1024
_READ = 64 * 1024


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """An upstream's own error, fit for a client: 4xx or 5xx with its body."""

    status: int
    headers: dict[str, str]
    body: bytes


class UpstreamFailure(Exception):
    """An attempt without an answer; `label` is a status, or what happened instead: error (in an
    answer of status 200), timeout, connection, cut, invalid."""

    def __init__(self, label: str, answer: ErrorAnswer | None = None) -> None:
        super().__init__(label)
        self.label = label
        self.answer = answer


class StreamCut(Exception):
    """A stream that broke after its first event; `label` as of UpstreamFailure."""

    def __init__(self, label: str) -> None:
        super().__init__(label)
        self.label = label


@dataclass(slots=True)
class Answer:
    """An answer whose beginning is there: a whole body, or the first events of a stream."""

    status: int
    headers: dict[str, str]
    first: bytes
    rest: AsyncGenerator[bytes, None] | None = None
    """Further whole events; raises StreamCut. None for an answer that is whole."""
    _response: aiohttp.ClientResponse | None = field(default=None, repr=False)

    def close(self) -> None:
        """Drop the connection of a stream that is not read to its end."""
        if self._response is not None:
            self._response.close()


class Upstreams:
    """A pool of connections to all providers. Redirects are off: a key belongs to one origin."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the pool; needs a running loop."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            # Bounds of phases are set below; a total here would end long streams.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._limits.connect_s),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the pool; safe to call twice."""
        if self._session is not None:
            await self._session.close()

    async def ask(self, target: Target, body: bytes) -> Answer:
        """Ask once and wait for the answer to begin; raises UpstreamFailure."""
        response: aiohttp.ClientResponse | None = None
        try:
            async with asyncio.timeout(self._limits.first_byte_s):
                response = await self._post(target, body)
                if response.status != 200:
                    return await self._refused(response, target)
                if _is_stream(response):
                    return await self._stream(response, target)
            return await self._whole(response, target)
        except TimeoutError:
            self._drop(response)
            raise UpstreamFailure("timeout") from None
        except aiohttp.ClientPayloadError:
            self._drop(response)
            raise UpstreamFailure("cut") from None
        except (aiohttp.ClientError, OSError):
            self._drop(response)
            raise UpstreamFailure("connection") from None
        except BaseException:
            self._drop(response)
            raise

    async def _post(self, target: Target, body: bytes) -> aiohttp.ClientResponse:
        assert self._session is not None, "start() comes first"
        headers = {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "accept-encoding": "identity",
            "user-agent": "pointsman",
        }
        if target.provider.key:
            headers["authorization"] = f"Bearer {target.provider.key}"
        return await self._session.post(
            f"{target.provider.base_url}/chat/completions",
            data=body,
            headers=headers,
            allow_redirects=False,
        )

    async def _refused(self, response: aiohttp.ClientResponse, target: Target) -> Answer:
        status = response.status
        body = await _capped(response, MAX_ERROR_BYTES)
        response.close()
        label = str(status)
        if body is None or status < 400 or status in PRIVATE:
            raise UpstreamFailure(label)
        body, headers = _without_key(body, target), _relayed(response)
        if status >= 500 or status in FAIL_OVER:
            raise UpstreamFailure(label, ErrorAnswer(status, headers, body))
        return Answer(status, headers, body)

    async def _whole(self, response: aiohttp.ClientResponse, target: Target) -> Answer:
        chunks: list[bytes] = []
        size = 0
        while True:
            async with asyncio.timeout(self._limits.idle_s):
                chunk = await response.content.read(_READ)
            if not chunk:
                break
            size += len(chunk)
            if size > self._limits.answer_bytes:
                response.close()
                raise UpstreamFailure("invalid")
            chunks.append(chunk)
        body, headers = b"".join(chunks), _relayed(response)
        if "content-encoding" not in headers:
            if not body.lstrip().startswith(b"{"):  # a proxy's page, or nothing
                raise UpstreamFailure("invalid")
            if is_error(body):
                raise _error_in_answer(body, target)
        return Answer(200, headers, body)

    async def _stream(self, response: aiohttp.ClientResponse, target: Target) -> Answer:
        splitter = EventSplitter()
        first = b""
        while (payload := first_data(first)) is None:
            chunk = await response.content.readany()
            first += splitter.feed(chunk) if chunk else splitter.rest()
            if not chunk and first_data(first) is None:
                raise UpstreamFailure("cut")
            if len(first) > MAX_HELD:
                raise UpstreamFailure("invalid")
        if is_error(payload):
            raise _error_in_answer(payload, target)
        rest = self._events(response, splitter)
        return Answer(200, _relayed(response), first, rest, response)

    async def _events(
        self, response: aiohttp.ClientResponse, splitter: EventSplitter
    ) -> AsyncGenerator[bytes, None]:
        try:
            while True:
                async with asyncio.timeout(self._limits.idle_s):
                    chunk = await response.content.readany()
                if not chunk:
                    break
                if events := splitter.feed(chunk):
                    yield events
        except TimeoutError:
            raise StreamCut("timeout") from None
        except (aiohttp.ClientError, OSError):
            raise StreamCut("cut") from None
        rest = splitter.rest()
        if not splitter.done and not _delimited(response):
            raise StreamCut("cut")
        if rest:
            yield rest

    @staticmethod
    def _drop(response: aiohttp.ClientResponse | None) -> None:
        if response is not None:
            response.close()


def _error_in_answer(body: bytes, target: Target) -> UpstreamFailure:
    """Some upstreams answer 200 and mean an error."""
    headers = {"content-type": "application/json"}
    return UpstreamFailure("error", ErrorAnswer(502, headers, _without_key(body, target)))


def _without_key(body: bytes, target: Target) -> bytes:
    key = target.provider.key
    return body.replace(key.encode(), b"[key]") if key else body


async def _capped(response: aiohttp.ClientResponse, limit: int) -> bytes | None:
    """The body, or None where it is longer than anyone needs."""
    chunks: list[bytes] = []
    async for chunk in response.content.iter_chunked(_READ):
        chunks.append(chunk)
        if sum(map(len, chunks)) > limit:
            return None
    return b"".join(chunks)


def _relayed(response: aiohttp.ClientResponse) -> dict[str, str]:
    return {name: response.headers[name] for name in RELAYED_HEADERS if name in response.headers}


def _is_stream(response: aiohttp.ClientResponse) -> bool:
    return response.headers.get("content-type", "").lower().startswith("text/event-stream")


def _delimited(response: aiohttp.ClientResponse) -> bool:
    """Whether the transport itself would have told us of a cut."""
    chunked = "chunked" in response.headers.get("transfer-encoding", "").lower()
    return chunked or "content-length" in response.headers
