"""Chat Completions through the server: routed and plain, whole and streamed."""

from __future__ import annotations

import orjson
import pytest
from openai import AsyncOpenAI, NotFoundError
from serving_fakes import KEY, Running

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


async def test_a_routed_request_is_answered_by_the_chosen_tasks_first_model(server: Running):
    response = await server.chat("coding please")
    assert response.status_code == 200
    assert response.json()["model"] == "code-1"
    assert response.json()["choices"][0]["message"]["content"] == "Hello, world!"
    headers = response.headers
    assert headers["x-model-router-selected-route"] == "coding"
    assert headers["x-pointsman-router"] == "work"
    assert headers["x-pointsman-model"] == "p/code-1"
    assert headers["x-pointsman-attempts"] == "p/code-1=200"
    assert 0.5 < float(headers["x-pointsman-confidence"]) <= 1
    assert float(headers["x-pointsman-decision-ms"]) >= 0
    assert len(headers["x-pointsman-trace-id"]) == 32
    assert "x-pointsman-fallback-reason" not in headers


async def test_each_turn_is_routed_by_itself(server: Running):
    messages = [{"role": "user", "content": "coding please"}]
    first = await server.chat(messages=messages)
    messages += [first.json()["choices"][0]["message"], {"role": "user", "content": "now writing"}]
    second = await server.chat(messages=messages)
    assert second.headers["x-model-router-selected-route"] == "writing"
    assert server.upstream.asked == ["code-1", "write-1"]


async def test_a_tool_loop_after_the_last_user_turn_keeps_the_route(server: Running):
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "writing"}}
    response = await server.chat(
        messages=[
            {"role": "user", "content": "coding please"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": "writing writing"},
        ]
    )
    assert response.headers["x-model-router-selected-route"] == "coding"
    assert server.engine.asked[0][1].turns[-1].role == "user"


async def test_no_matching_task_goes_to_the_fallbacks(server: Running):
    response = await server.chat("something else")
    assert response.json()["model"] == "fall-1"
    assert response.headers["x-model-router-selected-route"] == "none"
    assert response.headers["x-pointsman-fallback-reason"] == "no_task_matches"
    assert float(response.headers["x-pointsman-confidence"]) > 0.5


async def test_the_upstream_gets_the_clients_fields_and_only_those(server: Running):
    fields = {
        "temperature": 0.25,
        "tools": TOOLS,
        "seed": 7,
        "some_new_field": {"a": [None, True, "ß"]},
    }
    preferences = [{"name": "x", "description": "x.", "models": ["p/m"]}]
    await server.chat(
        "coding", **fields, routing_preferences=preferences, headers={"x-private": "1"}
    )
    body = server.upstream.requests[0]
    assert {key: body[key] for key in fields} == fields
    assert body["messages"] == [{"role": "user", "content": "coding"}]
    assert "routing_preferences" not in body
    assert "x-private" not in server.upstream.headers[0]
    assert server.upstream.paths == ["/v1/chat/completions"]


async def test_the_key_is_the_owners_never_the_clients(server: Running):
    await server.chat(headers={"authorization": "Bearer client-token", "cookie": "a=b"})
    sent = server.upstream.headers[0]
    assert sent["authorization"] == f"Bearer {KEY}"
    assert "cookie" not in sent


async def test_the_answers_bytes_are_relayed_as_they_are(server: Running):
    whole = await server.chat(model="p/any-model")
    assert b'"finish_reason":"stop"}],"usage"' in whole.content  # the fake's own spacing and order
    assert orjson.loads(whole.content)["model"] == "any-model"


@pytest.mark.parametrize(
    ("model", "asked"), [("p/some/model:free", "some/model:free"), ("named", "upstream-name")]
)
async def test_a_plain_model_is_asked_without_a_decision(server: Running, model: str, asked: str):
    response = await server.chat(model=model)
    assert response.status_code == 200
    assert server.upstream.asked == [asked]
    assert server.engine.asked == []
    assert response.headers["x-pointsman-model"] == model
    assert "x-model-router-selected-route" not in response.headers


async def test_a_stream_is_relayed_with_the_same_headers(server: Running):
    response = await server.chat("writing", stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-model-router-selected-route"] == "writing"
    assert response.headers["x-pointsman-attempts"] == "p/write-1=200"
    assert response.text.endswith("data: [DONE]\n\n")
    assert response.text.count("data: ") == 4


async def test_the_openai_sdk_works_unmodified(server: Running):
    client = AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0)
    async with client:
        messages = [{"role": "user", "content": "coding please"}]
        answer = await client.chat.completions.create(model="router:work", messages=messages)
        assert answer.choices[0].message.content == "Hello, world!"
        assert answer.model == "code-1"
        stream = await client.chat.completions.create(
            model="router:work", messages=messages, stream=True
        )
        pieces = [c.choices[0].delta.content or "" async for c in stream]
        assert "".join(pieces).strip() == "Hello, world!"
        names = [model.id async for model in client.models.list()]
        assert names[:2] == ["router:work", "named"]
        assert (await client.models.retrieve("router:work")).owned_by == "pointsman"
        with pytest.raises(NotFoundError) as caught:
            await client.chat.completions.create(model="router:nope", messages=messages)
        assert caught.value.code == "model_not_found"


async def test_models_lists_routers_listed_models_and_pools_that_are_on(server: Running):
    body = (await server.http.get("/v1/models")).json()
    assert body["object"] == "list"
    assert [entry["id"] for entry in body["data"]] == [
        "router:work",
        "named",
        "p/code-1",
        "p/code-2",
        "p/write-1",
        "p/fall-1",
        "p/fall-2",
    ]
    assert all(entry["object"] == "model" and entry["created"] > 0 for entry in body["data"])


async def test_inline_preferences_replace_the_routers_tasks(server: Running):
    preferences = [
        {"name": "poetry", "description": "Poems.", "models": ["p/poet"]},
        {"name": "prose", "description": "Prose.", "models": ["p/novelist"]},
    ]
    routed = await server.chat("poetry", routing_preferences=preferences)
    assert server.engine.asked[0][0] == ["poetry", "prose"]
    assert routed.headers["x-model-router-selected-route"] == "poetry"
    unmatched = await server.chat("coding", routing_preferences=preferences)
    plain = await server.chat("coding", model="p/mine", routing_preferences=preferences)
    assert unmatched.headers["x-pointsman-model"] == "p/fall-1"
    assert plain.headers["x-pointsman-model"] == "p/mine"
    assert server.upstream.asked == ["poet", "fall-1", "mine"]


async def test_a_half_megabyte_message_is_routed(server: Running):
    text = "coding " + "wörd " * 100_000
    response = await server.chat(text)
    assert len(text.encode()) > 500_000
    assert response.headers["x-model-router-selected-route"] == "coding"
    assert server.upstream.requests[0]["messages"][0]["content"] == text


async def test_the_clients_trace_id_is_kept_if_it_is_one(server: Running):
    sent = "0af7651916cd43dd8448eb211c80319c"
    good = await server.chat(headers={"traceparent": f"00-{sent}-b7ad6b7169203331-01"})
    bad = await server.chat(headers={"traceparent": "00-zzz-b7ad6b7169203331-01"})
    assert good.headers["x-pointsman-trace-id"] == sent
    assert bad.headers["x-pointsman-trace-id"] != "zzz"
