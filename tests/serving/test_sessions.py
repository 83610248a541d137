"""Conversations that keep their model, through HTTP and in the words of every protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from conversations import PATHS, REMINDER, Talk
from serving_fakes import Behaviour, FakeEngine, FakeUpstream, Running, config_for, serving, task

ALL = tuple(PATHS)
AFFINITY = "x-model-affinity"


@pytest.fixture
async def server(upstream: FakeUpstream, engine: FakeEngine) -> AsyncIterator[Running]:
    async with serving(config_for(upstream), engine, upstream) as running:
        yield running


async def say(
    server: Running, talk: Talk, *, affinity: str | None = None, **fields: Any
) -> httpx.Response:
    headers = {AFFINITY: affinity} if affinity else None
    answer = await server.http.post(talk.path, json={**talk.body(), **fields}, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


def told(answer: httpx.Response) -> tuple[str, str]:
    """The model that answered, and why."""
    headers = answer.headers
    return headers["x-pointsman-model"], headers["x-pointsman-session-reason"]


@pytest.mark.parametrize("protocol", ALL)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_tool_loop_keeps_its_model_without_asking_the_engine(
    server: Running, protocol: str, stream: bool
):
    talk = Talk(protocol, stream=stream).user("coding please")
    assert told(await say(server, talk)) == ("p/code-1", "new")
    for _ in range(3):
        talk.tool("Nothing about writing here.", reminder=True)
        answer = await say(server, talk)
        assert told(answer) == ("p/code-1", "same_turn")
        assert answer.headers["x-pointsman-pinned"] == "true"
        assert answer.headers["x-model-router-selected-route"] == "coding"
    assert len(server.engine.asked) == 1
    talk.assistant().user("writing now")
    answer = await say(server, talk)
    assert told(answer) == ("p/write-1", "other_task")
    assert answer.headers["x-pointsman-switched"] == "true"
    talk.tool()
    assert told(await say(server, talk)) == ("p/write-1", "same_turn")
    assert len(server.engine.asked) == 2


@pytest.mark.parametrize("protocol", ALL)
async def test_the_header_pins_for_the_whole_session(server: Running, protocol: str):
    talk = Talk(protocol).user("coding please")
    first = await say(server, talk, affinity="s-1")
    assert told(first) == ("p/code-1", "new")
    talk.assistant().user("writing now")
    answer = await say(server, talk, affinity="s-1")
    assert told(answer) == ("p/code-1", "affinity")
    assert answer.headers["x-pointsman-pinned"] == "true"
    assert answer.headers["x-pointsman-session"] == first.headers["x-pointsman-session"]
    other = await say(server, talk, affinity="s-2")
    assert told(other) == ("p/write-1", "new")
    assert other.headers["x-pointsman-session"] != first.headers["x-pointsman-session"]


async def test_a_pin_moves_to_the_model_that_answers_where_its_own_fails(
    server: Running, upstream: FakeUpstream
):
    talk = Talk("chat").user("coding please")
    await say(server, talk, affinity="s")
    upstream.models["code-1"] = Behaviour("error", 503)
    answer = await say(server, talk.tool(), affinity="s")
    assert told(answer) == ("p/code-2", "failover")
    assert answer.headers["x-pointsman-pinned"] == "false"
    assert answer.headers["x-pointsman-switched"] == "true"
    del upstream.models["code-1"]
    assert told(await say(server, talk.tool(), affinity="s")) == ("p/code-2", "affinity")


async def test_a_model_that_cannot_take_a_turn_is_left(upstream: FakeUpstream):
    models = {"blind": {"provider": "p", "model": "blind", "vision": False}}
    policies = [task("coding", "blind", "p/code-2"), task("writing", "p/write-1")]
    routers = [{"name": "work", "policies": policies, "fallback_models": ["p/fall-1"]}]
    config = config_for(upstream, models=models, routers=routers)
    async with serving(config, FakeEngine(), upstream) as server:
        talk = Talk("chat").user("coding please")
        assert told(await say(server, talk, affinity="s")) == ("blind", "new")
        talk.assistant().picture().user("coding, what is in it?")
        assert told(await say(server, talk, affinity="s")) == ("p/code-2", "unfit")
        assert told(await say(server, talk.tool(), affinity="s")) == ("p/code-2", "affinity")


@pytest.mark.parametrize("protocol", ALL)
async def test_a_picture_alone_is_a_turn_and_an_envelope_is_none(server: Running, protocol: str):
    talk = Talk(protocol).user("coding please")
    await say(server, talk)
    talk.assistant().user(REMINDER)
    assert told(await say(server, talk))[1] == "same_turn"
    talk.picture()
    asked = len(server.engine.asked)
    assert told(await say(server, talk))[1] != "same_turn"
    assert len(server.engine.asked) == asked + 1
    talk.assistant().picture()
    assert told(await say(server, talk))[1] != "same_turn"


async def test_envelopes_of_ones_own_are_no_turns(upstream: FakeUpstream):
    config = config_for(upstream, sessions={"envelopes": ["Memo"]})
    async with serving(config, FakeEngine(), upstream) as server:
        talk = Talk("chat").user("coding please")
        await say(server, talk)
        talk.assistant().user("<memo>writing</memo>")
        assert told(await say(server, talk)) == ("p/code-1", "same_turn")


async def test_conversations_that_begin_otherwise_are_other_sessions(server: Running):
    def talk(user: str = "coding please", system: str = "You are an agent.", **fields: Any) -> Talk:
        return Talk("chat", system, **fields).user(user).assistant().user("writing now")

    variants = [
        talk(),
        talk(system="You are another."),
        talk(user="coding, please"),
        talk(tools=[]),
        talk(model="router:work"),
    ]
    ids = [(await say(server, each)).headers["x-pointsman-session"] for each in variants]
    assert len(set(ids)) == 4
    assert ids[0] == ids[-1]


async def test_a_conversation_that_begins_anew_is_a_new_session(server: Running):
    talk = Talk("chat").user("coding please")
    await say(server, talk)
    await say(server, talk.tool())
    again = Talk("chat").user("coding please")
    assert told(await say(server, again)) == ("p/code-1", "new")


async def test_routing_every_request_is_a_routers_choice(upstream: FakeUpstream):
    router = config_for(upstream).routers[0].model_dump()
    routers = [router, {**router, "name": "every", "route_on_user_only": False}]
    async with serving(config_for(upstream, routers=routers), FakeEngine(), upstream) as server:
        talk = Talk("chat").user("coding please")
        await say(server, talk, model="router:every")
        answer = await say(server, talk.tool(), model="router:every")
        assert told(answer) == ("p/code-1", "first_choice")
        assert "x-pointsman-confidence" in answer.headers


async def test_sessions_can_be_left_to_the_header(upstream: FakeUpstream):
    config = config_for(upstream, sessions={"implicit": False})
    async with serving(config, FakeEngine(), upstream) as server:
        talk = Talk("chat").user("coding please")
        assert "x-pointsman-session" not in (await say(server, talk)).headers
        assert told(await say(server, talk, affinity="s")) == ("p/code-1", "new")


async def test_a_turn_that_was_not_routed_pins_nothing_for_long(
    server: Running, engine: FakeEngine
):
    script = engine.script
    engine.script = None  # type: ignore[assignment]
    talk = Talk("chat").user("coding please")
    assert told(await say(server, talk, affinity="s")) == ("p/fall-1", "new")
    engine.script = script
    assert told(await say(server, talk.tool(), affinity="s")) == ("p/fall-1", "same_turn")
    talk.assistant().user("writing now")
    assert told(await say(server, talk, affinity="s")) == ("p/write-1", "other_task")
    talk.assistant().user("coding again")
    assert told(await say(server, talk, affinity="s")) == ("p/write-1", "affinity")


async def test_a_session_stays_while_the_engine_is_down(server: Running, engine: FakeEngine):
    talk = Talk("chat").user("coding please")
    await say(server, talk)
    engine.script = None  # type: ignore[assignment]
    talk.assistant().user("writing now")
    assert told(await say(server, talk)) == ("p/code-1", "undecided")


@pytest.mark.parametrize("values", [["a" * 257], ["a", "b"]])
async def test_a_bad_name_of_a_session_is_refused(server: Running, values: list[str]):
    body = Talk("chat").user("coding please").body()
    headers = httpx.Headers([(AFFINITY, value) for value in values])
    answer = await server.http.post("/v1/chat/completions", json=body, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == AFFINITY
    assert AFFINITY in answer.json()["error"]["message"]
