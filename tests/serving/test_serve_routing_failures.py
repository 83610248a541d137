"""An engine that raises, hangs or answers nonsense never fails a request."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from serving_fakes import FakeEngine, FakeUpstream, config_for, serving

from routing.conversation import Conversation
from routing.decision import Decision
from routing.errors import InvalidScores
from routing.tasks import Route
from serving.engine.base import EngineBusy

GOOD = {"coding": 0.8, "writing": 0.1, "none": 0.1}


def answering(value: Any):
    async def script(routes: Sequence[Route], conversation: Conversation) -> Any:
        return value

    return script


def raising(error: BaseException):
    async def script(routes: Sequence[Route], conversation: Conversation) -> Any:
        raise error

    return script


async def hanging(routes: Sequence[Route], conversation: Conversation) -> Any:
    await asyncio.Event().wait()


async def hanging_and_deaf(routes: Sequence[Route], conversation: Conversation) -> Any:
    for _ in range(50):  # ends after a while, or the test's loop could not close
        try:
            await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            continue


FAILURES = {
    "raises": (raising(RuntimeError("boom")), "engine_error"),
    "raises-cancelled": (raising(asyncio.CancelledError()), "engine_error"),
    "invalid-scores": (raising(InvalidScores("nan")), "engine_error"),
    "busy": (raising(EngineBusy("full")), "engine_busy"),
    "hangs": (hanging, "decision_timeout"),
    "hangs-and-ignores-cancellation": (hanging_and_deaf, "decision_timeout"),
    "nothing": (answering(None), "engine_error"),
    "wrong-type": (answering({"route": "coding"}), "engine_error"),
    "unknown-route": (answering(Decision(GOOD, "poetry", ["poetry"], 0.8)), "engine_error"),
    "unknown-second-route": (
        answering(Decision(GOOD, "coding", ["coding", "poetry"], 0.8)),
        "engine_error",
    ),
    "nan-confidence": (answering(Decision(GOOD, "coding", ["coding"], math.nan)), "engine_error"),
    "nan-probability": (
        answering(Decision({**GOOD, "none": math.nan}, "coding", ["coding"], 0.8)),
        "engine_error",
    ),
    "more-than-certain": (answering(Decision(GOOD, "coding", ["coding"], 7.0)), "engine_error"),
    "not-a-number": (
        answering(Decision(GOOD, "coding", ["coding"], "high")),  # type: ignore[arg-type]
        "engine_error",
    ),
    "not-a-distribution": (
        answering(Decision({**GOOD, "none": 0.9}, "coding", ["coding"], 0.8)),
        "engine_error",
    ),
    "other-routes": (
        answering(Decision({"a": 0.9, "none": 0.1}, "coding", ["coding"], 0.9)),
        "engine_error",
    ),
    "no-distribution": (
        answering(Decision(None, "coding", ["coding"], 0.9)),  # type: ignore[arg-type]
        "engine_error",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_the_fallbacks_answer(upstream: FakeUpstream, name: str):
    script, reason = FAILURES[name]
    timeout = {"decision_timeout_ms": 150} if reason == "decision_timeout" else {}
    async with serving(
        config_for(upstream, limits=timeout), FakeEngine(script), upstream
    ) as server:
        response = await server.chat("coding please")
        streamed = await server.chat("coding please", stream=True)
        alone = (await server.decision({"model": "router:work"})).json()
        counts = (await server.http.get("/healthz")).json()["decisions"]
    assert response.status_code == 200
    assert response.json()["model"] == "fall-1"
    assert response.headers["x-model-router-selected-route"] == "none"
    assert response.headers["x-pointsman-fallback-reason"] == reason
    assert "x-pointsman-confidence" not in response.headers
    assert streamed.text.endswith("data: [DONE]\n\n")
    assert streamed.headers["x-pointsman-model"] == "p/fall-1"
    assert alone["models"] == ["p/fall-1", "p/fall-2"]
    assert alone["route"] is alone["confidence"] is alone["distribution"] is None
    assert alone["reason"] == reason
    assert counts == {reason: 3}


async def test_a_hanging_engine_is_cut_off_in_time_and_the_server_stays_responsive(
    upstream: FakeUpstream,
):
    engine = FakeEngine(hanging)
    config = config_for(upstream, limits={"decision_timeout_ms": 600})
    async with serving(config, engine, upstream) as server:
        pending = asyncio.create_task(server.chat("coding please"))
        await asyncio.wait_for(engine.was_asked.wait(), 5)
        assert (await server.http.get("/healthz")).status_code == 200
        assert (await server.chat(model="p/other")).status_code == 200
        assert not pending.done()
        response = await pending
    assert response.headers["x-pointsman-model"] == "p/fall-1"
    assert 600 <= float(response.headers["x-pointsman-decision-ms"]) < 5000
    assert engine.cancelled == 1


async def test_no_text_goes_to_the_fallbacks_without_a_decision(upstream: FakeUpstream):
    engine = FakeEngine()
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    async with serving(config_for(upstream), engine, upstream) as server:
        for messages in (
            [{"role": "user", "content": [image]}],
            [{"role": "user", "content": ""}],
            [{"role": "system", "content": "coding"}],
        ):
            response = await server.chat(messages=messages)
            assert response.status_code == 200
            assert response.headers["x-pointsman-fallback-reason"] == "no_text"
            assert response.headers["x-pointsman-model"] == "p/fall-1"
    assert engine.asked == []
    assert upstream.requests[0]["messages"][0]["content"] == [image]


async def test_an_image_beside_text_is_routed(upstream: FakeUpstream):
    engine = FakeEngine()
    image = {"type": "image_url", "image_url": {"url": "https://x.invalid/a.png"}}
    parts = [{"type": "text", "text": "coding please"}, image]
    async with serving(config_for(upstream), engine, upstream) as server:
        response = await server.chat(messages=[{"role": "user", "content": parts}])
    assert response.headers["x-model-router-selected-route"] == "coding"


async def test_not_ready_until_the_engine_has_answered(upstream: FakeUpstream):
    engine = FakeEngine()
    engine.loading = asyncio.Event()
    async with serving(config_for(upstream), engine, upstream, wait_ready=False) as server:
        before = await server.http.get("/readyz")
        assert before.status_code == 503
        assert before.json()["not_ready"] == {"engine": "loading"}
        meanwhile = await server.chat("coding please")
        assert meanwhile.headers["x-pointsman-fallback-reason"] == "engine_not_ready"
        assert meanwhile.status_code == 200
        engine.loading.set()
        ready = await _eventually_ready(server.http)
        assert ready["engine"] == {"name": "fake", "version": "0123456789ab"}
        assert (await server.chat("coding please")).json()["model"] == "code-1"
    assert engine.closed


async def test_an_engine_that_cannot_start_leaves_a_server_with_fallbacks(upstream: FakeUpstream):
    engine = FakeEngine()
    engine.start_error = RuntimeError("no weights")
    async with serving(config_for(upstream), engine, upstream, wait_ready=False) as server:
        response = await server.chat("coding please")
        ready = await server.http.get("/readyz")
    assert response.headers["x-pointsman-model"] == "p/fall-1"
    assert ready.status_code == 503
    assert ready.json()["not_ready"] == {"engine": "failed to start"}


async def _eventually_ready(http: httpx.AsyncClient) -> dict[str, Any]:
    for _ in range(200):
        response = await http.get("/readyz")
        if response.status_code == 200:
            body: dict[str, Any] = response.json()
            return body
        await asyncio.sleep(0.01)
    raise AssertionError("never ready")
