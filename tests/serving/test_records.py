"""Each decision and each attempt is stored, found again, and explained."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from access_fakes import bearer, keyed
from recorded import DECISIONS, decision, listed, recording, trace_of, until, written
from serving_fakes import Behaviour, FakeEngine, FakeUpstream, Running, task

from routing.conversation import Conversation
from routing.tasks import Route

PRICES = {
    "p/code-1": {"provider": "p", "model": "code-1", "price": {"input": 3, "output": 15}},
    "p/code-2": {"provider": "p", "model": "code-2", "price": {"input": 1, "output": 2}},
}


async def test_a_decision_is_stored_with_its_attempts(upstream: FakeUpstream, database: str):
    upstream.models["code-1"] = Behaviour("error", 429)
    async with recording(upstream, database, models=PRICES) as server:
        answer = await server.chat("coding please", stream=True)
        waiting = await decision(server, trace_of(answer))
        await written(server)
        stored = await decision(server, trace_of(answer))
        assert await decision(server, stored["id"]) == stored
    assert stored == waiting
    assert stored["trace_id"] == trace_of(answer)
    assert stored["asked"] == {
        "endpoint": "/v1/chat/completions",
        "router": "work",
        "router_revision": None,
        "stream": True,
        "prompt_tokens": stored["asked"]["prompt_tokens"],
        "offered": ["coding", "writing"],
    }
    made = stored["decision"]
    assert (made["route"], made["routes"], made["reason"]) == ("coding", ["coding"], None)
    assert made["confidence"] == pytest.approx(
        float(answer.headers["x-pointsman-confidence"]), 1e-3
    )
    assert made["distribution"][0]["route"] == "coding"
    assert sum(each["probability"] for each in made["distribution"]) == pytest.approx(1, abs=1e-4)
    assert (made["engine"], made["checkpoint"]) == ("fake", "0123456789ab")
    assert made["layout_version"] == 2
    assert made["calibration"]["none_threshold"] == 0.5
    assert made["remembered"] is False
    first, second = stored["attempts"]
    assert (first["model"], first["result"], first["asked"]) == ("p/code-1", "429", True)
    assert (second["model"], second["result"]) == ("p/code-2", "200")
    assert second["latency_ms"] > 0
    assert (second["input_tokens"], second["output_tokens"]) == (11, 7)
    assert second["cost"] == pytest.approx((11 * 1 + 7 * 2) / 1e6)
    assert first["cost"] is None
    assert stored["outcome"]["cost"] == second["cost"]
    assert stored["outcome"]["model"] == "p/code-2"
    assert stored["text"] is None


async def test_the_explanation_says_why(upstream: FakeUpstream, database: str):
    upstream.models["code-2"] = Behaviour("error", 503)
    routers = [
        {
            "name": "work",
            "policies": [task("coding", "p/code-1", "p/code-2", prefer="cheapest")],
            "fallback_models": ["p/fall-1"],
        }
    ]
    async with recording(upstream, database, models=PRICES, routers=routers) as server:
        told = await server.chat("coding please")
        again = await server.chat("coding please")
        none = await server.chat("nothing of the kind")
        await written(server)
        words = "\n".join((await decision(server, trace_of(told)))["explanation"])
        remembered = "\n".join((await decision(server, trace_of(again)))["explanation"])
        other = await decision(server, trace_of(none))
    assert "Router 'work' offered 1 task: coding." in words
    assert "coding 0.982" in words
    assert "needs 0.50" in words
    assert "ranked by 'cheapest': p/code-2 ($" in words
    assert "p/code-2 was asked and answered 503" in words
    assert "p/code-1 was asked and answered 200" in words
    assert "11 tokens in, 7 out, for $0.000138" in words
    assert "remembered from an earlier request" in remembered
    assert other["decision"]["reason"] == "no_task_matches"
    assert '"none" was chosen, which needs 0.50' in "\n".join(other["explanation"])
    assert other["outcome"]["model"] == "p/fall-1"


async def failing(routes: Sequence[Route], conversation: Conversation) -> Any:
    raise RuntimeError(conversation.turns[-1].text)


async def test_what_was_not_decided_is_stored_too(upstream: FakeUpstream, database: str):
    async with recording(upstream, database, FakeEngine(failing)) as server:
        failed = trace_of(await server.chat("coding please"))
        plain = trace_of(await server.chat(model="named"))
        alone = trace_of(await server.decision({"model": "router:work"}))
        body = {"model": "p/embed", "input": "words"}
        vectors = trace_of(await server.http.post("/v1/embeddings", json=body))
        await server.http.get("/v1/models")
        await server.chat(model="router:unknown")
        await written(server)
        found = {each["trace_id"]: each for each in await listed(server)}
        explained = await decision(server, failed)
        named = await decision(server, plain)
    assert set(found) == {failed, plain, alone, vectors}
    assert found[failed]["reason"] == "engine_error"
    assert explained["decision"]["distribution"] == []
    assert any("The routing model failed" in line for line in explained["explanation"])
    assert found[plain]["route"] is None
    assert found[plain]["model"] == "named"
    assert named["decision"] is None
    assert named["explanation"][0] == "The request named its model, so nothing was decided."
    assert found[alone]["model"] is None
    assert found[vectors]["endpoint"] == "/v1/embeddings"


async def test_what_a_session_did_is_stored_and_told(upstream: FakeUpstream, database: str):
    named = {"x-model-affinity": "one-of-a-kind"}
    async with recording(upstream, database) as server:
        first = await server.chat("coding please", headers=named)
        second = await server.chat("writing please", headers=named)
        await written(server)
        begun, kept = [await decision(server, trace_of(each)) for each in (first, second)]
        together = await listed(server, session_id=kept["session"]["id"])
    assert begun["session"]["pinned"] is False
    assert kept["session"]["pinned"] is True
    assert kept["session"]["id"] == begun["session"]["id"]
    assert "one-of-a-kind" not in str(kept)
    assert [each["trace_id"] for each in together] == [trace_of(second), trace_of(first)]
    assert kept["decision"]["route"] == "coding"
    words = "\n".join(kept["explanation"])
    assert "session went on with its model, so nothing was decided anew" in words
    assert "The session kept its model" in words


async def test_no_prompt_is_stored_unless_the_owner_says_so(upstream: FakeUpstream, database: str):
    async with recording(upstream, database) as server:
        answer = await server.chat("coding please, my password is hunter2")
        await written(server)
        assert "hunter2" not in (await server.http.get(DECISIONS)).text
        assert (await decision(server, trace_of(answer)))["text"] is None
        async with server.app.state.database.read() as connection:
            rows = await connection.exec_driver_sql("SELECT count(*) FROM decision_texts")
            assert rows.scalar() == 0


async def test_names_that_databases_refuse_are_stored_cleaned(
    upstream: FakeUpstream, database: str
):
    preferences = [{"name": "co\0ding", "description": "Code.", "models": ["p/code-1"]}]
    async with recording(upstream, database) as server:
        odd = await server.chat(model="p/nul\0l")
        half = await server.http.post(
            "/v1/chat/completions",
            content=b'{"model": "p/\\ud800x", "messages": [{"role": "user", "content": "hi"}]}',
        )
        body = {"model": "router:work", "routing_preferences": preferences}
        inline = await server.decision(body)
        fine = await server.chat()
        await written(server)
        found = {each["trace_id"] for each in await listed(server)}
    assert trace_of(fine) in found
    accepted = [answer for answer in (odd, half, inline, fine) if answer.status_code == 200]
    assert {trace_of(answer) for answer in accepted} <= found


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=x", "limit"),
        ("min_confidence=1.5", "min_confidence"),
        ("max_confidence=nan", "max_confidence"),
        ("since=yesterday", "since"),
        ("until=2026-13-01", "until"),
        ("cursor=%21%21", "cursor"),
        ("cursor=AAAA", "cursor"),
        ("status=teapot", "status"),
        ("reason=because", "reason"),
        ("trace_id=xyz", "trace_id"),
        ("router=", "router"),
        ("router=a%00b", "router"),
        ("colour=red", "colour"),
        ("router=a&router=b", "router"),
    ],
)
async def test_a_bad_filter_is_named(recorder: Running, query: str, field: str):
    answer = await recorder.http.get(f"{DECISIONS}?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == field


@pytest.mark.parametrize("id", ["nope", "0" * 32, "01a220a9-2161-7ec3-8530-7df0303de4af"])
async def test_an_unknown_decision_is_404(recorder: Running, id: str):
    answer = await recorder.http.get(f"{DECISIONS}/{id}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


async def test_without_storage_there_are_no_records(server: Running):
    await server.chat()
    answer = await server.http.get(DECISIONS)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "records_off"


async def test_a_caller_sees_its_tenant_s_records_and_an_admin_all(
    upstream: FakeUpstream, database: str
):
    async with keyed(upstream, database, records={"text": {"store": True}}) as server:
        acme, other = [
            (await server.make(tenant=tenant))["key"] for tenant in ("acme", "other-team")
        ]
        mine = trace_of(await server.chat(acme))
        theirs = trace_of(await server.chat(other))
        assert (await server.http.get(DECISIONS)).status_code == 401
        for _ in ("waiting", "written"):
            for trace, status in ((mine, 200), (theirs, 404)):
                path = f"{DECISIONS}/{trace}"
                assert (await server.http.get(path, headers=bearer(acme))).status_code == status
                told = await server.http.post(
                    f"{path}/feedback", json={"route": "writing"}, headers=bearer(acme)
                )
                assert told.status_code == status
            await written(server.server)
        for query in ("", "?tenant=other-team"):
            answer = await server.http.get(f"{DECISIONS}{query}", headers=bearer(acme))
            [row] = answer.json()["data"]
            assert (row["trace_id"], row["tenant"]) == (mine, "acme")
        export = f"{DECISIONS}/export?router=work&tenant=other-team"
        lines = (await server.http.get(export, headers=bearer(acme))).text.splitlines()
        assert [orjson.loads(line)["route"] for line in lines] == ["writing"]
        everything = (await server.admin("GET", DECISIONS)).json()["data"]
        assert [row["trace_id"] for row in everything] == [theirs, mine]


async def test_a_client_that_leaves_is_recorded(upstream: FakeUpstream, database: str):
    upstream.models["code-1"] = Behaviour("hang", after=0)
    async with recording(upstream, database) as server:
        asking = asyncio.create_task(server.chat("coding please"))
        await server.engine.was_asked.wait()
        await until(lambda: bool(upstream.asked))
        asking.cancel()
        await asyncio.wait_for(upstream.dropped.wait(), 5)
        await until(lambda: len(server.app.state.records.queue) > 0)
        await written(server)
        [found] = await listed(server)
        explained = await decision(server, found["id"])
    assert (found["status"], found["broken"]) == (499, "client gone")
    assert "had not answered yet when the client left" in "\n".join(explained["explanation"])
