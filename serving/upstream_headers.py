"""Headers of requests to upstreams and of their answers, by names that aiohttp need not prepare."""

from __future__ import annotations

import aiohttp
from multidict import istr

from serving.catalogue import Provider
from serving.outgoing import Call
from serving.protocols.base import Protocol

CONSTANT = {
    istr("content-type"): "application/json",
    istr("accept"): "application/json, text/event-stream",
    istr("accept-encoding"): "identity",
    istr("user-agent"): "pointsman",
}
"""Of every request."""
_API_KEY, _AUTHORIZATION, _CONTENT_TYPE = map(istr, ("x-api-key", "authorization", "content-type"))
_RELAYED = (_CONTENT_TYPE, *map(istr, ("x-request-id", "request-id", "retry-after")))


def of(call: Call, provider: Provider) -> dict[str, str]:
    """Of one request, the provider's key among them."""
    headers = dict(call.headers)
    if provider.key:
        if call.protocol is Protocol.MESSAGES:
            headers[_API_KEY] = provider.key
        else:
            headers[_AUTHORIZATION] = f"Bearer {provider.key}"
    return headers


def relayed(response: aiohttp.ClientResponse) -> dict[str, str]:
    """Headers for the client, but those with bytes that none of ours may hold."""
    found = response.headers
    return {
        name: value
        for name in _RELAYED
        if (value := found.get(name)) is not None and value.isascii() and value.isprintable()
    }


def is_stream(response: aiohttp.ClientResponse) -> bool:
    """Whether an answer is a stream of events."""
    return response.headers.get(_CONTENT_TYPE, "").lower().startswith("text/event-stream")
