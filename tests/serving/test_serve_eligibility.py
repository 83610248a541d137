"""Requests that not every model can take, through the server."""

from __future__ import annotations

from typing import Any

import pytest
from serving_fakes import FakeEngine, FakeUpstream, Running, config_for, serving, task

from serving.app import create_app
from serving.config import ServerConfig
from serving.errors import ApiError
from serving.needs import Need
from serving.protocols.base import Protocol
from serving.requests import parse

IMAGE = {
    "role": "user",
    "content": [
        {"type": "text", "text": "coding: what is wrong in this screenshot?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
    ],
}
MODELS: dict[str, Any] = {
    "blind": {"provider": "p", "model": "blind", "vision": False},
    "small": {"provider": "p", "model": "small", "context_tokens": 50},
    "seeing": {"provider": "p", "model": "seeing", "vision": True},
    "abroad": {"provider": "p", "model": "abroad", "tags": {"region": "us"}},
    "here": {"provider": "p", "model": "here", "tags": {"region": "eu", "data": "no-train"}},
}


def router(*models: str, fallback: str, **more: Any) -> dict[str, Any]:
    policies = [task("coding", *models)]
    return {"name": "work", "policies": policies, "fallback_models": [fallback], **more}


async def answer_of(upstream: FakeUpstream, routed: dict[str, Any], **fields: Any) -> Any:
    config = config_for(upstream, models=MODELS, routers=[routed])
    async with serving(config, FakeEngine(), upstream) as server:
        return await server.chat("coding please", **fields)


async def test_an_image_goes_to_a_model_that_sees(upstream: FakeUpstream) -> None:
    routed = router("blind", "small", "seeing", fallback="p/f")
    answer = await answer_of(upstream, routed, messages=[IMAGE])
    assert answer.status_code == 200
    assert upstream.asked == ["seeing"]  # one picture is more than the small one holds


async def test_a_fallback_takes_what_the_pool_must_not(upstream: FakeUpstream) -> None:
    await answer_of(upstream, router("blind", fallback="seeing"), messages=[IMAGE])
    assert upstream.asked == ["seeing"]


async def test_where_no_model_sees_the_request_is_refused_with_the_reason(
    upstream: FakeUpstream,
) -> None:
    answer = await answer_of(upstream, router("blind", fallback="blind"), messages=[IMAGE])
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "no_eligible_model"
    assert "blind (vision)" in answer.json()["error"]["message"]
    assert upstream.asked == []


async def test_a_prompt_too_long_for_all_is_tried(upstream: FakeUpstream) -> None:
    answer = await answer_of(upstream, router("small", fallback="small"), messages=[IMAGE])
    assert answer.status_code == 200
    assert upstream.asked == ["small"]


async def test_a_routers_tags_hold_for_its_fallbacks_too(upstream: FakeUpstream) -> None:
    routed = router("abroad", "p/untagged", "here", fallback="abroad", tags={"region": "eu"})
    answer = await answer_of(upstream, routed)
    assert answer.status_code == 200
    assert upstream.asked == ["here"]
    upstream.requests.clear()
    routed = router("abroad", fallback="p/untagged", tags={"region": "eu"})
    answer = await answer_of(upstream, routed)
    assert answer.status_code == 400
    assert upstream.asked == []


async def test_the_decision_alone_names_no_barred_model(server: Running) -> None:
    preferences = [
        {"name": "coding", "description": "Code.", "models": ["blind", "other"]},
        {"name": "writing", "description": "Texts.", "models": ["other"]},
    ]
    body = {"messages": [IMAGE], "routing_preferences": preferences}
    answer = (await server.decision(body)).json()
    assert answer["models"] == ["blind", "other"]  # of models elsewhere nothing is known


STAND_IN = {
    "providers": {
        "off": {"base_url": "https://o.invalid/v1", "api_key_env": "UNSET"},
        "local": {"base_url": "http://127.0.0.1:1/v1", "tags": {"region": "eu"}},
    },
    "models": {"stand-in": {"provider": "local", "model": "s"}},
    "routers": [
        {"name": "work", "policies": [task("coding", "off/a")], "fallback_models": ["off/b"]}
    ],
    "stand_ins": {"default": "stand-in"},
}


@pytest.mark.parametrize(("region", "expected"), [("eu", ["stand-in"]), ("us", None)])
async def test_stand_ins_keep_to_the_policy_on_data(
    region: str, expected: list[str] | None
) -> None:
    app = create_app(ServerConfig.model_validate(STAND_IN), engine=FakeEngine(), environ={})
    gateway = app.state.gateway
    chat = _chat("router:work")
    plan = gateway.plan(chat, tags=(("region", region),))
    outcome = await gateway.decide(plan)
    if expected is None:
        with pytest.raises(ApiError, match=r"stand-in \(tags\)"):
            gateway.candidates(plan, outcome, gateway.ranking_for(plan, outcome))
    else:
        ranked = gateway.ranking_for(plan, outcome)
        assert [target.name for target in gateway.candidates(plan, outcome, ranked)] == expected


def test_a_model_asked_for_by_name_is_bound_by_the_requests_tags() -> None:
    app = create_app(ServerConfig.model_validate(STAND_IN), engine=FakeEngine(), environ={})
    gateway = app.state.gateway
    assert gateway.served("stand-in", Need(tags=(("region", "eu"),))).name == "stand-in"
    with pytest.raises(ApiError, match=r"stand-in \(tags\)") as caught:
        gateway.served("stand-in", Need(tags=(("region", "us"),)))
    assert caught.value.status == 400


def _chat(model: str) -> Any:
    return parse(
        Protocol.CHAT,
        b'{"model": "%s", "messages": [{"role": "user", "content": "coding"}]}' % model.encode(),
    )
