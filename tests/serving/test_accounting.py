"""What answers used and cost: exact, for streams too, and hidden from whom did not ask."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from fake_upstream import Behaviour, FakeUpstream, data
from serving_fakes import FakeEngine, Running, config_for, serving
from test_metrics import scrape

PRICES = {
    name: {
        "provider": provider,
        "model": "m",
        "price": {"input": 1.0, "output": 10.0, "cached_input": 0.1, "cache_write": 1.25},
    }
    for name, provider in (("chat-model", "p"), ("claude", "a"), ("both", "r"))
}
CACHED = {
    "prompt_tokens": 1000,
    "completion_tokens": 100,
    "total_tokens": 1100,
    "prompt_tokens_details": {"cached_tokens": 900},
}
COST = (100 * 1.0 + 900 * 0.1 + 100 * 10.0) / 1e6


async def settled(server: Running, count: int) -> dict[str, float]:
    """The metrics once so many answers have been counted."""
    for _ in range(200):
        found = await scrape(server)
        if sum(v for k, v in found.items() if k.startswith("pointsman_attempts_total")) >= count:
            return found
        await asyncio.sleep(0.01)
    raise TimeoutError(found)


def chunks(*, usage_with_choices: bool = False) -> list[bytes]:
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    said = {"index": 0, "delta": {"role": "assistant", "content": "Hi"}, "finish_reason": None}
    end = {"index": 0, "delta": {}, "finish_reason": "stop"}
    first = data({**head, "choices": [said], "usage": None})
    if usage_with_choices:
        return [first, data({**head, "choices": [end], "usage": CACHED}), b"data: [DONE]\n\n"]
    last = data({**head, "choices": [], "usage": CACHED})
    return [first, data({**head, "choices": [end], "usage": None}), last, b"data: [DONE]\n\n"]


@pytest.mark.parametrize("with_choices", [False, True])
async def test_a_streams_usage_is_asked_for_counted_and_hidden(
    upstream: FakeUpstream, with_choices: bool
):
    upstream.models["m"] = Behaviour(events=chunks(usage_with_choices=with_choices))
    config = config_for(upstream, models=PRICES)
    async with serving(config, FakeEngine(), upstream) as server:
        response = await server.chat(model="chat-model", stream=True)
        found = await settled(server, 1)
    assert upstream.requests[0]["stream_options"] == {"include_usage": True}
    events = [line for line in response.text.split("\n\n") if line]
    parsed = [orjson.loads(e.removeprefix("data: ")) for e in events if "[DONE]" not in e]
    assert all(not chunk.get("usage") and chunk["choices"] for chunk in parsed)
    assert [c["choices"][0]["finish_reason"] for c in parsed] == [None, "stop"]
    assert events[-1] == "data: [DONE]"
    assert found["pointsman_tokens_total[input][chat-model]"] == 100
    assert found["pointsman_tokens_total[cached][chat-model]"] == 900
    assert found["pointsman_tokens_total[output][chat-model]"] == 100
    assert found["pointsman_cost_dollars_total[chat-model]"] == pytest.approx(COST, rel=1e-12)


async def test_a_client_that_asks_for_usage_gets_the_bytes_as_they_are(upstream: FakeUpstream):
    upstream.models["m"] = Behaviour(events=chunks())
    async with serving(config_for(upstream), FakeEngine(), upstream) as server:
        response = await server.chat(
            model="p/m", stream=True, stream_options={"include_usage": True, "odd": 1}
        )
    assert response.content == b"".join(chunks())
    assert upstream.requests[0]["stream_options"] == {"include_usage": True, "odd": 1}


async def test_a_provider_that_knows_no_stream_options_is_not_sent_any(upstream: FakeUpstream):
    providers = {"old": {"base_url": upstream.url, "stream_usage": False}}
    async with serving(config_for(upstream, providers=providers), FakeEngine(), upstream) as server:
        await server.chat(model="old/m", stream=True)
        found = await settled(server, 1)
    assert "stream_options" not in upstream.requests[0]
    assert found["pointsman_unaccounted_answers_total[usage][old/m]"] == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_anthropics_cached_tokens_are_counted_beside_the_others(
    upstream: FakeUpstream, stream: bool
):
    usage = {
        "input_tokens": 100,
        "cache_read_input_tokens": 900,
        "cache_creation_input_tokens": 200,
        "output_tokens": 7,
    }
    message: dict[str, Any] = {
        **{"id": "msg_1", "type": "message", "role": "assistant", "model": "m"},
        **{"content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn"},
        **{"stop_sequence": None, "usage": usage},
    }
    begun = {**usage, "output_tokens": 1}
    started = {**message, "content": [], "stop_reason": None, "usage": begun}
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": started},
        {"type": "message_delta", "delta": end, "usage": {"output_tokens": 7}},
        {"type": "message_stop"},
    ]
    upstream.models["m"] = Behaviour(answer=message, events=[data(e, e["type"]) for e in events])
    async with serving(config_for(upstream, models=PRICES), FakeEngine(), upstream) as server:
        for path in ("/v1/messages", "/v1/chat/completions", "/v1/responses"):
            await server.ask(path, model="claude", stream=stream)
        found = await settled(server, 3)
    cost = (100 * 1.0 + 900 * 0.1 + 200 * 1.25 + 7 * 10) / 1e6
    assert found["pointsman_tokens_total[input][claude]"] == 300
    assert found["pointsman_tokens_total[cached][claude]"] == 2700
    assert found["pointsman_tokens_total[cache_write][claude]"] == 600
    assert found["pointsman_tokens_total[output][claude]"] == 21
    assert found["pointsman_cost_dollars_total[claude]"] == pytest.approx(3 * cost, rel=1e-9)


async def test_a_whole_answers_cost_is_in_its_header(upstream: FakeUpstream):
    async with serving(config_for(upstream, models=PRICES), FakeEngine(), upstream) as server:
        for model in ("chat-model", "claude", "both"):
            for path in ("/v1/chat/completions", "/v1/responses", "/v1/messages"):
                response = await server.ask(path, model=model)
                assert float(response.headers["x-pointsman-cost"]) == (11 + 7 * 10) / 1e6
        unknown = await server.chat(model="p/no-price")
        found = await settled(server, 10)
    assert "x-pointsman-cost" not in unknown.headers
    assert found["pointsman_unaccounted_answers_total[price][p/no-price]"] == 1
    assert found["pointsman_tokens_total[input][p/no-price]"] == 11


async def test_failed_attempts_are_counted_apart(server: Running):
    server.upstream.models["code-1"] = Behaviour("error", 500)
    for _ in range(2):
        await server.chat("coding please")
    found = await settled(server, 4)
    assert found["pointsman_attempts_total[p/code-1][500]"] == 2
    assert found["pointsman_attempts_total[p/code-2][200]"] == 2
    assert not [
        name for name in found if name.startswith("pointsman_tokens_total") and "p/code-1" in name
    ]


async def test_a_stream_that_breaks_off_counts_what_had_been_told(upstream: FakeUpstream):
    upstream.models["m"] = Behaviour("cut", text="one two three four", after=4)
    async with serving(config_for(upstream, models=PRICES), FakeEngine(), upstream) as server:
        await server.ask("/v1/messages", model="claude", stream=True)
        await server.chat(model="chat-model", stream=True)
        found = await settled(server, 2)
    assert found["pointsman_broken_streams_total[cut]"] == 2
    assert found["pointsman_tokens_total[input][claude]"] == 11
    assert found["pointsman_unaccounted_answers_total[usage][chat-model]"] == 1


async def test_names_that_clients_make_up_do_not_become_labels_for_ever(server: Running):
    for number in range(220):
        await server.chat(model=f"p/made-up-{number}")
    found = await settled(server, 220)
    names = {k.split("[")[1] for k in found if k.startswith("pointsman_attempts_total")}
    assert len(names) == 201
    assert found["pointsman_attempts_total[other][200]"] == 20
