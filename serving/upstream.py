"""One attempt at one upstream: an answer that has begun, or the reason that there is none."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from serving import upstream_headers
from serving.catalogue import Target
from serving.config import FailoverConfig, Limits
from serving.outgoing import Call
from serving.protocols.base import Protocol
from serving.refusals import refusal_of
from serving.sse import MAX_HELD, EventSplitter, first_data, is_error
from serving.stream import TOLD, ClientEvents, StreamCut
from serving.timers import within
from serving.upstream_headers import is_stream, relayed
from serving.usage import Usage, UsageMeter, usage_of

PRIVATE = frozenset({401, 402, 403, 404})
"""About the owner's account or configuration: never shown to a client as they are."""
MAX_ERROR_BYTES = 64 * 1024
_READ = 64 * 1024


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """An upstream's own error: 4xx or 5xx with its body, in whatever shape the upstream gave it."""

    status: int
    headers: dict[str, str]
    body: bytes


class UpstreamFailure(Exception):
    """An attempt without an answer.

    `label` is a status, or what happened instead: error (in an answer of status 200), timeout,
    connection, cut, invalid, context_length, content_policy. `answer` is the upstream's error where
    it is fit for a client. `ours` says that the request, not the model, is to blame.
    """

    def __init__(
        self,
        label: str,
        answer: ErrorAnswer | None = None,
        *,
        ours: bool = False,
        retry_after: str | None = None,
    ) -> None:
        super().__init__(label)
        self.label = label
        self.answer = answer
        self.ours = ours
        self.retry_after = retry_after


@dataclass(slots=True)
class Answer:
    """An answer whose beginning is there: a whole body, or the first events of a stream."""

    status: int
    headers: dict[str, str]
    first: bytes
    rest: AsyncGenerator[bytes, None] | None = None
    """Further whole events; raises StreamCut. None for an answer that is whole."""
    told: Usage | None = None
    meter: UsageMeter | None = None
    _response: aiohttp.ClientResponse | None = field(default=None, repr=False)

    @property
    def usage(self) -> Usage | None:
        """What the upstream has said so far of the tokens used."""
        return self.meter.usage if self.meter is not None else self.told

    def close(self) -> None:
        """Drop the connection of a stream that is not read to its end."""
        if self._response is not None:
            self._response.close()


class Upstreams:
    """A pool of connections to all providers. Redirects are off: a key belongs to one origin."""

    def __init__(self, limits: Limits, failover: FailoverConfig) -> None:
        self._limits = limits
        self._failover = failover
        self.session: aiohttp.ClientSession | None = None
        """None until it is open."""

    async def start(self) -> None:
        """Open the pool; needs a running loop."""
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=self._limits.keepalive_s),
            # Bounds of phases are set below; a total here would end long streams.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._limits.connect_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            headers=upstream_headers.CONSTANT,
        )

    async def close(self) -> None:
        """Close the pool; safe to call twice."""
        if self.session is not None:
            await self.session.close()

    async def ask(
        self, target: Target, call: Call, request: Mapping[str, Any], *, deadline: float
    ) -> Answer:
        """Ask once and wait for the answer to begin, or to be whole; raises UpstreamFailure.

        `request` is the client's own body, which a translated answer may have to repeat from;
        `deadline` is on the event loop's clock.
        """
        response: aiohttp.ClientResponse | None = None
        try:
            with within(self._limits.first_byte_s, deadline):
                response = await self._post(target, call)
                if response.status != 200:
                    return await self._refused(response, target)
                if call.protocol is not None and is_stream(response):
                    return await self._stream(response, target, call, request)
            body = await self._body(response, deadline)
            return self._whole(response, body, target, call, request)
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

    async def _post(self, target: Target, call: Call) -> aiohttp.ClientResponse:
        assert self.session is not None, "start() comes first"
        return await self.session.post(
            f"{target.provider.base_url}{call.path}",
            data=aiohttp.BytesPayload(call.body),
            headers=upstream_headers.of(call, target.provider),
            allow_redirects=False,
        )

    async def _refused(self, response: aiohttp.ClientResponse, target: Target) -> Answer:
        status = response.status
        body = await _capped(response, MAX_ERROR_BYTES)
        response.close()
        label = str(status)
        retry_after = response.headers.get("retry-after")
        if body is None or status < 400:
            raise UpstreamFailure(label, retry_after=retry_after)
        refusal = refusal_of(status, body)
        body, headers = _without_key(body, target), relayed(response)
        answer = ErrorAnswer(status, headers, body)
        if refusal is not None and getattr(self._failover, refusal):
            raise UpstreamFailure(refusal, answer, ours=True)
        fail_over = status in self._failover.statuses
        if status in PRIVATE:
            raise UpstreamFailure(label, retry_after=retry_after)
        if fail_over:
            raise UpstreamFailure(label, answer, retry_after=retry_after)
        return Answer(status, headers, body)

    async def _body(self, response: aiohttp.ClientResponse, deadline: float) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while not response.content.at_eof():
            with within(self._limits.idle_s, deadline):
                chunk = await response.content.readany()
            size += len(chunk)
            if size > self._limits.answer_bytes:
                response.close()
                raise UpstreamFailure("invalid")
            chunks.append(chunk)
        return b"".join(chunks)

    @staticmethod
    def _whole(
        response: aiohttp.ClientResponse,
        body: bytes,
        target: Target,
        call: Call,
        request: Mapping[str, Any],
    ) -> Answer:
        headers = relayed(response)
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError:  # a proxy's page, or nothing
            raise UpstreamFailure("invalid") from None
        if not isinstance(value, dict):
            raise UpstreamFailure("invalid")
        if b'"error"' in body and is_error(body):
            raise _error_in_answer(body, target)
        usage = usage_of(call.protocol or Protocol.CHAT, value)
        if call.translation is not None:
            try:
                body = orjson.dumps(call.translation.answer(value, dict(request)))
            except ValueError:
                raise UpstreamFailure("invalid") from None
            headers["content-type"] = "application/json"
        return Answer(200, headers, body, told=usage)

    async def _stream(
        self,
        response: aiohttp.ClientResponse,
        target: Target,
        call: Call,
        request: Mapping[str, Any],
    ) -> Answer:
        assert call.protocol is not None
        splitter = EventSplitter(call.protocol)
        first = b""
        while (payload := first_data(first)) is None:
            chunk = await response.content.readany()
            first += splitter.feed(chunk) if chunk else splitter.rest()
            if not chunk and first_data(first) is None:
                raise UpstreamFailure("cut")
            if len(first) > MAX_HELD:
                raise UpstreamFailure("invalid")
        if not payload.startswith((b"{", b"[DONE]")):
            raise UpstreamFailure("invalid")
        if is_error(payload):
            raise _error_in_answer(payload, target)
        events = ClientEvents(call, request)
        try:
            begun = events.feed(first)
        except StreamCut as cut:
            raise UpstreamFailure(cut.label) from None
        rest = self._events(response, splitter, events)
        return Answer(200, relayed(response), begun, rest, meter=events.meter, _response=response)

    async def _events(
        self, response: aiohttp.ClientResponse, splitter: EventSplitter, events: ClientEvents
    ) -> AsyncGenerator[bytes, None]:
        try:
            while True:
                with within(self._limits.idle_s):
                    chunk = await response.content.readany()
                if not chunk:
                    break
                if (whole := splitter.feed(chunk)) and (ours := events.feed(whole)):
                    yield ours
        except TimeoutError:
            raise StreamCut("timeout") from None
        except (aiohttp.ClientError, OSError):
            raise StreamCut("cut") from None
        rest = events.feed(splitter.rest())
        if not splitter.done and not events.told:
            raise StreamCut("cut")
        if ours := rest + events.finish():
            yield ours
        if events.told:
            raise StreamCut(TOLD)

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
    size = 0
    async for chunk in response.content.iter_chunked(_READ):
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            return None
    return b"".join(chunks)
