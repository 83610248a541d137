"""Lines of logs: every form is read, wrong ones are named by line, repeated ones collapse."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from logs_files import envelope, request, said, write_log, write_tasks

from data_synthesis.logs.collapse import Conversations
from data_synthesis.logs.reader import MAX_LINE, Exchange, Malformed, Said, parse_line, read_log
from data_synthesis.logs.teamtasks import load_tasks
from routing.errors import InvalidRecord
from routing.tasks import PresetTask

NAMES = frozenset({"billing", "account"})


def parse(value: Any) -> Exchange:
    return parse_line(json.dumps(value).encode(), NAMES)


def collapsed(*lines: Any) -> list[list[tuple[str, tuple[str, ...] | None]]]:
    conversations = Conversations()
    for line in lines:
        conversations.add(parse(line))
    return [
        [(turn.text, label) for turn, label in kept.labelled()] for kept in conversations.drain()
    ]


def test_parts_tools_and_envelopes_become_text() -> None:
    call = {"type": "function", "function": {"name": "look_up", "arguments": '{"id": 7}'}}
    found = parse(
        {
            "messages": [
                {"role": "system", "content": "Be kind."},
                {"role": "user", "content": "<system-reminder>secret plan</system-reminder>"},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "Look. <system-reminder>no</system-reminder>"},
                        {"type": "image_url", "image_url": {"url": "data:xyz"}},
                    ],
                },
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "content": "seven", "tool_call_id": "1"},
            ],
            "route": "billing",
        }
    )
    assert found.turns == (
        Said("system", "Be kind."),
        Said("user", "Look. \n[image]"),
        Said("assistant", '[tool call] look_up {"id": 7}'),
        Said("tool", "seven"),
    )
    assert found.labels == {1: ("billing",)}


def test_answers_are_read_and_failed_ones_are_none() -> None:
    assert parse(envelope("Hi", answer="Hello.")).answer == (Said("assistant", "Hello."),)
    for response in (None, {"error": {"message": "overloaded"}}, {"choices": []}):
        assert parse({"request": request("Hi"), "response": response}).answer == ()


@pytest.mark.parametrize(
    ("fields", "labels"),
    [
        ({}, {}),
        ({"route": "account"}, {2: ("account",)}),
        ({"route": None}, {2: ()}),
        ({"route": "none"}, {2: ()}),
        ({"routes": []}, {2: ()}),
        ({"routes": ["account", "billing"]}, {2: ("account", "billing")}),
        (
            {"labels": [{"message": 0, "route": None}, {"message": 2, "routes": ["billing"]}]},
            {0: (), 2: ("billing",)},
        ),
    ],
)
def test_labels(fields: dict[str, Any], labels: dict[int, tuple[str, ...]]) -> None:
    assert parse(request("One", "Yes.", "Two", **fields)).labels == labels
    assert parse({"request": request("One", "Yes.", "Two"), **fields}).labels == labels


BAD: list[tuple[Any, str, str]] = [
    ("{broken", "not JSON", "not JSON, at column 2"),
    (b'{"messages": "\xff"}', "not JSON", "not UTF-8"),
    ("[" * 100_000, "not JSON", "cannot|can be read"),
    ([1], "not a request", "must be an object"),
    ({"model": "m"}, "not a request", "neither messages nor a request"),
    ({"request": []}, "not a request", "request: must be an object"),
    ({"messages": []}, "not a request", "must not be empty"),
    ({"messages": [{"role": "boss", "content": "x"}]}, "not a request", r"messages\[0\].role"),
    ({"request": request("x"), "response": "text"}, "not a response", "chat completion"),
    (
        {"request": request("x"), "response": {"choices": [{"message": {"content": 3}}]}},
        "not a response",
        r"response.choices\[0\].message.content",
    ),
    (request("x", route="zebra"), "unknown label", r"route: is not among the tasks \(account, b"),
    (request("x", routes=["billing", 3]), "unknown label", "routes: is not among"),
    (request("x", routes="billing"), "bad label", "must be an array"),
    (request("x", route="billing", routes=[]), "bad label", "both route and routes"),
    (request("x", labels={}), "bad label", "labels: must be an array"),
    (request("x", labels=[{"route": "billing"}]), "bad label", r"labels\[0\].message"),
    (request("x", labels=[{"message": 1, "route": None}]), "bad label", "must be an index"),
    (request("x", labels=[{"message": True, "route": None}]), "bad label", "must be an index"),
    (request("x", "y", labels=[{"message": 1, "route": None}]), "bad label", "not a user's"),
    (request("x", labels=[{"message": 0}]), "bad label", "one of route and routes"),
    (request("x", labels=[{"message": 0, "routes": []}] * 2), "bad label", "labelled twice"),
]


@pytest.mark.parametrize(("line", "kind", "reason"), BAD, ids=range(len(BAD)))
def test_malformed_lines_are_named_or_skipped(
    line: Any, kind: str, reason: str, tmp_path: Path
) -> None:
    path = write_log(tmp_path / "log.jsonl", request("Fine"), "", line, request("Fine too"))
    with pytest.raises(InvalidRecord, match=reason) as caught:
        list(read_log(path, NAMES))
    assert str(caught.value).startswith(f"{path}:3: ")
    assert caught.value.__context__ is None

    skipped: list[str] = []
    found = list(read_log(path, NAMES, skipped.append))
    assert [exchange.turns[0].text for exchange in found] == ["Fine", "Fine too"]
    assert skipped == [kind]


def test_a_line_that_is_too_long_is_passed_over(tmp_path: Path) -> None:
    path = write_log(tmp_path / "log.jsonl", b"x" * (2 * MAX_LINE + 5), request("Fine"))
    skipped: list[str] = []
    assert len(list(read_log(path, NAMES, skipped.append))) == 1
    assert skipped == ["too long"]


def test_gzip_is_read_and_a_cut_one_is_an_error(tmp_path: Path) -> None:
    path = write_log(tmp_path / "log.jsonl.gz", *[request(f"Number {n}") for n in range(500)])
    assert len(list(read_log(path, NAMES))) == 500
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InvalidRecord, match="not a whole gzip file"):
        list(read_log(path, NAMES, Counter[str]().update))
    with pytest.raises(InvalidRecord, match=r"cannot read .*absent"):
        list(read_log(tmp_path / "absent.jsonl", NAMES))


def test_half_a_surrogate_pair_is_replaced() -> None:
    found = parse_line(b'{"messages": [{"role": "user", "content": "a\\ud800b"}]}', NAMES)
    assert found.turns[0].text == "a\ufffdb"
    found.turns[0].text.encode()


def test_growing_conversations_collapse_and_keep_all_labels() -> None:
    first = envelope("One", answer="1", route="billing")
    second = envelope("One", "1", "Two", answer="2", route=None)
    third = request("One", "1", "Two", "2", "Three", route="account")
    whole = [
        ("One", ("billing",)),
        ("1", None),
        ("Two", ()),
        ("2", None),
        ("Three", ("account",)),
    ]
    for order in ([first, second, third], [third, first, second], [second, third, first]):
        assert collapsed(*order) == [whole]


def test_answer_of_the_longest_is_kept() -> None:
    assert collapsed(envelope("One", answer="1"), envelope("One", "1", "Two", answer="2")) == [
        [("One", None), ("1", None), ("Two", None), ("2", None)]
    ]
    assert collapsed(request("One"), envelope("One", answer="1")) == [[("One", None), ("1", None)]]


def test_system_messages_do_not_hold_conversations_apart() -> None:
    def dated(day: str, *texts: str, **fields: Any) -> dict[str, Any]:
        return {"messages": [{"role": "system", "content": day}, *said(*texts)], **fields}

    lines = dated("Monday", "One", route="billing"), dated("Tuesday", "One", "1", "Two")
    assert collapsed(*lines) == [
        [("Tuesday", None), ("One", ("billing",)), ("1", None), ("Two", None)]
    ]


def test_branches_stay_apart_and_share_no_label() -> None:
    found = collapsed(
        request("One", route="billing"), request("One", "a", "Two"), request("One", "b", "Three")
    )
    assert [row[0] for row in found] == [("One", ("billing",)), ("One", None)]


def test_labels_that_disagree_leave_a_turn_undecided() -> None:
    lines = request("One", route="billing"), request("One", "1", "Two", labels=[
        {"message": 0, "route": "account"}, {"message": 2, "route": "account"}
    ])  # fmt: skip
    assert collapsed(*lines) == [[("One", None), ("1", None), ("Two", ("account",))]]
    same = request("x", routes=["billing", "account"]), request("x", routes=["account", "billing"])
    assert collapsed(*same) == [[("x", ("billing", "account"))]]


def test_tasks_of_a_team(tmp_path: Path) -> None:
    team = load_tasks(write_tasks(tmp_path / "tasks.yaml"))
    assert [route.name for route in team.routes] == ["billing", "account", "outages"]
    billing, account, outages = team.stored
    assert billing.names == ["billing", "payments"]
    assert billing.neighbours == ["logs/account"]
    assert billing.group == account.group != outages.group


def test_tasks_of_a_router(tmp_path: Path) -> None:
    path = tmp_path / "router.json"
    policies = [
        {"custom_task": {"name": "billing", "description": "Payments."}, "models": ["m"]},
        {"task_slug": "fix", "models": ["m"]},
    ]
    path.write_text(json.dumps({"name": "r", "policies": policies, "fallback_models": ["m"]}))
    preset = PresetTask(slug="fix", name="fixing", description="Repairs.")
    assert list(load_tasks(path, [preset]).keys) == ["billing", "fixing"]
    with pytest.raises(InvalidRecord, match=r"router.json: .*no preset task 'fix'"):
        load_tasks(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("tasks: []", "at least 1 item"),
        ("- {name: a}", "0.description"),
        ("- {name: a, description: b, colour: c}", "0.colour"),
        ("- {name: a, description: b}\n- {name: A, description: b}", "is there twice"),
        ("- {name: a, description: b, neighbours: [z]}", "no such neighbour: z"),
        ("- {name: none, description: b}", "reserved"),
        ("{", "cannot read"),
    ],
)
def test_wrong_task_files(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "tasks.yaml"
    path.write_text(text)
    with pytest.raises(InvalidRecord, match=reason):
        load_tasks(path)


def test_a_malformed_line_is_an_error_of_values() -> None:
    with pytest.raises(Malformed) as caught:
        parse_line(b"{", NAMES)
    assert caught.value.kind == "not JSON"
