"""Upstreams that fail: the next candidate answers, each is asked once, errors are told as such."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import orjson
import pytest
from serving_fakes import (
    BRIEF,
    KEY,
    Behaviour,
    FakeEngine,
    FakeUpstream,
    Running,
    config_for,
    serving,
    task,
)

FAULTS = {
    "429": Behaviour("error", 429),
    "408": Behaviour("error", 408),
    "409": Behaviour("error", 409),
    "425": Behaviour("error", 425),
    "401": Behaviour("error", 401),
    "403": Behaviour("error", 403),
    "404": Behaviour("error", 404),
    "500": Behaviour("error", 500),
    "503": Behaviour("error", 503),
    "307": Behaviour("redirect"),
    "timeout": Behaviour("hang", after=0),
    "invalid": Behaviour("html"),
    "error": Behaviour("error_in_answer"),
}


@pytest.fixture
async def brief(upstream: FakeUpstream) -> AsyncIterator[Running]:
    """A server that waits for nothing that hangs."""
    async with serving(config_for(upstream, limits=BRIEF), FakeEngine(), upstream) as running:
        yield running


@pytest.mark.parametrize("label", FAULTS)
async def test_the_next_model_answers(upstream: FakeUpstream, label: str):
    upstream.models["code-1"] = FAULTS[label]
    config = config_for(upstream, limits=BRIEF if label == "timeout" else {})
    async with serving(config, FakeEngine(), upstream) as server:
        for stream in (False, True):
            response = await server.chat("coding please", stream=stream)
            assert response.status_code == 200
            assert "Hello" in response.text
            assert response.headers["x-pointsman-model"] == "p/code-2"
            assert response.headers["x-pointsman-attempts"] == f"p/code-1={label}, p/code-2=200"
    assert upstream.asked == ["code-1", "code-2"] * 2


async def test_faults_before_the_first_event_fall_over(server: Running):
    server.upstream.models["code-1"] = Behaviour("error_event")
    server.upstream.models["code-2"] = Behaviour("comments")
    server.upstream.models["fall-1"] = Behaviour("cut", after=0)
    response = await server.chat("coding please", stream=True)
    assert response.headers["x-pointsman-attempts"] == (
        "p/code-1=error, p/code-2=cut, p/fall-1=cut, p/fall-2=200"
    )
    assert response.text.endswith("data: [DONE]\n\n")
    assert "overloaded" not in response.text


async def test_a_whole_answer_that_breaks_off_falls_over(server: Running):
    server.upstream.models["code-1"] = Behaviour("cut")
    response = await server.chat("coding please")
    assert response.json()["model"] == "code-2"
    assert response.headers["x-pointsman-attempts"].startswith("p/code-1=cut")


async def test_a_refused_connection_falls_over_and_a_model_in_pool_and_fallbacks_is_asked_once(
    upstream: FakeUpstream,
):
    routers = [
        {
            "name": "work",
            "policies": [task("coding", "down/a", "p/bad")],
            "fallback_models": ["p/bad", "off/x", "p/good"],
        }
    ]
    upstream.models["bad"] = Behaviour("error", 500)
    async with serving(config_for(upstream, routers=routers), FakeEngine(), upstream) as server:
        response = await server.chat("coding please")
    assert response.headers["x-pointsman-attempts"] == "down/a=connection, p/bad=500, p/good=200"
    assert upstream.asked == ["bad", "good"]


async def test_a_clients_own_mistake_is_relayed_and_not_tried_elsewhere(server: Running):
    body = orjson.dumps(
        {"error": {"message": "bad temperature", "type": "t", "param": "temperature", "code": None}}
    )
    server.upstream.models["code-1"] = Behaviour("error", 400, body=body)
    response = await server.chat("coding please", temperature="hot")
    assert response.status_code == 400
    assert response.content == body
    assert server.upstream.asked == ["code-1"]
    assert response.headers["x-model-router-selected-route"] == "coding"
    assert response.headers["x-pointsman-attempts"] == "p/code-1=400"


@pytest.mark.parametrize("stream", [False, True])
async def test_if_all_fail_the_last_upstreams_error_is_told(server: Running, stream: bool):
    for model in ("code-1", "code-2", "fall-1"):
        server.upstream.models[model] = Behaviour("error", 500)
    server.upstream.models["fall-2"] = Behaviour("error", 429, {"retry-after": "7"})
    response = await server.chat("coding please", stream=stream)
    assert response.status_code == 429
    assert response.headers["retry-after"] == "7"
    assert response.json()["error"]["message"] == "scripted"
    assert response.headers["x-model-router-selected-route"] == "coding"
    assert response.headers["x-pointsman-model"] == "p/fall-2"
    assert len(server.upstream.asked) == 4


async def test_an_upstreams_page_becomes_an_error_in_openais_shape(server: Running):
    server.upstream.models["m"] = Behaviour(
        "error", 503, {"content-type": "text/html"}, body=b"<html>down</html>"
    )
    response = await server.chat(model="p/m")
    assert response.status_code == 503
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert "html" not in response.text


@pytest.mark.parametrize(
    ("behaviour", "status"),
    [(Behaviour("hang", after=0), 504), (Behaviour("html"), 502), (Behaviour("error", 401), 502)],
)
async def test_without_an_upstream_error_fit_to_tell_the_server_gives_its_own(
    brief: Running, behaviour: Behaviour, status: int
):
    brief.upstream.models["m"] = behaviour
    response = await brief.chat(model="p/m")
    assert response.status_code == status
    assert response.json()["error"]["type"] == "upstream_error"


async def test_a_key_in_an_upstreams_error_does_not_reach_the_client(server: Running):
    body = orjson.dumps({"error": {"message": f"key {KEY} is over quota", "code": "quota"}})
    for status in (401, 429, 400):
        server.upstream.models["m"] = Behaviour("error", status, body=body)
        response = await server.chat(model="p/m")
        assert KEY not in response.text
        assert KEY not in str(response.headers)


@pytest.mark.parametrize("kind", ["cut", "hang"])
async def test_a_stream_that_breaks_ends_with_an_error_and_no_done(brief: Running, kind: str):
    brief.upstream.models["code-1"] = Behaviour(kind, text="one two three", after=2)
    response = await brief.chat("coding please", stream=True)
    events = [line for line in response.text.split("\n\n") if line]
    assert response.status_code == 200
    assert "[DONE]" not in response.text
    assert "half an ev" not in response.text
    assert [orjson.loads(event.removeprefix("data: ")) for event in events]  # each is whole
    error = orjson.loads(events[-1].removeprefix("data: "))["error"]
    assert error["type"] == "upstream_error"
    assert len(events) == 3
    assert brief.upstream.asked == ["code-1"]


async def test_the_whole_requests_time_limit_bounds_all_attempts(upstream: FakeUpstream):
    for model in ("code-1", "code-2", "fall-1", "fall-2"):
        upstream.models[model] = Behaviour("hang", after=0)
    limits = {"first_byte_s": 0.3, "total_s": 0.5}
    async with serving(config_for(upstream, limits=limits), FakeEngine(), upstream) as server:
        response = await server.chat("coding please")
    assert response.status_code == 504
    assert upstream.asked == ["code-1", "code-2"]
    assert response.headers["x-pointsman-attempts"] == "p/code-1=timeout, p/code-2=timeout"


@pytest.mark.parametrize(("stream", "after"), [(False, 0), (True, 0), (True, 2)])
async def test_a_client_that_leaves_takes_the_upstream_call_with_it(
    upstream: FakeUpstream, stream: bool, after: int
):
    upstream.models["code-1"] = Behaviour("hang", after=after)
    async with serving(config_for(upstream), FakeEngine(), upstream) as server:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await server.chat("coding please", stream=stream)
        await asyncio.wait_for(upstream.dropped.wait(), 5)
    assert upstream.asked == ["code-1"]


async def test_without_any_model_switched_on_the_error_says_so(upstream: FakeUpstream):
    routers = [
        {"name": "work", "policies": [task("coding", "off/a")], "fallback_models": ["off/b"]}
    ]
    async with serving(config_for(upstream, routers=routers), FakeEngine(), upstream) as server:
        response = await server.chat("coding please")
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "no_model_available"
    assert response.headers["x-model-router-selected-route"] == "coding"


async def test_stand_ins_answer_only_where_nothing_else_is_on(upstream: FakeUpstream):
    routers = [
        {
            "name": "work",
            "policies": [task("coding", "off/a"), task("writing", "off/b")],
            "fallback_models": ["off/c"],
        },
        {"name": "paid", "policies": [task("coding", "off/a")], "fallback_models": ["p/real"]},
    ]
    stand_ins = {"default": "p/small", "tasks": {"coding": "p/small-precise"}}
    config = config_for(upstream, routers=routers, stand_ins=stand_ins)
    async with serving(config, FakeEngine(), upstream) as server:
        for model, text in [
            ("router:work", "coding"),
            ("router:work", "writing"),
            ("router:work", "neither"),
            ("router:paid", "coding"),
        ]:
            await server.chat(text, model=model)
        alone = (await server.decision({"model": "router:work"})).json()
    assert upstream.asked == ["small-precise", "small", "small", "real"]
    assert alone["models"] == ["p/small-precise", "p/small"]
