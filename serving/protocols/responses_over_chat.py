"""Clients of OpenAI Responses, upstreams of Chat Completions."""

from __future__ import annotations

from typing import Any

from serving.protocols.responses_answer import response_of
from serving.protocols.responses_request import chat_request, client_field
from serving.protocols.responses_stream import ResponsesStream


class ResponsesOverChat:
    """A Translation; what it leaves out stands in `responses_request`."""

    def request(self, body: dict[str, Any]) -> dict[str, Any]:
        """The Chat body; raises Untranslatable, and ApiError 400 for a field of a wrong shape."""
        return chat_request(body)

    def answer(self, body: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
        """The Response; raises ValueError for a body that is no Chat answer."""
        return response_of(body, request)

    def stream(self, request: dict[str, Any]) -> ResponsesStream:
        """A translation of one stream; its `feed` raises ValueError for what is no chunk."""
        return ResponsesStream(request)

    def client_field(self, body: dict[str, Any], field: str) -> str:
        """What the client calls a field of the Chat request that `body` became."""
        return client_field(body, field)
