"""Two translations one after the other, for clients and upstreams that have none between them."""

from __future__ import annotations

import typing
from typing import Any

from serving.protocols.base import (
    Event,
    StreamTranslation,
    Translation,
    Untranslatable,
    parse_events,
)


@typing.runtime_checkable
class NamesFields(typing.Protocol):
    """A translation that knows which of the client's fields its upstream's fields come from."""

    def client_field(self, body: dict[str, Any], field: str) -> str:
        """The client's name of a field of the request that `body` became."""


def chained(outer: Translation, inner: Translation) -> Translation:
    """Lets `outer`'s clients talk to `inner`'s upstreams; what lies between must be one protocol.

    A field that `inner` finds Untranslatable is named in the client's terms if `outer` can tell
    them (NamesFields).
    """
    return _Chained(outer, inner)


class _Chained:
    def __init__(self, outer: Translation, inner: Translation) -> None:
        self._outer = outer
        self._inner = inner

    def request(self, body: dict[str, Any]) -> dict[str, Any]:
        between = self._outer.request(body)
        try:
            return self._inner.request(between)
        except Untranslatable as error:
            if not error.field or not isinstance(self._outer, NamesFields):
                raise
            field = self._outer.client_field(body, error.field)
            message = error.message.replace(error.field, field)
            raise Untranslatable(message, field) from None

    def answer(self, body: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
        between = self._inner.answer(body, self._outer.request(request))
        return self._outer.answer(between, request)

    def stream(self, request: dict[str, Any]) -> StreamTranslation:
        between = self._inner.stream(self._outer.request(request))
        return _ChainedStream(self._outer.stream(request), between)


class _ChainedStream:
    def __init__(self, outer: StreamTranslation, inner: StreamTranslation) -> None:
        self._outer = outer
        self._inner = inner

    def feed(self, event: Event) -> bytes:
        return self._pass_on(self._inner.feed(event))

    def finish(self) -> bytes:
        last = self._pass_on(self._inner.finish())
        return last + self._outer.finish()

    def _pass_on(self, events: bytes) -> bytes:
        return b"".join(self._outer.feed(event) for event in parse_events(events))
