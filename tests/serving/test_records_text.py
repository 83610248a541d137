"""Text is stored only redacted, deleted in time, and comes out as logs to retrain on."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from recorded import DECISIONS, a_snapshot, decision, listed, recording, trace_of, written
from serving_fakes import FakeUpstream, Running

from routing.conversation import Turn
from serving.config_records import RecordsConfig, TextConfig
from serving.records.redaction import Redactor
from serving.records.retention import Retention

STORED = {"text": {"store": True}}
DAY_S = 86_400
PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqh\n-----END PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("ann.lee+x@mail.example.org", "EMAIL"),
        ("4111 1111 1111 1111", "CARD"),
        ("378282246310005", "CARD"),
        ("DE89 3704 0044 0532 0130 00", "IBAN"),
        ("GB82WEST12345698765432", "IBAN"),
        ("203.0.113.77", "IP_ADDRESS"),
        ("2001:db8::8a2e:370:7334", "IP_ADDRESS"),
        ("+49 (30) 1234-5678", "PHONE"),
        ("(555) 123-4567", "PHONE"),
        ("sk-proj-abcdefghijklmnop1234", "SECRET"),
        ("ghp_0123456789abcdefghijABCDEFGHIJ", "SECRET"),
        ("AKIAIOSFODNN7EXAMPLE", "SECRET"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "SECRET"),
        (PEM, "SECRET"),
        ("wJalrXUtnFEMI9K7MDENGabPxRfiCYEXAMPLEKEY", "SECRET"),
    ],
)
def test_personal_data_and_secrets_are_taken_out(text: str, kind: str):
    kept = Redactor(10_000).kept([Turn("user", f"see {text} please", 0)])
    assert kept["messages"] == [{"role": "user", "content": f"see <{kind}> please"}]
    assert kept["redacted"] == {kind: 1}


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("my password: hunter2!", "hunter2"),
        ("api_key='abcd1234'", "abcd1234"),
        ("Authorization: Bearer abc.def-123", "abc.def-123"),
        ("postgres://app:s3cret@db/x", "s3cret"),
    ],
)
def test_what_is_called_a_secret_is_taken_out(text: str, secret: str):
    assert secret not in str(Redactor(10_000).kept([Turn("user", text, 0)])["messages"])


@pytest.mark.parametrize(
    "text",
    [
        "Order 4111 1111 1111 1112 has no such card",
        "version 1.2.3.4567 on 127.0.0.1 at 12:30:45",
        "def snake_case_function_name_of_some_length(argument): return 2 ** 64",
        "between 2024-01-15 and 2025-12-31, 1,000,000 rows",
        "a8098c1a-f86e-11da-bd1a-00112444be1e",
    ],
)
def test_other_text_stays(text: str):
    assert Redactor(10_000).kept([Turn("user", text, 0)])["messages"][0]["content"] == text


def test_the_owner_names_what_else_must_not_be_stored():
    redactor = Redactor(10_000, [r"TICKET-\d+"])
    kept = redactor.kept([Turn("user", "close TICKET-42 now", 0)])
    assert kept["messages"][0]["content"] == "close <REDACTED> now"
    with pytest.raises(ValidationError, match="redact"):
        TextConfig(redact=["("])


def test_of_a_long_conversation_the_last_turns_are_kept():
    turns = [Turn("user", "a" * 60, 0), Turn("assistant", "b" * 60, 1), Turn("user", "c" * 60, 2)]
    kept = Redactor(100).kept([*turns, Turn("tool", "d" * 60, 3)])
    roles = [(each["role"], len(each["content"])) for each in kept["messages"]]
    assert roles == [("assistant", 40), ("user", 60)]
    long = Redactor(1000).kept([Turn("user", "x. " * 5000 + "4111 1111 1111 1111", 0)])
    assert long["messages"][0]["content"].endswith("<CARD>")
    assert 900 < len(long["messages"][0]["content"]) <= 1000


async def test_text_is_stored_redacted_where_the_owner_says_so(
    upstream: FakeUpstream, database: str
):
    said = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "coding: mail ann@example.org"},
        {"role": "assistant", "content": "Done."},
        {"role": "user", "content": "coding again, from 203.0.113.9"},
    ]
    async with recording(upstream, database, records=STORED) as server:
        answer = await server.chat(messages=said)
        waiting = await decision(server, trace_of(answer))
        await written(server)
        stored = await decision(server, trace_of(answer))
    assert stored["text"] == waiting["text"]
    assert [each["content"] for each in stored["text"]["messages"]] == [
        "Be brief.",
        "coding: mail <EMAIL>",
        "Done.",
        "coding again, from <IP_ADDRESS>",
    ]
    assert stored["text"]["redacted"] == {"EMAIL": 1, "IP_ADDRESS": 1}


async def test_old_records_go_texts_before_the_rest(upstream: FakeUpstream, database: str):
    now = time.time()
    async with recording(upstream, database, records=STORED) as server:
        records = server.app.state.records
        for days in (40, 10, 1):
            records.queue.put(a_snapshot(f"{days} days ago", created=now - days * DAY_S))
        await written(server)
        config = RecordsConfig(retention_days=30, text=TextConfig(store=True, retention_days=7))
        # How many rows is not told: the server's own first look may have come before.
        await Retention(config, records.database).delete_old()
        assert await Retention(config, records.database).delete_old() == 0
        found = [await decision(server, each["id"]) for each in await listed(server)]
    said = [each["text"] and each["text"]["messages"][0]["content"] for each in found]
    assert said == ["1 days ago", None]


async def say(server: Running, id: str, route: Any) -> Any:
    """Feedback on a decision."""
    return await server.http.post(f"{DECISIONS}/{id}/feedback", json={"route": route})


async def test_feedback_is_checked_and_the_last_word_holds(recorder: Running):
    decided = trace_of(await recorder.chat("coding please"))
    plain = trace_of(await recorder.chat(model="named"))
    assert (await say(recorder, decided, "writing")).status_code == 200
    assert (await say(recorder, decided, "none")).json()["route"] is None
    await written(recorder)
    assert (await decision(recorder, decided))["feedback"]["route"] is None
    for id, route, status in ((decided, "cooking", 400), (plain, "coding", 400), ("0", "x", 404)):
        assert (await say(recorder, id, route)).status_code == status
    extra = await recorder.http.post(f"{DECISIONS}/{decided}/feedback", json={"task": "x"})
    assert extra.status_code == 400


async def exported(server: Running, **query: Any) -> list[dict[str, Any]]:
    """The lines of an export."""
    answer = await server.http.get(f"{DECISIONS}/export", params={"router": "work", **query})
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


async def test_an_export_is_labelled_by_people_or_by_sure_decisions(
    upstream: FakeUpstream, database: str
):
    async with recording(upstream, database, records=STORED) as server:
        await server.chat("coding please")
        corrected = trace_of(await server.chat("coding, well"))
        await server.chat("nothing of the kind")
        await server.chat(model="named")
        await written(server)
        await say(server, corrected, "writing")
        by_people = await exported(server)
        sure = await exported(server, labels="decision", min_confidence=0.5)
        surer = await exported(server, labels="decision", min_confidence=1, labelled_only=True)
        assert await exported(server, router="other") == []
        for query in ({"labels": "x"}, {"min_confidence": 2}, {"router": ""}):
            params = {"router": "work", **query}
            bad = await server.http.get(f"{DECISIONS}/export", params=params)
            assert bad.status_code == 400
            assert bad.json()["error"]["param"] in query
    assert [each.get("route", "-") for each in by_people] == ["-", "writing", "-"]
    assert [each.get("routes", each.get("route")) for each in sure] == [["coding"], "writing", []]
    assert [each["route"] for each in surer] == ["writing"]


async def test_traffic_comes_back_as_data_to_train_on(upstream: FakeUpstream, tmp_path: Path):
    importing = pytest.importorskip("data_synthesis.logs.importing")
    pytest.importorskip("presidio_analyzer")
    async with recording(upstream, f"sqlite:///{tmp_path}/r.db", records=STORED) as server:
        wrong = trace_of(await server.chat("coding a letter to ann@example.org"))
        await server.chat("writing a poem")
        await written(server)
        await say(server, wrong, "writing")
        query = {"router": "work", "labels": "decision", "min_confidence": 0.5}
        answer = await server.http.get(f"{DECISIONS}/export", params=query)
    (tmp_path / "traffic.jsonl").write_bytes(answer.content)
    tasks = [{"name": name, "description": f"All of {name}."} for name in ("coding", "writing")]
    (tmp_path / "tasks.yaml").write_text(json.dumps({"tasks": tasks}))
    facts = importing.import_logs(
        [tmp_path / "traffic.jsonl"], tmp_path / "tasks.yaml", tmp_path / "source"
    )
    assert facts["counts"]["conversations"] == 2
    assert facts["counts"]["labelled"] == 2
