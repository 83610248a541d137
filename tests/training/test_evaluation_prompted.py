"""The prompted baseline against a small server in this process, and the reading of its answers."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from evaluation_data import LOAF, ROUTES, lines, write_lines
from evaluation_server import Reply, fixed, server

from training.evaluation.deciders import EvaluationError
from training.evaluation.http_json import LONGEST_WAIT_S, Retries
from training.evaluation.named_route import MalformedAnswer, named_route
from training.evaluation.prompted import PromptedDecider
from training.evaluation.report import Extras, evaluate

KEY = "made-up-key"
RIGHT = {LOAF[0]: "baking", LOAF[2]: "Baking.", LOAF[4]: "astronomy", "The tap drips": '"plumbing"'}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "made_up.jsonl", lines())


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def retries(slept: list[float]) -> Retries:
    return Retries(attempts=4, sleep=slept.append)


def completion(text: str | None) -> tuple[int, bytes]:
    return 200, json.dumps({"choices": [{"message": {"content": text}}]}).encode()


def right(body: dict[str, Any]) -> tuple[int, bytes]:
    """Answers by the last user turn of the prompt."""
    prompt = body["messages"][-1]["content"]
    last = prompt.rpartition("\n\nuser: ")[2].partition("\n\n")[0]
    if "\n\nuser: " not in prompt:
        last = prompt.partition("Conversation:\nuser: ")[2].partition("\n\n")[0]
    return completion(RIGHT.get(last, "none"))


@pytest.mark.parametrize("concurrency", [1, 3])
def test_each_turn_is_a_request_with_routes_and_conversation(file: Path, concurrency: int) -> None:
    with server(right) as (url, bodies):
        decider = PromptedDecider(f"{url}/v1", "some-model", concurrency=concurrency)
        (result,) = evaluate([file], [decider], progress=False).files[0].results
    assert result.decider == "prompted some-model"
    assert result.metrics.turn_accuracy.value == 1
    assert result.note is not None
    assert result.note.startswith("0 of 6 answers named no route")
    assert not result.oracle
    assert {(b["path"], b["model"], b["temperature"], b["key"]) for b in bodies} == {
        ("/v1/chat/completions", "some-model", 0, None)
    }
    (crust,) = [
        body["messages"][-1]["content"]
        for body in bodies
        if LOAF[2] in body["messages"][-1]["content"]
        and LOAF[4] not in body["messages"][-1]["content"]
    ]
    assert all(f"- {route['name']}: {route['description']}" in crust for route in ROUTES)
    assert f"user: {LOAF[0]}\n\nassistant: {LOAF[1]}\n\nuser: {LOAF[2]}" in crust


def test_an_answer_that_is_no_route_is_none_and_is_counted(file: Path) -> None:
    def rambles(body: dict[str, Any]) -> tuple[int, bytes]:
        odd = "Sing me" in body["messages"][-1]["content"]
        return completion(None if odd else "I cannot decide between baking and plumbing.")

    with server(rambles) as (url, _):
        decider = PromptedDecider(url, "m")
        extras = Extras(orders=2, latency=2)
        report = evaluate([file, file], [decider], progress=False, extras=extras)
    for result in (file.results[0] for file in report.files):
        assert {outcome.decision.route for outcome in result.outcomes} == {None}
        # Only the run itself is counted, not what was asked for order flips or latency.
        assert result.note is not None
        assert result.note.startswith("6 of 6 answers named no route and count as none")


def test_a_busy_server_is_asked_again_after_longer_and_longer_waits(
    file: Path, slept: list[float], retries: Retries
) -> None:
    replies = iter([(429, b"slow down"), (503, b""), (500, b"")])

    def busy(body: dict[str, Any]) -> tuple[int, bytes]:
        return next(replies, None) or right(body)

    with server(busy) as (url, bodies):
        decider = PromptedDecider(url, "m", concurrency=1, retries=retries)
        (result,) = evaluate([file], [decider], progress=False).files[0].results
    assert result.metrics.turn_accuracy.value == 1
    assert len(bodies) == 6 + 3
    assert [low <= wait <= 2 * low for wait, low in zip(slept, [0.5, 1, 2], strict=True)] == [
        True
    ] * 3


def test_a_server_that_says_how_long_to_wait_is_heeded(
    file: Path, slept: list[float], retries: Retries
) -> None:
    asked = iter(["7", "100000", "soon"])

    def busy(body: dict[str, Any]) -> Any:
        after = next(asked, None)
        return (429, b"", {"retry-after": after}) if after else right(body)

    with server(busy) as (url, _):
        evaluate(
            [file], [PromptedDecider(url, "m", retries=retries, concurrency=1)], progress=False
        )
    assert slept[:2] == [7, LONGEST_WAIT_S]
    assert slept[2] <= 4


@pytest.mark.parametrize(
    ("reply", "said", "asked"),
    [
        (fixed(429, {"error": {"message": "no quota"}}), "status 429: no quota", 4),
        (fixed(401, {"error": {"message": f"bad key {KEY}"}}), r"status 401: bad key \[key\]", 1),
        (fixed(404, b"no such page"), "status 404: no such page", 1),
        (fixed(200, b"{"), "conversation 'loaf', message 0", 1),
        (fixed(200, {"choices": []}), "not a chat completion", 1),
    ],
)
def test_what_cannot_be_answered_is_an_error_without_the_key(
    file: Path, retries: Retries, reply: Reply, said: str, asked: int
) -> None:
    with server(reply) as (url, bodies):
        decider = PromptedDecider(url, "m", key=KEY, concurrency=1, retries=retries)
        with pytest.raises(EvaluationError, match=said) as error:
            evaluate([file], [decider], progress=False)
    # A second conversation may have been begun before the first one's error was known.
    about_loaf = [body for body in bodies if LOAF[0] in body["messages"][-1]["content"]]
    assert len(about_loaf) == asked
    assert {body["key"] for body in bodies} == {f"Bearer {KEY}"}
    assert KEY not in str(error.value)


def test_no_server_no_url_and_no_key_are_errors(file: Path, slept: list[float]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"127.0.0.1:{unused.getsockname()[1]}"
        decider = PromptedDecider(url, "m", retries=Retries(attempts=3, sleep=slept.append))
        with pytest.raises(EvaluationError, match="ConnectionRefusedError"):
            evaluate([file], [decider], progress=False)
    assert slept
    with pytest.raises(EvaluationError, match="not the URL"):
        PromptedDecider("ftp://host", "m")
    for key in ("", "two\nlines", "schlüssel"):
        with pytest.raises(EvaluationError) as error:
            PromptedDecider("http://host", "m", key=key)
        assert not key or key not in str(error.value)


def test_a_url_may_end_with_the_path_itself(file: Path) -> None:
    with server(right) as (url, bodies):
        decider = PromptedDecider(f"{url}/v1/chat/completions", "m")
        evaluate([file], [decider], progress=False)
    assert {body["path"] for body in bodies} == {"/v1/chat/completions"}


NAMES = ["book_flight", "flight", "Tax return", "c++", "refunds"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flight", "flight"),
        (" book_flight\n", "book_flight"),
        ("Book Flight", "book_flight"),
        ("**book-flight**", "book_flight"),
        ("`tax_return`.", "Tax return"),
        ("C++", "c++"),
        ("none", None),
        ("None.", None),
        ('{"route": "refunds"}', "refunds"),
        ('```json\n{"route": "refunds", "score": 0.9}\n```', "refunds"),
        ('"none"', None),
        ("Route: refunds", "refunds"),
        ("The best route is book_flight, since they want to fly.", "book_flight"),
        ("<think>Is it refunds? Or flight?</think>\n\nflight", "flight"),
        ("It may be refunds, but no.</think>flight", "flight"),
    ],
)
def test_a_route_is_read_from_free_text(text: str, expected: str | None) -> None:
    assert named_route(text, NAMES) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "...",
        "hotel",
        "flight or refunds",
        "Not refunds, so none.",
        "refundsx",
        "<think>It is refunds",
        '{"route": "hotel"}',
        "[1, 2]",
    ],
)
def test_a_text_that_names_no_single_route_is_malformed(text: str) -> None:
    with pytest.raises(MalformedAnswer):
        named_route(text, NAMES)


def test_names_that_differ_only_in_dress_must_be_said_exactly() -> None:
    names = ["tax_return", "Tax Return"]
    assert named_route("tax_return", names) == "tax_return"
    for text in ("tax return", "it is tax_return"):
        with pytest.raises(MalformedAnswer):
            named_route(text, names)
