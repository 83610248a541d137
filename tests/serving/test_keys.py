"""API keys over HTTP: made, used, changed, rotated, revoked."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import AsyncIterator
from itertools import product
from pathlib import Path

import pytest
from access_fakes import ADMIN, Keyed, bearer, keyed
from serving_fakes import FakeUpstream

from serving.access.keys import Hasher


@pytest.fixture
async def server(upstream: FakeUpstream, tmp_path: Path) -> AsyncIterator[Keyed]:
    async with keyed(upstream, tmp_path / "keys.db") as running:
        yield running


async def test_a_key_is_needed_and_either_header_bears_it(server: Keyed):
    key = (await server.make())["key"]
    assert (await server.server.chat()).status_code == 401
    assert (await server.chat(key)).status_code == 200
    body = {"model": "p/code-1", "messages": [{"role": "user", "content": "x"}], "max_tokens": 9}
    told = await server.http.post("/v1/messages", json=body, headers={"x-api-key": key})
    assert told.status_code == 200
    lower = {"authorization": f"bearer {key}"}
    assert (await server.http.get("/v1/models", headers=lower)).status_code == 200


async def test_without_a_key_the_refusal_has_the_protocols_shape(server: Keyed):
    wrong = ({}, bearer("pm_" + "x" * 43), bearer("sk-other"), {"authorization": "Basic a"})
    paths = ("/v1/chat/completions", "/v1/messages", "/admin/keys")
    for path, headers in product(paths, wrong):
        answer = await server.http.post(path, json={}, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        error = answer.json()["error"]
        if path == "/v1/messages":
            assert error["type"] == "authentication_error"
        else:
            assert error["code"] == "invalid_api_key"


async def test_health_is_open_and_metrics_are_not(server: Keyed):
    key = (await server.make())["key"]
    assert (await server.http.get("/healthz")).status_code == 200
    assert (await server.http.get("/readyz")).status_code == 200
    assert (await server.http.get("/metrics")).status_code == 401
    assert (await server.http.get("/metrics", headers=bearer(key))).status_code == 403
    assert (await server.admin("GET", "/metrics")).status_code == 200


async def test_metrics_can_be_opened(upstream: FakeUpstream, tmp_path: Path):
    async with keyed(upstream, tmp_path / "k.db", access={"metrics": "open"}) as server:
        assert (await server.http.get("/metrics")).status_code == 200


async def test_a_stored_admin_may_what_the_owner_may(server: Keyed):
    admin = await server.make(role="admin")
    made = await server.http.post(
        "/admin/keys", json={"name": "by another"}, headers=bearer(admin["key"])
    )
    assert made.status_code == 201
    caller = made.json()
    assert caller["role"] == "caller"
    refused = await server.http.get("/admin/keys", headers=bearer(caller["key"]))
    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "admin_required"


async def test_keys_are_listed_by_pages_and_never_shown_again(server: Keyed):
    made = [await server.make(f"key {number}") for number in range(5)]
    names, after = [], None
    while True:
        query = {"limit": 2} | ({"after": after} if after else {})
        page = (await server.admin("GET", "/admin/keys", params=query)).json()
        names += [each["name"] for each in page["data"]]
        for each in made:
            assert each["key"] not in str(page)
        if not page["has_more"]:
            break
        after = page["last_id"]
    assert sorted(names) == [f"key {number}" for number in range(5)]
    one = (await server.admin("GET", f"/admin/keys/{made[0]['id']}")).json()
    assert one["redacted"] == f"pm_…{made[0]['key'][-4:]}"
    assert one["usage"]["dollars"] == 0
    for bad in ("?limit=0", "?limit=1001", "?after=nobody"):
        assert (await server.admin("GET", f"/admin/keys{bad}")).status_code == 400
    assert (await server.admin("GET", "/admin/keys/nobody")).status_code == 404


BAD_KEYS: list[tuple[dict[str, object], str]] = [
    ({}, "name"),
    ({"name": ""}, "name"),
    ({"name": "a", "role": "owner"}, "role"),
    ({"name": "a", "tenant": "a:b"}, "tenant"),
    ({"name": "a", "tenant": "a\r\nb"}, "tenant"),
    ({"name": "a", "requests_per_minute": 0}, "requests_per_minute"),
    ({"name": "a", "requests_per_minute": True}, "requests_per_minute"),
    ({"name": "a", "monthly_budget": -1}, "monthly_budget"),
    ({"name": "a", "expires_at": "tomorrow"}, "expires_at"),
    ({"name": "a", "key": "pm_mine"}, "key"),
]


async def test_bad_keys_are_refused_by_field(server: Keyed):
    for body, field in BAD_KEYS:
        answer = await server.admin("POST", "/admin/keys", json=body)
        assert answer.status_code == 400, body
        assert answer.json()["error"]["param"] == field


async def test_a_change_holds_at_once(server: Keyed):
    made = await server.make(requests_per_minute=1)
    assert (await server.chat(made["key"])).status_code == 200
    assert (await server.chat(made["key"])).status_code == 429
    path = f"/admin/keys/{made['id']}"
    changed = await server.admin("PATCH", path, json={"requests_per_minute": None, "name": "b"})
    assert (changed.json()["requests_per_minute"], changed.json()["name"]) == (None, "b")
    assert (await server.chat(made["key"])).status_code == 200
    assert (await server.admin("PATCH", path, json={"name": None})).status_code == 400
    assert (await server.admin("PATCH", path, json={"tenant": "x"})).status_code == 400
    await server.admin("PATCH", path, json={"expires_at": int(time.time()) - 1})
    assert (await server.chat(made["key"])).status_code == 401


async def test_a_revoked_key_is_refused_at_once_and_for_good(server: Keyed):
    made = await server.make()
    path = f"/admin/keys/{made['id']}"
    assert (await server.admin("DELETE", path)).json()["revoked_at"] is not None
    assert (await server.chat(made["key"])).status_code == 401
    assert (await server.admin("DELETE", path)).status_code == 200
    assert (await server.admin("PATCH", path, json={"name": "b"})).status_code == 409
    assert (await server.admin("POST", f"{path}/rotate", json={})).status_code == 409
    assert (await server.admin("DELETE", "/admin/keys/nobody")).status_code == 404


async def test_a_key_is_rotated_under_load_without_a_failed_request(server: Keyed):
    made = await server.make()
    current = [made["key"]]
    statuses: list[int] = []
    done = asyncio.Event()

    async def client() -> None:
        while not done.is_set():
            statuses.append((await server.chat(current[0])).status_code)

    clients = [asyncio.create_task(client()) for _ in range(4)]
    for _ in range(3):
        path = f"/admin/keys/{made['id']}/rotate"
        turned = (await server.admin("POST", path, json={"grace_s": 60})).json()
        assert turned["id"] == made["id"]
        assert turned["key"] not in (made["key"], current[0])
        current[0] = turned["key"]
    done.set()
    await asyncio.gather(*clients)
    assert set(statuses) == {200}
    # All of them hold while the grace lasts; what they spend is one key's.
    assert (await server.chat(made["key"])).status_code == 200
    told = await server.own(current[0])
    assert told["usage"]["requests"] == len(statuses) + 1


async def test_without_grace_the_old_key_ends_at_once(server: Keyed):
    made = await server.make()
    path = f"/admin/keys/{made['id']}/rotate"
    turned = (await server.admin("POST", path, json={"grace_s": 0})).json()
    assert (await server.chat(made["key"])).status_code == 401
    assert (await server.chat(turned["key"])).status_code == 200


async def test_keys_outlive_the_server_and_their_secret_can_be_rotated(
    upstream: FakeUpstream, tmp_path: Path
):
    old, new = "an old secret of sixteen", "a new secret of sixteen"
    file = tmp_path / "k.db"
    async with keyed(upstream, file, environ={"POINTSMAN_KEY_SECRET": old}) as server:
        key = (await server.make())["key"]
    async with keyed(upstream, file, environ={"POINTSMAN_KEY_SECRET": f"{new},{old}"}) as server:
        assert (await server.chat(key)).status_code == 200
        await asyncio.sleep(0.5)  # by now it is hashed anew
    async with keyed(upstream, file, environ={"POINTSMAN_KEY_SECRET": new}) as server:
        assert (await server.chat(key)).status_code == 200
        assert (await server.chat(ADMIN)).status_code == 200
    async with keyed(upstream, file, environ={"POINTSMAN_KEY_SECRET": old}) as server:
        assert (await server.chat(key)).status_code == 401


async def test_two_servers_on_one_database_know_each_others_keys(
    upstream: FakeUpstream, tmp_path: Path
):
    file = tmp_path / "k.db"
    slow = {"refresh_s": 30}
    async with (
        keyed(upstream, file) as one,
        keyed(upstream, file, access=slow) as other,
        keyed(upstream, file) as third,
    ):
        made = await one.make()
        # Unknown so far, so it looks once before it refuses.
        assert (await other.chat(made["key"])).status_code == 200
        assert (await third.chat(made["key"])).status_code == 200
        await other.admin("DELETE", f"/admin/keys/{made['id']}")
        async with asyncio.timeout(5):
            while (await third.chat(made["key"])).status_code == 200:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("length", [16, 64, 65, 200])
def test_keys_are_hashed_by_hmac(length: int):
    secret = "s" * length
    for message in (b"", b"mark", b"pm_" + b"k" * 300):
        expected = hmac.digest(secret.encode(), message, "sha256")
        assert Hasher([secret]).digest(message) == expected
        assert list(Hasher(["another", secret]).digests(message))[1] == expected
