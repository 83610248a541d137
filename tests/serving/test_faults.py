"""Every way in which an upstream fails, by protocol of the client and of the upstream, whole and
streamed: what the client sees, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import orjson
import pytest
from serving_fakes import (
    BRIEF,
    Behaviour,
    FakeEngine,
    FakeUpstream,
    Running,
    config_for,
    serving,
    task,
)

PATHS = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
}
ENDS = {"chat": "[DONE]", "responses": "response.completed", "messages": "message_stop"}
CONTEXT = orjson.dumps(
    {"error": {"message": "maximum context length is 8 tokens", "code": "context_length_exceeded"}}
)
POLICY = orjson.dumps({"error": {"message": "no", "code": "content_filter"}})

# What fails before anything of an answer has come: label in the attempts, behaviour.
BEFORE = {
    "429": Behaviour("error", 429),
    "500": Behaviour("error", 500),
    "529": Behaviour("error", 529),
    "timeout": Behaviour("hang", after=0),
    "invalid": Behaviour("html"),
    "error": Behaviour("error_in_answer"),
    "context_length": Behaviour("error", 400, body=CONTEXT),
    "content_policy": Behaviour("error", 400, body=POLICY),
    "307": Behaviour("redirect"),
}
WHOLE_ONLY = {"invalid": Behaviour("bad_json"), "cut": Behaviour("cut")}
STREAM_ONLY = {
    "cut": Behaviour("comments"),
    "error": Behaviour("error_event"),
    "invalid": Behaviour("huge", after=99),
}
# What fails once the client has seen the beginning of a stream.
MIDWAY = {
    "cut": Behaviour("cut", text="one two three four", after=3),
    "timeout": Behaviour("hang", text="one two three four", after=3),
    "early_end": Behaviour("ended_early", text="one two three four", after=3),
    "error": Behaviour("error_midway", text="one two three four", after=3),
}
HANGING = pytest.mark.parametrize("hanging", [False, True], ids=["others", "hanging"])
"""Apart, so that the time limits that end what hangs cannot end something else."""


@pytest.fixture(params=["p", "a"], ids=["openai-upstream", "anthropic-upstream"])
def provider(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=list(PATHS))
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def config(upstream: FakeUpstream, provider: str, **update: Any) -> Any:
    routers = [
        {
            "name": "work",
            "policies": [task("coding", f"{provider}/bad", f"{provider}/good")],
            "fallback_models": ["p/last"],
        }
    ]
    return config_for(upstream, routers=routers, **update)


def some(faults: dict[str, Behaviour], hanging: bool) -> dict[str, Behaviour]:
    """Those that hang, or those that do not."""
    return {label: how for label, how in faults.items() if (how.kind == "hang") == hanging}


async def nothing_is_left(server: Running, tasks: int) -> None:
    """All tasks of requests have ended; what is still connected to the upstream is idle."""
    for _ in range(100):
        if len(asyncio.all_tasks()) <= tasks:
            break
        await asyncio.sleep(0.02)
    assert len(asyncio.all_tasks()) <= tasks
    gc.collect()
    session = server.app.state.gateway.failover.upstreams.session
    assert not session.connector._acquired


@HANGING
async def test_a_fault_before_the_answer_is_invisible(
    upstream: FakeUpstream, provider: str, protocol: str, hanging: bool
):
    update = {"breaker": {"failures": 1000}, "limits": BRIEF if hanging else {}}
    async with serving(config(upstream, provider, **update), FakeEngine(), upstream) as server:
        await server.ask(PATHS[protocol])
        tasks = len(asyncio.all_tasks())
        for stream, faults in ((False, BEFORE | WHOLE_ONLY), (True, BEFORE | STREAM_ONLY)):
            for label, behaviour in some(faults, hanging).items():
                upstream.models["bad"] = behaviour
                response = await server.ask(PATHS[protocol], stream=stream)
                seen = response.headers["x-pointsman-attempts"]
                assert response.status_code == 200, (label, response.text)
                assert seen == f"{provider}/bad={label}, {provider}/good=200"
                assert "Hello" in response.text
                assert not stream or ENDS[protocol] in response.text
        await nothing_is_left(server, tasks)


@HANGING
async def test_a_fault_midway_is_told_and_no_end_is_made_up(
    upstream: FakeUpstream, provider: str, protocol: str, hanging: bool
):
    limits = BRIEF if hanging else {}
    async with serving(config(upstream, provider, limits=limits), FakeEngine(), upstream) as server:
        await server.ask(PATHS[protocol], stream=True)
        tasks = len(asyncio.all_tasks())
        asked = len(upstream.asked)
        faults = some(MIDWAY, hanging)
        for label, behaviour in faults.items():
            upstream.models["bad"] = behaviour
            response = await server.ask(PATHS[protocol], stream=True)
            assert response.status_code == 200
            assert "one" in response.text, label
            assert ENDS[protocol] not in response.text, label
            assert "half an ev" not in response.text
            last = [line for line in response.text.split("\n\n") if line][-1]
            told = orjson.loads(last[last.index("data: ") + 6 :])
            told = told.get("response", told)  # Responses' own event of an answer that failed
            assert told.get("error") or told.get("type") == "error", (label, told)
            if protocol != "chat" and label != "error":
                assert last.startswith("event: error"), label
        assert len(upstream.asked) == asked + len(faults)  # none was tried elsewhere
        await nothing_is_left(server, tasks)


async def test_a_slow_drip_is_waited_for(upstream: FakeUpstream, provider: str, protocol: str):
    upstream.models["bad"] = Behaviour("drip")
    async with serving(config(upstream, provider), FakeEngine(), upstream) as server:
        for stream in (False, True):
            response = await server.ask(PATHS[protocol], stream=stream)
            assert response.headers["x-pointsman-attempts"] == f"{provider}/bad=200"
            assert "Hello" in response.text


async def test_an_answer_beyond_the_cap_is_not_held(upstream: FakeUpstream, protocol: str):
    upstream.models["bad"] = Behaviour("huge")
    limits = {"answer_bytes": 2**20}
    async with serving(config(upstream, "p", limits=limits), FakeEngine(), upstream) as server:
        response = await server.ask(PATHS[protocol])
    assert response.headers["x-pointsman-attempts"] == "p/bad=invalid, p/good=200"


async def test_if_all_fail_the_error_has_the_clients_shape(
    upstream: FakeUpstream, provider: str, protocol: str
):
    for model in ("bad", "good", "last"):
        upstream.models[model] = Behaviour("error", 503, {"retry-after": "3"})
    async with serving(config(upstream, provider), FakeEngine(), upstream) as server:
        for stream in (False, True):
            upstream.requests.clear()
            response = await server.ask(PATHS[protocol], stream=stream)
            body = response.json()
            assert response.headers["retry-after"] == "3"
            if protocol == "messages":
                assert body["type"] == "error"
                assert set(body["error"]) == {"type", "message"}
            else:
                assert set(body["error"]) == {"message", "type", "param", "code"}
            assert response.status_code == (429 if stream else 503)
    assert upstream.requests == []  # they had asked to be left alone


async def test_a_client_that_leaves_is_followed_to_the_upstream(
    upstream: FakeUpstream, provider: str, protocol: str
):
    async with serving(config(upstream, provider), FakeEngine(), upstream) as server:
        await server.ask(PATHS[protocol])
        tasks = len(asyncio.all_tasks())
        for stream, after in ((False, 0), (True, 0), (True, 3)):
            upstream.models["bad"] = Behaviour("hang", after=after, text="one two three")
            upstream.dropped.clear()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await server.ask(PATHS[protocol], stream=stream)
            await asyncio.wait_for(upstream.dropped.wait(), 5)
        await nothing_is_left(server, tasks)


async def test_a_dead_primary_is_soon_left_alone(upstream: FakeUpstream):
    upstream.models["bad"] = Behaviour("error", 500)
    async with serving(config(upstream, "p"), FakeEngine(), upstream) as server:
        for _ in range(10):
            response = await server.chat("coding please")
            assert response.status_code == 200
    assert upstream.asked.count("bad") == 3
    assert upstream.asked.count("good") == 10
    assert response.headers["x-pointsman-attempts"] == "p/bad=open, p/good=200"


async def test_where_nothing_else_is_left_a_dead_model_is_asked_still(upstream: FakeUpstream):
    upstream.models["only"] = Behaviour("error", 500)
    async with serving(config(upstream, "p"), FakeEngine(), upstream) as server:
        for _ in range(5):
            assert (await server.chat(model="p/only")).status_code == 500
        upstream.models["only"] = Behaviour()
        assert (await server.chat(model="p/only")).status_code == 200
        assert (await server.chat(model="p/only")).status_code == 200
    assert upstream.asked.count("only") == 7


async def test_a_model_that_cools_is_not_asked_and_the_client_learns_when(upstream: FakeUpstream):
    upstream.models["only"] = Behaviour("error", 429, {"retry-after": "30"})
    async with serving(config(upstream, "p"), FakeEngine(), upstream) as server:
        first = await server.chat(model="p/only")
        second = await server.chat(model="p/only")
    assert first.status_code == second.status_code == 429
    assert first.headers["retry-after"] == "30"
    assert 25 <= int(second.headers["retry-after"]) <= 30
    assert second.headers["x-pointsman-attempts"] == "p/only=cooling"
    assert upstream.asked == ["only"]


async def test_what_only_a_responses_upstream_can_do_is_refused_or_sent_to_one(
    upstream: FakeUpstream,
):
    async with serving(config(upstream, "p"), FakeEngine(), upstream) as server:
        refused = await server.ask("/v1/responses", model="p/m", previous_response_id="resp_9")
        sent = await server.ask("/v1/responses", model="r/m", previous_response_id="resp_9")
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "previous_response_id"
    assert sent.status_code == 200
    assert upstream.paths == ["/v1/responses"]
    assert upstream.requests[0]["previous_response_id"] == "resp_9"
