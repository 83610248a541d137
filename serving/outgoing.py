"""A client's request as each upstream is to see it: its protocol, its path, its bytes."""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from routing.values import value_type
from serving.catalogue import Target
from serving.errors import bad_request
from serving.protocols.base import Protocol, Translation, Untranslatable
from serving.protocols.translations import Dialect, translation
from serving.protocols.unsigned_thinking import without_unsigned_thinking

OWN_FIELDS = frozenset({"routing_preferences"})
"""Fields that are the server's business and never forwarded."""
PATHS = {
    Protocol.CHAT: "/chat/completions",
    Protocol.RESPONSES: "/responses",
    Protocol.MESSAGES: "/messages",
}
ANTHROPIC_VERSION = "2026-10-21"
"""What translated requests are written for; a client's own goes before it."""
_RELAYED_HEADERS = {
    "anthropic-beta": re.compile(r"[A-Za-z0-9_., -]{1,512}"),
    "anthropic-version": re.compile(r"[0-9-]{1,20}"),
}
"""Of a client, where its protocol is the upstream's too; all others stay here."""


@value_type
class Call:
    """One request to one upstream."""

    protocol: Protocol | None
    """What is spoken; None where nothing but relaying is asked, as for embeddings."""
    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    translation: Translation | None = None
    """From the client's protocol to this one; None where they are the same."""
    hide_usage: bool = False
    """Whether the stream's usage was asked for by the server and not by the client."""


class Sendable(typing.Protocol):
    """A client's request, ready to be told to any upstream."""

    @property
    def protocol(self) -> Protocol:
        """In whose words the client is answered."""

    @property
    def fields(self) -> Mapping[str, Any]:
        """The client's own body."""

    def call(self, target: Target) -> Call:
        """The request for a model; raises Untranslatable where its provider has no words for it."""


@dataclass(frozen=True, slots=True)
class Passed:
    """A request that is relayed to the same path of whichever provider, as for embeddings."""

    path: str
    fields: Mapping[str, Any]
    protocol: Protocol = Protocol.CHAT

    def call(self, target: Target) -> Call:
        """The request for a model; raises Untranslatable for a provider without such a path."""
        if Protocol.CHAT not in target.provider.protocols:
            raise Untranslatable(f"{target.name!r} does not answer {self.path}", "model")
        return Call(None, self.path, dumped({**self.fields, "model": target.model}))


class Outgoing:
    """A checked body of a client. What two upstreams have in common is made once."""

    def __init__(
        self,
        protocol: Protocol,
        fields: Mapping[str, Any],
        *,
        stream: bool,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.protocol = protocol
        self.fields = fields
        self.stream = stream
        self._headers = headers or {}
        self._made: dict[tuple[Protocol, Dialect], tuple[dict[str, Any], Translation | None]] = {}

    def call(self, target: Target) -> Call:
        spoken = target.provider.protocols
        protocol = self.protocol if self.protocol in spoken else spoken[0]
        key = protocol, target.provider.dialect
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = self._translated(*key)
        body, translated = made
        headers: dict[str, str] = {}
        if protocol is Protocol.MESSAGES:
            headers["anthropic-version"] = ANTHROPIC_VERSION
            if translated is None:
                headers |= self._relayed_headers()
        body = {**body, "model": target.model}
        wanted = self._usage_to_ask(body, target) if protocol is Protocol.CHAT else None
        if wanted is not None:
            body["stream_options"] = wanted
        return Call(
            protocol=protocol,
            path=PATHS[protocol],
            body=dumped(body),
            headers=headers,
            translation=translated,
            hide_usage=wanted is not None and translated is None,
        )

    def _relayed_headers(self) -> dict[str, str]:
        return {
            name: value
            for name, pattern in _RELAYED_HEADERS.items()
            if (value := self._headers.get(name)) and pattern.fullmatch(value)
        }

    def _translated(
        self, protocol: Protocol, dialect: Dialect
    ) -> tuple[dict[str, Any], Translation | None]:
        body = {key: value for key, value in self.fields.items() if key not in OWN_FIELDS}
        translated = translation(self.protocol, protocol, dialect)
        if translated is not None:
            return translated.request(body), translated
        if protocol is Protocol.MESSAGES:
            body = without_unsigned_thinking(body)
        return body, None

    def _usage_to_ask(self, body: Mapping[str, Any], target: Target) -> dict[str, Any] | None:
        """Stream options that ask for the usage; None where nobody need ask."""
        if not self.stream or not target.provider.stream_usage:
            return None
        given = body.get("stream_options")
        options = given if isinstance(given, dict) else {}
        return None if options.get("include_usage") else {**options, "include_usage": True}


def dumped(body: Mapping[str, Any]) -> bytes:
    """JSON of a body; raises ApiError for one that can be read but not written."""
    try:
        return orjson.dumps(body)
    except TypeError:  # orjson reads deeper nesting than it writes
        raise bad_request("The body is nested too deeply.", None) from None
