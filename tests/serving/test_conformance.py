"""The official SDKs against the server, in each protocol, before upstreams of each protocol."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from anthropic import AsyncAnthropic
from anthropic import BadRequestError as AnthropicBadRequest
from anthropic import NotFoundError as AnthropicNotFound
from fake_upstream import Behaviour, FakeUpstream, data
from openai import AsyncOpenAI, NotFoundError
from serving_fakes import FakeEngine, Running, config_for, serving, task

PIXEL = base64.b64encode(b"\x89PNG not really").decode()
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CITY = {"city": "Oslo"}


@pytest.fixture(params=["p", "a"], ids=["openai-upstream", "anthropic-upstream"])
async def world(
    request: pytest.FixtureRequest, upstream: FakeUpstream
) -> AsyncIterator[tuple[Running, str]]:
    provider = str(request.param)
    routers = [
        {
            "name": "work",
            "policies": [task("coding", f"{provider}/m")],
            "fallback_models": [f"{provider}/m"],
        }
    ]
    async with serving(config_for(upstream, routers=routers), FakeEngine(), upstream) as server:
        yield server, provider


def tool_turn(provider: str) -> Behaviour:
    """The model asks for two tools at once; whole and streamed."""
    if provider == "a":
        calls = [
            {"type": "tool_use", "id": f"call_{n}", "name": "weather", "input": CITY}
            for n in (1, 2)
        ]
        usage = {"input_tokens": 5, "cache_read_input_tokens": 90, "output_tokens": 9}
        answer = {
            **{"id": "msg_1", "type": "message", "role": "assistant", "model": "m"},
            **{"content": calls, "stop_reason": "tool_use", "stop_sequence": None},
            "usage": usage,
        }
        events: list[dict[str, Any]] = [
            {"type": "message_start", "message": {**answer, "content": [], "stop_reason": None}}
        ]
        for index, call in enumerate(calls):
            block = {**call, "input": {}}
            events.append({"type": "content_block_start", "index": index, "content_block": block})
            for piece in ('{"city"', ': "Oslo"}'):
                delta = {"type": "input_json_delta", "partial_json": piece}
                events.append({"type": "content_block_delta", "index": index, "delta": delta})
            events.append({"type": "content_block_stop", "index": index})
        end = {"stop_reason": "tool_use", "stop_sequence": None}
        events.append({"type": "message_delta", "delta": end, "usage": {"output_tokens": 9}})
        events.append({"type": "message_stop"})
        return Behaviour(answer=answer, events=[data(e, e["type"]) for e in events])
    calls = [
        {
            "id": f"call_{n}",
            "type": "function",
            "function": {"name": "weather", "arguments": '{"city": "Oslo"}'},
        }
        for n in (1, 2)
    ]
    usage = {
        **{"prompt_tokens": 95, "completion_tokens": 9, "total_tokens": 104},
        "prompt_tokens_details": {"cached_tokens": 90},
    }
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    head = {"id": "c", "created": 1, "model": "m"}
    answer = {
        **head,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
        "usage": usage,
    }
    deltas: list[dict[str, Any]] = []
    for index, call in enumerate(calls):
        start = {**call, "index": index, "function": {"name": "weather", "arguments": ""}}
        deltas.append({"tool_calls": [start]} | ({} if index else {"role": "assistant"}))
        deltas += [
            {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}
            for piece in ('{"city"', ': "Oslo"}')
        ]
    head["object"] = "chat.completion.chunk"
    chunks = [
        {**head, "choices": [{"index": 0, "delta": d, "finish_reason": None}]} for d in deltas
    ]
    finish = {"index": 0, "delta": {}, "finish_reason": "tool_calls"}
    chunks += [{**head, "choices": [finish]}, {**head, "choices": [], "usage": usage}]
    return Behaviour(answer=answer, events=[*map(data, chunks), b"data: [DONE]\n\n"])


def openai_client(server: Running) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def anthropic_client(server: Running) -> AsyncAnthropic:
    return AsyncAnthropic(base_url=server.url, api_key="none", max_retries=0)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_agent_loop_with_tools_by_chat_completions(
    world: tuple[Running, str], stream: bool
):
    server, provider = world
    client = openai_client(server)
    tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": WEATHER}}]
    messages: list[Any] = [{"role": "user", "content": "coding: the weather?"}]
    server.upstream.models["m"] = tool_turn(provider)
    while len(messages) < 6:
        ask: dict[str, Any] = {"model": "router:work", "messages": messages, "tools": tools}
        if stream:
            ask["stream_options"] = {"include_usage": True}
            async with client.chat.completions.stream(**ask) as events:
                async for _ in events:
                    pass
                done = await events.get_final_completion()
        else:
            done = await client.chat.completions.create(**ask)
        choice = done.choices[0]
        messages.append(choice.message.model_dump(exclude_none=True, exclude={"parsed"}))
        if choice.finish_reason != "tool_calls":
            break
        assert done.usage is not None
        assert done.usage.prompt_tokens == 95
        assert done.usage.prompt_tokens_details is not None
        assert done.usage.prompt_tokens_details.cached_tokens == 90
        for call in choice.message.tool_calls or []:
            assert orjson.loads(call.function.arguments) == CITY
            messages.append({"role": "tool", "tool_call_id": call.id, "content": "rain"})
        server.upstream.models["m"] = Behaviour(text="Take a coat")
    assert "Take a coat" in messages[-1]["content"]
    last = server.upstream.requests[-1]["messages"]
    results = [b for m in last if m["role"] != "assistant" for b in results_in(m)]
    assert results == [("call_1", "rain"), ("call_2", "rain")]


def results_in(message: dict[str, Any]) -> list[tuple[str, Any]]:
    """Tool results of an upstream's message, whatever its protocol."""
    if message["role"] == "tool":
        return [(message["tool_call_id"], plain(message["content"]))]
    blocks = message["content"] if isinstance(message["content"], list) else []
    return [
        (b["tool_use_id"], plain(b["content"])) for b in blocks if b.get("type") == "tool_result"
    ]


def plain(content: Any) -> Any:
    return "".join(b["text"] for b in content) if isinstance(content, list) else content


@pytest.mark.parametrize("stream", [False, True])
async def test_an_agent_loop_with_tools_by_messages(world: tuple[Running, str], stream: bool):
    server, provider = world
    client = anthropic_client(server)
    tools: Any = [{"name": "weather", "description": "d", "input_schema": WEATHER}]
    messages: list[Any] = [{"role": "user", "content": "coding: the weather?"}]
    server.upstream.models["m"] = tool_turn(provider)
    while len(messages) < 6:
        ask: Any = {
            **{"model": "router:work", "max_tokens": 100, "messages": messages, "tools": tools},
            "system": "You are terse.",
        }
        if stream:
            async with client.messages.stream(**ask) as events:
                done = await events.get_final_message()
        else:
            done = await client.messages.create(**ask)
        messages.append({"role": "assistant", "content": [b.model_dump() for b in done.content]})
        if done.stop_reason != "tool_use":
            break
        assert done.usage.cache_read_input_tokens == 90
        assert done.usage.input_tokens == 5
        calls = [block for block in done.content if block.type == "tool_use"]
        assert [call.input for call in calls] == [CITY, CITY]
        results = [
            {"type": "tool_result", "tool_use_id": call.id, "content": "rain"} for call in calls
        ]
        messages.append({"role": "user", "content": results})
        server.upstream.models["m"] = Behaviour(text="Take a coat")
    assert done.stop_reason == "end_turn"
    assert "Take a coat" in messages[-1]["content"][0]["text"]
    last = server.upstream.requests[-1]["messages"]
    found = [b for m in last if m["role"] != "assistant" for b in results_in(m)]
    assert found == [("call_1", "rain"), ("call_2", "rain")]
    # The tool's result is no turn of the user's: both calls were decided by the same words.
    assert {asked[1].turns[-1].text for asked in server.engine.asked} == {"coding: the weather?"}


@pytest.mark.parametrize("stream", [False, True])
async def test_an_agent_loop_with_tools_by_responses(world: tuple[Running, str], stream: bool):
    server, provider = world
    client = openai_client(server)
    tools: Any = [{"type": "function", "name": "weather", "parameters": WEATHER, "strict": False}]
    items: list[Any] = [{"role": "user", "content": "coding: the weather?"}]
    server.upstream.models["m"] = tool_turn(provider)
    for _ in range(3):
        ask: Any = {"model": "router:work", "input": items, "tools": tools}
        if stream:
            async with client.responses.stream(**ask) as events:
                async for _event in events:
                    pass
                done = await events.get_final_response()
        else:
            done = await client.responses.create(**ask)
        calls = [item for item in done.output if item.type == "function_call"]
        if not calls:
            break
        assert done.usage is not None
        assert done.usage.input_tokens_details.cached_tokens == 90
        assert [orjson.loads(call.arguments) for call in calls] == [CITY, CITY]
        for call in calls:
            items.append(call.model_dump(exclude_none=True, exclude={"parsed_arguments"}))
        for call in calls:
            items.append(
                {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
            )
        server.upstream.models["m"] = Behaviour(text="Take a coat")
    assert "Take a coat" in done.output_text
    last = server.upstream.requests[-1]["messages"]
    found = [b for m in last if m["role"] != "assistant" for b in results_in(m)]
    assert found == [("call_1", "rain"), ("call_2", "rain")]


async def test_pictures_reach_the_upstream_in_its_own_words(world: tuple[Running, str]):
    server, provider = world
    url = f"data:image/png;base64,{PIXEL}"
    chat: Any = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "coding"},
                {"type": "image_url", "image_url": {"url": url}},
            ],
        }
    ]
    await openai_client(server).chat.completions.create(model="router:work", messages=chat)
    source: Any = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    blocks: Any = [{"type": "text", "text": "coding"}, {"type": "image", "source": source}]
    await anthropic_client(server).messages.create(
        model="router:work", max_tokens=9, messages=[{"role": "user", "content": blocks}]
    )
    parts: Any = [
        {"type": "input_text", "text": "coding"},
        {"type": "input_image", "image_url": url, "detail": "auto"},
    ]
    await openai_client(server).responses.create(
        model="router:work", input=[{"role": "user", "content": parts}]
    )
    for request in server.upstream.requests:
        content = request["messages"][-1]["content"]
        pictures = [part for part in content if part["type"] != "text"]
        if provider == "a":
            assert pictures == [{"type": "image", "source": source}]
        else:
            assert [p["image_url"]["url"] for p in pictures] == [url]


async def test_errors_are_those_of_the_sdk_that_asks(server: Running):
    with pytest.raises(NotFoundError) as chat:
        await openai_client(server).chat.completions.create(
            model="router:nope", messages=[{"role": "user", "content": "x"}]
        )
    assert chat.value.code == "model_not_found"
    with pytest.raises(AnthropicNotFound):
        await anthropic_client(server).messages.create(
            model="router:nope", max_tokens=9, messages=[{"role": "user", "content": "x"}]
        )
    bad: Any = [{"role": "user", "content": [{"type": "text"}]}]
    with pytest.raises(AnthropicBadRequest) as messages:
        await anthropic_client(server).messages.create(
            model="router:work", max_tokens=9, messages=bad
        )
    assert "messages[0].content[0].text" in str(messages.value)


async def test_the_same_protocol_in_and_out_relays_the_bytes(upstream: FakeUpstream):
    async with serving(config_for(upstream), FakeEngine(), upstream) as server:
        for path, model in (
            ("/v1/chat/completions", "p/m"),
            ("/v1/responses", "r/m"),
            ("/v1/messages", "a/m"),
        ):
            odd = {"unknown": {"kept": [1, 2.50]}, "id": "x", "usage": {"odd": True}}
            upstream.models["m"] = Behaviour(answer=odd, headers={"request-id": "req_1"})
            response = await server.ask(path, model=model, metadata={"user_id": "u"})
            assert response.content == orjson.dumps(odd)
            assert response.headers["request-id"] == "req_1"
            assert upstream.paths[-1] == path
            assert upstream.requests[-1]["metadata"] == {"user_id": "u"}


async def test_keys_go_where_each_protocol_wants_them(upstream: FakeUpstream):
    async with serving(config_for(upstream), FakeEngine(), upstream) as server:
        headers = {"anthropic-beta": "x-2026", "x-api-key": "client", "authorization": "Bearer c"}
        await server.ask("/v1/messages", model="a/m", headers=headers)
        await server.ask("/v1/messages", model="p/m", headers=headers)
    anthropic, openai = upstream.headers
    assert anthropic["x-api-key"].startswith("sk-owner")
    assert anthropic["anthropic-version"] == "2026-10-21"
    assert anthropic["anthropic-beta"] == "x-2026"
    assert "authorization" not in anthropic
    assert openai["authorization"].startswith("Bearer sk-owner")
    assert not {"x-api-key", "anthropic-beta", "anthropic-version"} & openai.keys()


async def test_embeddings_are_passed_on(server: Running):
    client = openai_client(server)
    found = await client.embeddings.create(
        model="p/embed", input=["coding"], encoding_format="float"
    )
    assert found.data[0].embedding == [0.1, 0.2]
    assert server.upstream.paths == ["/v1/embeddings"]
    for body, field in (
        ({"model": "router:work", "input": "x"}, "model"),
        ({"model": "p/m"}, "input"),
    ):
        refused = await server.http.post("/v1/embeddings", json=body)
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == field
    nowhere = await server.http.post("/v1/embeddings", json={"model": "a/m", "input": "x"})
    assert nowhere.status_code == 400


@pytest.mark.parametrize("path", ["chat/completions", "responses", "messages"])
async def test_each_protocol_has_a_decision_of_its_own(server: Running, path: str):
    response = await server.ask(f"/routing/v1/{path}")
    body = response.json()
    assert body["models"] == ["p/code-1", "p/code-2", "p/fall-1", "p/fall-2"]
    assert body["route"] == "coding"
    assert server.upstream.requests == []
