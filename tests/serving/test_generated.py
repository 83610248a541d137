"""Other projects' routing models: adopted, asked in their form, held to answers that make sense."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
import typer.testing
from fake_vllm import FakeVllm
from test_engine import ROUTES, say
from tiny import copy_tokenizer, make_model

from routing.conversation import Conversation, Turn
from routing.errors import InvalidRequest, UnsupportedCheckpoint
from routing.manifest import GeneratedReadOut, load_manifest
from routing.tasks import Route
from scripts.cli import app
from serving.config import EmbeddedConfig, EndpointsConfig
from serving.engine.base import Engine, EngineError
from serving.engine.configured import configured_engine
from serving.engine.vllm.generated import (
    BYTES,
    GeneratingEngine,
    answer_schema,
    conversation_text,
    parse,
    question,
)

Format = Literal["plano-orchestrator", "arch-router"]
NAMES = [route.name for route in ROUTES]
PROMPT = "Routes:\n{routes}\nTalk: {conversation}\nAnswer:"


def adopted(folder: Path, format: Format) -> Path:
    """A tiny random model with a manifest of that format, written by the command."""
    folder.mkdir()
    make_model("qwen3", seed=0).save_pretrained(folder)
    copy_tokenizer(folder)
    (folder.parent / "prompt.txt").write_text(PROMPT)
    arguments = ["adopt", str(folder), "--format", format, "--prompt"]
    done = typer.testing.CliRunner().invoke(app, [*arguments, str(folder.parent / "prompt.txt")])
    assert done.exit_code == 0, done.output
    return folder


@asynccontextmanager
async def asking(folder: Path) -> AsyncIterator[tuple[Engine, FakeVllm]]:
    fake = FakeVllm(folder)
    await fake.start()
    config = EndpointsConfig(kind="endpoints", checkpoint=folder, urls=[fake.url], timeout_s=2)
    engine = configured_engine(config, {})
    await engine.start()
    yield engine, fake
    await engine.close()
    await fake.stop()


@pytest.mark.parametrize(
    ("format", "answer", "route", "routes"),
    [
        ("plano-orchestrator", '{"route": ["prose", "code", "prose"]}', "prose", ["prose", "code"]),
        ("plano-orchestrator", '{"route": []}', None, []),
        ("arch-router", '{"route": "plumbing"}', "plumbing", ["plumbing"]),
        ("arch-router", '{"route": "other"}', None, []),
    ],
)
async def test_answers_become_decisions(
    tmp_path: Path, format: Format, answer: str, route: str | None, routes: list[str]
) -> None:
    async with asking(adopted(tmp_path / "weights", format)) as (engine, fake):
        fake.answer = answer
        decision = await engine.decide(ROUTES, say("Mend my tap."))
        assert (decision.route, decision.routes) == (route, routes)
        assert decision.confidence == pytest.approx(math.exp(-0.3))
        assert decision.distribution[route or "none"] == decision.confidence
        assert sum(decision.distribution.values()) == pytest.approx(1)
        assert fake.schema == answer_schema(read_out(format), NAMES)
        assert fake.question.startswith("Routes:\n")


@pytest.mark.parametrize("answer", ["", "{", '{"route": "magic"}', '{"route": ["magic"]}', "[]"])
@pytest.mark.parametrize("format", ["plano-orchestrator", "arch-router"])
def test_other_answers_are_engine_errors(format: Format, answer: str) -> None:
    with pytest.raises(EngineError):
        parse(read_out(format), answer, NAMES)


def read_out(format: Format) -> GeneratedReadOut:
    return GeneratedReadOut(format=format, prompt=PROMPT)


def test_a_route_may_be_called_other() -> None:
    assert parse(read_out("arch-router"), '{"route": "other"}', ["other", "code"]) == ["other"]


def test_routes_are_written_as_the_format_does() -> None:
    odd = [Route(name='a"b', description="{conversation} it's {x}")]
    text = question(read_out("plano-orchestrator"), odd, say("Hi {routes}"))
    lines = text.splitlines()
    assert json.loads(lines[1]) == {"name": 'a"b', "description": "{conversation} it's {x}"}
    assert json.loads(lines[2].removeprefix("Talk: ")) == [
        {"role": "user", "content": "Hi {routes}"}
    ]
    listed = question(read_out("arch-router"), odd, say("Hi"))
    assert json.loads(listed.splitlines()[1]) == [
        {"name": 'a"b', "description": "{conversation} it's {x}"}
    ]


def test_the_last_sixteen_messages_of_user_and_assistant_are_read() -> None:
    turns: list[Any] = [Turn("system", "Be brief.", 0)]
    turns += [Turn("user" if n % 2 else "assistant", str(n), n) for n in range(1, 40)]
    turns.insert(20, Turn("tool", "result", 99))
    found = json.loads(conversation_text(Conversation(tuple(turns))))
    assert [each["content"] for each in found] == [str(n) for n in range(24, 40)]


def test_a_turn_that_is_too_long_keeps_head_and_tail() -> None:
    found = json.loads(conversation_text(say("old", "older", "ä" * BYTES)))
    assert len(found) == 1
    assert len(found[0]["content"].encode()) <= BYTES + 3
    assert "…" in found[0]["content"]


def test_routes_that_leave_no_room_are_refused(tmp_path: Path) -> None:
    folder = adopted(tmp_path / "weights", "arch-router")
    config = EndpointsConfig(kind="endpoints", checkpoint=folder, urls=["http://127.0.0.1:9"])
    engine = configured_engine(config, {})
    assert isinstance(engine, GeneratingEngine)
    engine.check_routes(ROUTES)
    with pytest.raises(InvalidRequest, match="at most"):
        engine.check_routes([Route(name=f"r{n}", description="x" * 500) for n in range(60)])


def test_the_manifest_says_which_and_the_embedded_engine_refuses(tmp_path: Path) -> None:
    folder = adopted(tmp_path / "weights", "plano-orchestrator")
    manifest = load_manifest(folder)
    assert isinstance(manifest.read_out, GeneratedReadOut)
    assert manifest.read_out.format == "plano-orchestrator"
    assert "model.safetensors" in manifest.files
    from serving.engine.checkpoint import load_model
    from serving.engine.contract import read_contract

    with pytest.raises(UnsupportedCheckpoint, match="only vLLM serves"):
        load_model(read_contract(folder), None)
    assert EmbeddedConfig(checkpoint=folder).kind == "embedded"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "holds no model"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "lacks tokenizer.json"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "has a manifest.json already"),
    ],
)
def test_what_cannot_be_adopted(tmp_path: Path, spoil: Any, message: str) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "config.json").write_text('{"hidden_size": 8, "vocab_size": 9}')
    copy_tokenizer(folder)
    spoil(folder)
    done = typer.testing.CliRunner().invoke(app, ["adopt", str(folder), "--format", "arch-router"])
    assert done.exit_code != 0
    assert isinstance(done.exception, UnsupportedCheckpoint)
    assert message in str(done.exception)


@pytest.mark.parametrize("prompt", ["", "{routes}", "{conversation} {routes}"])
def test_a_prompt_without_its_places_is_refused(prompt: str) -> None:
    with pytest.raises(ValueError, match="must hold"):
        GeneratedReadOut(format="arch-router", prompt=prompt)
