"""What one tenant does, no other sees."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from access_fakes import Keyed, bearer, keyed
from serving_fakes import FakeUpstream

DECISIONS = "/routing/v1/decisions"
TEXT = {"text": {"store": True}}


async def seen_by(server: Keyed, key: str) -> list[dict[str, Any]]:
    answer = await server.http.get(DECISIONS, headers=bearer(key))
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


async def test_records_are_their_tenants_and_the_owners(upstream: FakeUpstream, tmp_path: Path):
    async with keyed(upstream, tmp_path / "a.db", records=TEXT) as server:
        ours = (await server.make("ours", tenant="ours"))["key"]
        theirs = (await server.make("theirs", tenant="theirs"))["key"]
        answer = await server.chat(ours, "coding for us")
        assert answer.status_code == 200
        async with asyncio.timeout(20):
            while not await seen_by(server, ours):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        [record] = await seen_by(server, ours)
        assert await seen_by(server, theirs) == []
        for id in (record["id"], answer.headers["x-pointsman-trace-id"]):
            path = f"{DECISIONS}/{id}"
            assert (await server.http.get(path, headers=bearer(ours))).status_code == 200
            assert (await server.http.get(path, headers=bearer(theirs))).status_code == 404
            told = await server.http.post(
                f"{path}/feedback", headers=bearer(theirs), json={"route": "writing"}
            )
            assert told.status_code == 404
            assert (await server.admin("GET", path)).status_code == 200
        # Naming the tenant helps nobody but the owner.
        named = {"tenant": "ours"}
        found = await server.http.get(DECISIONS, headers=bearer(theirs), params=named)
        assert found.json()["data"] == []
        assert len((await server.admin("GET", DECISIONS, params=named)).json()["data"]) == 1
        export = f"{DECISIONS}/export"
        lines = [
            (await server.http.get(export, headers=bearer(key), params={"router": "work"})).text
            for key in (ours, theirs)
        ]
        assert "coding for us" in lines[0]
        assert lines[1] == ""
        assert (await server.http.get(DECISIONS)).status_code == 401


async def test_the_same_affinity_is_another_session_for_another_tenant(
    upstream: FakeUpstream, tmp_path: Path
):
    async with keyed(upstream, tmp_path / "a.db") as server:
        ours = (await server.make("ours", tenant="ours"))["key"]
        theirs = (await server.make("theirs", tenant="theirs"))["key"]
        headers = {"x-model-affinity": "the-same-name"}
        answers = [
            await server.server.chat(text, headers={**bearer(key), **headers})
            for key, text in ((ours, "coding"), (theirs, "writing"), (ours, "writing now"))
        ]
    first, other, again = (answer.headers for answer in answers)
    assert first["x-pointsman-session"] == again["x-pointsman-session"]
    assert other["x-pointsman-session"] != first["x-pointsman-session"]
    assert first["x-pointsman-model"] == again["x-pointsman-model"]
    assert other["x-pointsman-model"] != first["x-pointsman-model"]
