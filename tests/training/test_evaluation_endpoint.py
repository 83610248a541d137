"""The endpoint decider against a small server in this process."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import pytest
from evaluation_data import LOAF, ROUTES, answer, line, lines, write_lines
from evaluation_server import Reply, fixed, server

from training.evaluation.deciders import EvaluationError
from training.evaluation.endpoint import EndpointDecider
from training.evaluation.report import evaluate

RIGHT = {LOAF[0]: "baking", LOAF[2]: "baking", LOAF[4]: "astronomy", "The tap drips": "plumbing"}


def right(body: dict[str, Any]) -> tuple[int, bytes]:
    return 200, json.dumps(answer(RIGHT.get(body["messages"][-1]["content"]))).encode()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "made_up.jsonl", lines())


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_server_is_asked_turn_by_turn(file: Path, concurrency: int) -> None:
    with server(right) as (url, bodies):
        decider = EndpointDecider(url, concurrency=concurrency)
        (result,) = evaluate([file], [decider], progress=False).files[0].results
    assert result.metrics.turn_accuracy.value == 1
    assert {o.decision.confidence for o in result.outcomes} == {0.7}
    assert {body["path"] for body in bodies} == {"/routing/v1/chat/completions"}
    assert bodies[0]["routing_preferences"] == [{**route, "models": ["any"]} for route in ROUTES]
    loaf = [b["messages"] for b in bodies if b["messages"][0]["content"] == LOAF[0]]
    assert [[m["content"] for m in messages] for messages in loaf] == [LOAF[:1], LOAF[:3], LOAF]


def test_answers_keep_the_order_of_conversations(tmp_path: Path) -> None:
    """Even where the first conversation is answered after its neighbours."""
    records = [record(number) for number in range(9)]
    file = write_lines(tmp_path / "many.jsonl", records)
    others = Barrier(4)

    def late_first(body: dict[str, Any]) -> tuple[int, bytes]:
        number, name = body["messages"][0]["content"].split()
        if int(number) < 4:
            # Four at a time: none of them is answered before all are asked, and the first is last.
            others.wait(timeout=30)
        if number == "0":
            answered.wait(timeout=30)
        elif number == "3":
            answered.set()
        return 200, json.dumps(answer(name)).encode()

    answered = Event()
    with server(late_first) as (url, _):
        decider = EndpointDecider(url, concurrency=4)
        (result,) = evaluate([file], [decider], progress=False).files[0].results
    assert result.metrics.turn_accuracy.value == 1
    assert [o.conversation for o in result.outcomes] == [r["conversation_id"] for r in records]


def record(number: int) -> dict[str, Any]:
    """A conversation of one turn, which says its number and its route."""
    name = ROUTES[number % 3]["name"]
    return line(f"c{number}", 0, [f"{number} {name}"], [name])


def test_a_base_path_is_kept_and_headers_are_sent(file: Path) -> None:
    with server(right) as (url, bodies):
        decider = EndpointDecider(f"{url}/gateway/", headers={"authorization": "Bearer made-up"})
        evaluate([file], [decider], progress=False)
    assert {body["path"] for body in bodies} == {"/gateway/routing/v1/chat/completions"}
    assert {body["key"] for body in bodies} == {"Bearer made-up"}


def test_a_connection_that_the_server_closes_is_opened_again(file: Path) -> None:
    with server(right, hang_up=True) as (url, _):
        (result,) = evaluate([file], [EndpointDecider(url)], progress=False).files[0].results
    assert result.metrics.turn_accuracy.value == 1


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (fixed(400, {"error": {"message": "too many routes"}}), "status 400: too many routes"),
        (fixed(502, b"<html>bad gateway"), "status 502: <html>bad gateway"),
        (fixed(200, b"{"), "conversation '"),
        (fixed(200, []), "not an object"),
        (fixed(200, answer(None, distribution=None, reason="timeout")), "fell back .*: timeout"),
        (fixed(200, answer(None, distribution={"baking": 1})), "distribution must be over"),
        (fixed(200, answer("baking", route="gardening")), "'gardening' is not among"),
        (fixed(200, answer("baking", routes=None)), "routes must be"),
        (fixed(200, answer("baking", confidence="high")), "confidence must be a probability"),
    ],
)
def test_a_failed_or_malformed_answer_is_an_error(file: Path, reply: Reply, said: str) -> None:
    with (
        server(reply) as (url, _),
        pytest.raises(EvaluationError, match=said),
    ):
        evaluate([file], [EndpointDecider(url)], progress=False)


def test_no_server_and_no_url_are_errors(file: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        decider = EndpointDecider(f"127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(EvaluationError, match="ConnectionRefusedError"):
            evaluate([file], [decider], progress=False)
    for url in ("", "ftp://host", "http://user:secret@host", "http://host:port", "http://[host"):
        with pytest.raises(EvaluationError) as error:
            EndpointDecider(url)
        assert "secret" not in str(error.value)
