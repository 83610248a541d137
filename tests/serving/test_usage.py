"""Usage as three protocols tell it, refusals as providers word them, and the memo of decisions."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.conversation import Conversation, Turn
from routing.decision import Decision
from routing.tasks import Route
from serving.memo import DecisionMemo
from serving.protocols.base import Protocol
from serving.refusals import refusal_of
from serving.usage import Usage, UsageMeter, usage_of

CHAT = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "prompt_tokens_details": {"cached_tokens": 60},
    "completion_tokens_details": {"reasoning_tokens": 5},
}
RESPONSES = {
    "input_tokens": 100,
    "output_tokens": 20,
    "input_tokens_details": {"cached_tokens": 60},
    "output_tokens_details": {"reasoning_tokens": 5},
}
MESSAGES = {
    "input_tokens": 30,
    "output_tokens": 20,
    "cache_read_input_tokens": 60,
    "cache_creation_input_tokens": 10,
}


def test_the_whole_prompt_is_counted_in_every_protocol():
    told = Usage(100, 20, cached_tokens=60, reasoning_tokens=5)
    assert usage_of(Protocol.CHAT, {"usage": CHAT}) == told
    assert usage_of(Protocol.RESPONSES, {"usage": RESPONSES}) == told
    anthropic = usage_of(Protocol.MESSAGES, {"usage": MESSAGES})
    assert anthropic == Usage(100, 20, cached_tokens=60, cache_write_tokens=10)


def test_embeddings_tell_a_prompt_alone():
    told = usage_of(Protocol.CHAT, {"usage": {"prompt_tokens": 8, "total_tokens": 8}})
    assert told == Usage(8, 0)


@pytest.mark.parametrize("usage", [None, [], "7", 7])
def test_an_answer_that_tells_none_has_none(usage: object):
    assert usage_of(Protocol.CHAT, {"usage": usage}) is None
    assert usage_of(Protocol.CHAT, []) is None


def test_numbers_that_make_no_sense_count_as_nothing():
    usage = {"prompt_tokens": -5, "completion_tokens": "20", "prompt_tokens_details": 3}
    assert usage_of(Protocol.CHAT, {"usage": usage}) == Usage()


def data(value: object, name: str | None = None) -> bytes:
    lead = f"event: {name}\n".encode() if name else b""
    return lead + b"data: " + orjson.dumps(value) + b"\n\n"


def test_the_meter_reads_chat_streams_whose_chunks_say_null_until_the_last():
    meter = UsageMeter(Protocol.CHAT)
    meter.read(data({"choices": [{}], "usage": None}))
    assert meter.usage is None
    meter.read(data({"choices": [], "usage": CHAT}) + b"data: [DONE]\n\n")
    assert meter.usage == Usage(100, 20, cached_tokens=60, reasoning_tokens=5)


def test_the_meter_reads_the_end_of_a_responses_stream():
    meter = UsageMeter(Protocol.RESPONSES)
    meter.read(data({"type": "response.created", "response": {"usage": None}}))
    meter.read(data({"type": "response.completed", "response": {"usage": RESPONSES}}))
    assert meter.usage == Usage(100, 20, cached_tokens=60, reasoning_tokens=5)


def test_the_meter_joins_the_two_ends_of_a_messages_stream():
    meter = UsageMeter(Protocol.MESSAGES)
    start = {**MESSAGES, "output_tokens": 1}
    meter.read(data({"type": "message_start", "message": {"usage": start}}))
    assert meter.usage == Usage(100, 1, cached_tokens=60, cache_write_tokens=10)
    meter.read(data({"type": "message_delta", "usage": {"output_tokens": 20}}))
    assert meter.usage == Usage(100, 20, cached_tokens=60, cache_write_tokens=10)
    meter.read(data({"type": "message_delta", "usage": {**MESSAGES, "output_tokens": 25}}))
    assert meter.usage == Usage(100, 25, cached_tokens=60, cache_write_tokens=10)


@given(st.binary(max_size=60))
def test_the_meter_takes_any_bytes(noise: bytes):
    for protocol in Protocol:
        meter = UsageMeter(protocol)
        meter.read(b'data: {"usage"' + noise + b"\n\n")
        assert meter.usage is None or isinstance(meter.usage, Usage)


@pytest.mark.parametrize(
    ("status", "error", "reason"),
    [
        (400, {"code": "context_length_exceeded", "message": "x"}, "context_length"),
        (
            400,
            {"message": "This model's maximum context length is 8192 tokens."},
            "context_length",
        ),
        (
            400,
            {"type": "invalid_request_error", "message": "prompt is too long: 9 > 8 maximum"},
            "context_length",
        ),
        (413, {"type": "request_too_large", "message": "Request too large"}, "context_length"),
        (
            400,
            {"message": "The input token count (9) exceeds the maximum number of tokens allowed"},
            "context_length",
        ),
        (400, {"code": "content_filter", "message": "x"}, "content_policy"),
        (
            400,
            {"code": None, "innererror": {"code": "ResponsibleAIPolicyViolation"}},
            "content_policy",
        ),
        (400, {"message": "rejected by our safety system"}, "content_policy"),
        (400, {"message": "temperature must be below 2", "param": "temperature"}, None),
        (400, {"message": "max_tokens must be at least 1"}, None),
        (429, {"message": "maximum context length"}, None),
    ],
)
def test_refusals_by_code_or_by_words(status: int, error: dict[str, object], reason: str | None):
    assert refusal_of(status, orjson.dumps({"error": error})) == reason


def test_a_413_without_words_is_about_length():
    assert refusal_of(413, b"<html>") == "context_length"
    assert refusal_of(400, b"<html>") is None
    assert refusal_of(400, b"[1]") is None


ROUTES = [Route(name="a", description="A."), Route(name="b", description="B.")]
DECISION = Decision(route="a", routes=["a"], confidence=0.9, distribution={"a": 0.9, "none": 0.1})


def said(*texts: str) -> Conversation:
    return Conversation(tuple(Turn("user", text, i) for i, text in enumerate(texts)))


def test_the_memo_forgets_the_least_recently_used():
    memo = DecisionMemo(2)
    keys = [memo.key("v", ROUTES, said(text)) for text in ("x", "y", "z")]
    memo.put(keys[0], DECISION)
    memo.put(keys[1], DECISION)
    assert memo.get(keys[0]) is DECISION
    memo.put(keys[2], DECISION)
    assert memo.get(keys[1]) is None
    assert memo.get(keys[0]) is DECISION
    assert len(memo) == 2


def test_a_memo_of_size_0_remembers_nothing():
    memo = DecisionMemo(0)
    memo.put(b"k", DECISION)
    assert memo.get(b"k") is None


def test_the_key_depends_on_all_that_a_decision_depends_on():
    memo = DecisionMemo(1)
    first = memo.key("v", ROUTES, said("x", "y"))
    assert first == memo.key("v", list(ROUTES), said("x", "y"))
    others = [
        memo.key("w", ROUTES, said("x", "y")),
        memo.key("v", ROUTES[::-1], said("x", "y")),
        memo.key("v", ROUTES[:1], said("x", "y")),
        memo.key("v", ROUTES, said("xy")),
        memo.key("v", ROUTES, said("x", "y", "")),
        memo.key("v", ROUTES, Conversation((Turn("user", "x", 0), Turn("tool", "y", 1)))),
    ]
    assert len({first, *others}) == 7


@given(st.lists(st.text(max_size=5), max_size=3), st.lists(st.text(max_size=5), max_size=3))
def test_two_conversations_share_a_key_only_if_they_are_equal(one: list[str], two: list[str]):
    memo = DecisionMemo(1)
    same = memo.key("v", ROUTES, said(*one)) == memo.key("v", ROUTES, said(*two))
    assert same == (one == two)


def test_a_count_that_no_model_can_have_read_is_none():
    told = {"usage": {"prompt_tokens": 2**63, "completion_tokens": 7}}
    assert usage_of(Protocol.CHAT, told) == Usage(0, 7)
