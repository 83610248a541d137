"""One log line a request, with what was decided; no prompts, no keys."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import orjson
import structlog
from serving_fakes import KEY, Behaviour, FakeEngine, FakeUpstream, config_for, serving

from routing.conversation import Conversation
from routing.tasks import Route
from serving import logs

PROMPT = "coding please, my password is hunter2"


async def quoting(routes: Sequence[Route], conversation: Conversation) -> Any:
    raise RuntimeError(f"cannot decide {conversation.turns[-1].text}")


async def test_a_request_is_one_line(upstream: FakeUpstream):
    upstream.models["code-1"] = Behaviour("error", 429)
    async with serving(config_for(upstream), FakeEngine(), upstream) as server:
        with structlog.testing.capture_logs() as logs:
            response = await server.chat(PROMPT, stream=True)
    [line] = [entry for entry in logs if entry["event"] == "request"]
    assert line["trace_id"] == response.headers["x-pointsman-trace-id"]
    assert line["router"] == "work"
    assert line["route"] == "coding"
    assert 0 < line["confidence"] <= 1
    assert line["model"] == "p/code-2"
    assert line["attempts"] == ["p/code-1=429", "p/code-2=200"]
    assert line["status"] == 200
    assert line["stream"] is True
    assert line["ms"] > 0


async def test_no_prompt_and_no_key_is_ever_logged_or_answered(upstream: FakeUpstream, capfd: Any):
    upstream.models["fall-1"] = Behaviour("error", 401, body=f'{{"error": "{KEY}"}}'.encode())
    upstream.models["fall-2"] = Behaviour("cut", after=1)
    answers = []
    async with serving(config_for(upstream), FakeEngine(quoting), upstream) as server:
        with structlog.testing.capture_logs() as logs:
            answers.append(await server.chat(PROMPT, stream=True))
            answers.append(await server.chat(PROMPT, model="p/fall-1"))
            answers.append(await server.chat(PROMPT, model="router:nope"))
            answers.append(await server.chat(PROMPT, messages=[{"role": PROMPT, "content": ""}]))
            server.app.state.gateway = None  # a fault of our own
            answers.append(await server.chat(PROMPT))
    printed = "".join(capfd.readouterr())
    everything = repr(logs) + printed
    assert "routing_failed" in everything
    assert "fault" in everything
    for secret in (KEY, "hunter2"):
        assert secret not in everything
        for answer in answers:
            assert secret not in answer.text
            assert secret not in str(answer.headers)
    assert answers[-1].status_code == 500


async def slow_and_failing(routes: Sequence[Route], conversation: Conversation) -> Any:
    await asyncio.sleep(0.02)
    raise RuntimeError


async def test_every_line_of_a_request_has_its_trace_id(upstream: FakeUpstream):
    async with serving(config_for(upstream), FakeEngine(slow_and_failing), upstream) as server:
        with structlog.testing.capture_logs(processors=[logs.with_trace]) as lines:
            answers = await asyncio.gather(*(server.chat(f"coding {n}") for n in range(8)))
    traces = sorted(answer.headers["x-pointsman-trace-id"] for answer in answers)
    for event in ("routing_failed", "request"):
        assert sorted(line["trace_id"] for line in lines if line["event"] == event) == traces


def test_lines_below_the_level_are_not_logged(capfd: Any):
    with logged_at("warning"):
        structlog.get_logger("quiet").info("unheard")
        structlog.get_logger("loud").warning("heard", answer=42)
    line = orjson.loads(capfd.readouterr().err)
    assert (line["event"], line["level"], line["answer"]) == ("heard", "warning", 42)


@contextmanager
def logged_at(level: str) -> Iterator[None]:
    """Logging as a server of that level has it."""
    before = structlog.get_config()
    logs.configure(level)
    structlog.configure(cache_logger_on_first_use=False)
    try:
        yield
    finally:
        structlog.configure(**before)
