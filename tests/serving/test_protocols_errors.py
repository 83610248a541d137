"""Errors as the official SDKs see them, of this server and of upstreams of any kind."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from anthropic.types import ErrorResponse
from openai.types.responses import ResponseErrorEvent
from protocol_oracles import raised_by_anthropic, raised_by_openai

from serving.errors import ApiError
from serving.protocols.base import Protocol, parse_events
from serving.protocols.errors import error_body_for, error_event, reshape, reshape_event

OURS = ApiError(404, "No such model.", param="model", code="model_not_found")
OPENAI: dict[str, Any] = {
    "error": {"message": "Bad key.", "type": "auth", "param": None, "code": "invalid_api_key"}
}
ANTHROPIC: dict[str, Any] = {
    "type": "error",
    "error": {"type": "rate_limit_error", "message": "Slow down."},
    "request_id": "req_1",
}


def reshaped(protocol: Protocol, status: int, value: Any) -> Any:
    return orjson.loads(reshape(protocol, status, orjson.dumps(value)))


class TestOwn:
    @pytest.mark.parametrize("protocol", [Protocol.CHAT, Protocol.RESPONSES])
    def test_openai(self, protocol: Protocol) -> None:
        assert error_body_for(protocol, OURS) == OURS.body()

    def test_anthropic(self) -> None:
        body = error_body_for(Protocol.MESSAGES, OURS)
        assert body == {
            "type": "error",
            "error": {"type": "not_found_error", "message": "No such model."},
        }
        assert ErrorResponse.model_validate(body)

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (400, "invalid_request_error"),
            (401, "authentication_error"),
            (402, "billing_error"),
            (403, "permission_error"),
            (404, "not_found_error"),
            (409, "conflict_error"),
            (413, "request_too_large"),
            (422, "invalid_request_error"),
            (429, "rate_limit_error"),
            (500, "api_error"),
            (502, "api_error"),
            (503, "api_error"),
            (504, "timeout_error"),
            (529, "overloaded_error"),
        ],
    )
    def test_anthropic_types(self, status: int, kind: str) -> None:
        body = error_body_for(Protocol.MESSAGES, ApiError(status, "x", "server_error"))
        assert body["error"]["type"] == kind

    def test_events_end_a_stream_for_the_sdks(self) -> None:
        anthropic = raised_by_anthropic(error_event(Protocol.MESSAGES, OURS))
        assert (anthropic.type, anthropic.api_message) == ("not_found_error", "No such model.")
        openai = raised_by_openai(error_event(Protocol.CHAT, OURS))
        assert (openai.message, openai.param, openai.code) == (OURS.message, OURS.param, OURS.code)

    def test_events_of_responses(self) -> None:
        (one,) = parse_events(error_event(Protocol.RESPONSES, OURS, sequence_number=7))
        read = ResponseErrorEvent.model_validate_json(one.data)
        assert one.name == "error"
        assert (read.message, read.code, read.sequence_number) == (OURS.message, OURS.code, 7)


class TestUpstream:
    @pytest.mark.parametrize(
        ("protocol", "body"),
        [
            (Protocol.CHAT, b'{"error": {"message": "x", "more": [1]}}'),
            (Protocol.RESPONSES, b'{"error": {"message": "x"}}'),
            (Protocol.MESSAGES, b'{"error": {"type": "t", "message": "x"}, "type": "error" }'),
        ],
    )
    def test_what_the_client_can_read_is_untouched(self, protocol: Protocol, body: bytes) -> None:
        assert reshape(protocol, 400, body) == body

    def test_openai_for_anthropic(self) -> None:
        body = reshaped(Protocol.MESSAGES, 401, OPENAI)
        assert body["error"] == {"type": "authentication_error", "message": "Bad key."}
        assert ErrorResponse.model_validate(body)

    def test_anthropic_for_openai(self) -> None:
        error = {"message": "Slow down.", "type": "rate_limit_error", "param": None, "code": None}
        assert reshaped(Protocol.CHAT, 429, ANTHROPIC) == {"error": error}
        detailed = {**ANTHROPIC["error"], "details": {"error_code": "spend_limit"}}
        coded = reshaped(Protocol.CHAT, 429, ANTHROPIC | {"error": detailed})
        assert coded["error"]["code"] == "spend_limit"

    @pytest.mark.parametrize(
        "value",
        [
            [{"error": {"code": 400, "message": "Wrong.", "status": "INVALID_ARGUMENT"}}],
            {"object": "error", "message": "Wrong.", "code": 400},
            {"detail": "Wrong."},
            {"error": "Wrong."},
        ],
    )
    @pytest.mark.parametrize("protocol", list(Protocol))
    def test_other_shapes(self, protocol: Protocol, value: Any) -> None:
        error = reshaped(protocol, 400, value)["error"]
        assert error["message"] == "Wrong."
        if protocol is Protocol.MESSAGES:
            assert error["type"] == "invalid_request_error"
        else:
            assert (error["type"], error["code"]) == ("upstream_error", "400")

    @pytest.mark.parametrize("body", [b"<html>", b"", b"5", b"[]", b"{}", b'{"error": null}'])
    @pytest.mark.parametrize("protocol", list(Protocol))
    def test_no_shape(self, protocol: Protocol, body: bytes) -> None:
        value = orjson.loads(reshape(protocol, 500, body))
        assert "500" in value["error"]["message"]
        if protocol is Protocol.MESSAGES:
            assert ErrorResponse.model_validate(value)

    def test_the_request_id_is_kept(self) -> None:
        broken = ANTHROPIC | {"error": {"message": "Slow down."}}
        assert reshaped(Protocol.MESSAGES, 429, broken)["request_id"] == "req_1"

    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            ({"message": "x", "code": 429}, "rate_limit_error"),
            ({"message": "x", "code": "529"}, "overloaded_error"),
            ({"message": "x", "type": "billing_error"}, "billing_error"),
            ({"message": "x", "type": "server_error", "code": "y"}, "api_error"),
            ({"message": "x", "code": 7}, "api_error"),
        ],
    )
    def test_events_without_a_status(self, error: dict[str, Any], kind: str) -> None:
        event = reshape_event(Protocol.MESSAGES, orjson.dumps({"error": error}))
        assert raised_by_anthropic(event).type == kind

    def test_events_for_openai(self) -> None:
        event = reshape_event(Protocol.CHAT, orjson.dumps(ANTHROPIC))
        assert raised_by_openai(event).message == "Slow down."

    def test_events_that_say_nothing(self) -> None:
        assert raised_by_openai(reshape_event(Protocol.CHAT, b"nonsense")).message
