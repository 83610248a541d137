"""Nobody gets in who has no right to: keys made up to be found, admin calls, other tenants."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from access_fakes import ADMIN, Keyed, bearer, keyed
from serving_fakes import FakeUpstream

INJECTIONS = (
    "' OR '1'='1",
    "pm_' OR 1=1 --",
    "pm_x'; DROP TABLE api_keys; --",
    'pm_" UNION SELECT digest FROM api_key_secrets --',
    "pm_%",
    "pm_*",
    "pm_\\x00",
)
FOR_CALLERS = {
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{name}"),
    ("GET", "/v1/key"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/responses"),
    ("POST", "/v1/messages"),
    ("POST", "/v1/embeddings"),
    ("POST", "/routing/v1/chat/completions"),
    ("POST", "/routing/v1/responses"),
    ("POST", "/routing/v1/messages"),
    ("GET", "/routing/v1/decisions"),  # these four: of the caller's tenant alone
    ("GET", "/routing/v1/decisions/export"),
    ("GET", "/routing/v1/decisions/{id}"),
    ("POST", "/routing/v1/decisions/{id}/feedback"),
}
"""All else is an admin's. Who adds a route for callers adds it here."""
FOR_ALL = {("GET", "/healthz"), ("GET", "/readyz")}


@pytest.fixture
async def server(upstream: FakeUpstream, tmp_path: Path) -> AsyncIterator[Keyed]:
    async with keyed(upstream, tmp_path / "keys.db") as running:
        yield running


def routes(server: Keyed) -> list[tuple[str, str]]:
    paths = server.server.app.openapi()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


def everything_in(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


def filled(path: str) -> str:
    return path.replace("{", "").replace("}", "")


async def test_keys_that_are_queries_find_nothing_and_harm_nothing(server: Keyed):
    key = (await server.make())["key"]
    for injection in INJECTIONS:
        for headers in ({"authorization": f"Bearer {injection}"}, {"x-api-key": injection}):
            assert (await server.http.get("/v1/models", headers=headers)).status_code == 401
    for path in ("/admin/keys/' OR 1=1 --", "/admin/keys/%27%3B DROP TABLE api_keys"):
        assert (await server.admin("GET", path)).status_code == 404
        assert (await server.admin("DELETE", path)).status_code == 404
    assert (await server.admin("GET", "/admin/keys?after=' OR '1'='1")).status_code == 400
    assert (await server.chat(key)).status_code == 200


async def test_only_the_whole_key_is_one(server: Keyed):
    """Neither a part of a key, nor another with the same beginning, warm or cold."""
    key = (await server.make())["key"]
    flipped = key[:-1] + ("A" if key[-1] != "A" else "B")
    near = [key[:-1], key[:20], key + "A", flipped, key.lower(), key[3:], f"{key}\t{key}", "pm_"]
    for turn in range(2):
        for other in near:
            assert (await server.chat(other)).status_code == 401, (turn, other)
        assert (await server.chat(key)).status_code == 200
    assert (await server.chat("x" * 50_000)).status_code in (401, 431)


async def test_keys_are_not_in_the_database(server: Keyed, tmp_path: Path):
    key = (await server.make())["key"]
    stored = await asyncio.to_thread(everything_in, tmp_path)
    assert b"api_key_secrets" in stored
    assert key.encode() not in stored
    assert key[3:].encode() not in stored
    assert ADMIN.encode() not in stored


async def test_a_copied_database_opens_nothing_without_the_secret(
    server: Keyed, upstream: FakeUpstream, tmp_path: Path
):
    key = (await server.make())["key"]
    with (
        sqlite3.connect(tmp_path / "keys.db") as source,
        sqlite3.connect(tmp_path / "copy.db") as copy,
    ):
        source.backup(copy)
    other = {"POINTSMAN_KEY_SECRET": "another secret of sixteen or more"}
    async with keyed(upstream, tmp_path / "copy.db", environ=other) as thief:
        assert (await thief.chat(key)).status_code == 401


async def test_every_route_is_an_admins_unless_it_is_listed(server: Keyed):
    key = (await server.make())["key"]
    found = routes(server)
    assert len(found) > len(FOR_CALLERS)
    for method, path in found:
        bare = await server.http.request(method, filled(path), json={})
        borne = await server.http.request(method, filled(path), json={}, headers=bearer(key))
        if (method, path) in FOR_ALL:
            assert (bare.status_code, borne.status_code) == (200, 200), path
            continue
        assert bare.status_code == 401, path
        if (method, path) in FOR_CALLERS:
            assert borne.status_code not in (401, 403), path
        else:
            assert borne.status_code == 403, path


ODD_PATHS = (
    "//admin/keys",
    "/v1/../admin/keys",
    "/v1/%2e%2e/admin/keys",
    "/v1/models/../../admin/keys",
    "/admin/keys/",
    "/ADMIN/keys",
    "/admin%2fkeys",
    "/admin/keys;/v1/",
    "/admin/keys?x=/v1/",
    "/docs",
    "/redoc",
    "/nothing",
)


async def test_no_way_of_writing_a_path_opens_it(server: Keyed):
    made = await server.make("a secret name")
    for path in ODD_PATHS:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.http.base_url.port)
        writer.write(
            f"GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {made['key']}\r\n"
            "connection: close\r\n\r\n".encode()
        )
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        assert answer.split()[1] in (b"403", b"404", b"405", b"400"), path
        assert b"a secret name" not in answer


async def test_a_tenant_sees_nothing_of_another(server: Keyed):
    one = await server.make("one's own name", tenant="one", monthly_budget=10)
    two = await server.make("two's own name", tenant="two")
    assert (await server.chat(one["key"], model="p/no-price")).status_code == 200
    told = await server.own(two["key"])
    assert (told["id"], told["tenant"]) == (two["id"], "two")
    assert told["usage"]["requests"] == 0
    for path in (f"/admin/keys/{one['id']}", "/admin/keys", "/admin/providers", "/metrics"):
        answer = await server.http.get(path, headers=bearer(two["key"]))
        assert answer.status_code == 403
        assert "one" not in answer.json()["error"]["message"].split()
    for method, body in (("PATCH", {"monthly_budget": None}), ("DELETE", None)):
        answer = await server.http.request(
            method, f"/admin/keys/{one['id']}", json=body, headers=bearer(two["key"])
        )
        assert answer.status_code == 403
    assert (await server.own(one["key"]))["monthly_budget"] == 10


async def test_a_tenant_finds_no_decision_of_another(server: Keyed):
    keys = [(await server.make(tenant=tenant))["key"] for tenant in ("one", "one", "two")]
    assert (await server.chat(keys[0])).status_code == 200

    async def found(key: str) -> list[dict[str, Any]]:
        listed = await server.http.get("/routing/v1/decisions", headers=bearer(key))
        data: list[dict[str, Any]] = listed.json()["data"]
        return data

    async with asyncio.timeout(20):
        while not (mine := await found(keys[0])):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert [each["id"] for each in await found(keys[1])] == [mine[0]["id"]]
    assert await found(keys[2]) == []
    asked = "/routing/v1/decisions?tenant=one"
    told = await server.http.get(asked, headers=bearer(keys[2]))
    assert told.json()["data"] == []
    path = f"/routing/v1/decisions/{mine[0]['id']}"
    for key, status in zip(keys, (200, 200, 404), strict=True):
        assert (await server.http.get(path, headers=bearer(key))).status_code == status
    body = {"route": "writing"}
    told = await server.http.post(f"{path}/feedback", json=body, headers=bearer(keys[2]))
    assert told.status_code == 404
    exported = await server.http.get(
        "/routing/v1/decisions/export?router=work", headers=bearer(keys[2])
    )
    assert exported.text == ""


async def test_tenants_do_not_share_a_session(server: Keyed):
    keys = [(await server.make(tenant=tenant))["key"] for tenant in ("one", "one", "two")]
    body = {"model": "router:work", "messages": [{"role": "user", "content": "coding please"}]}
    for headers in ({"x-model-affinity": "the same"}, {}):
        sessions = []
        for key in keys:
            told = await server.http.post(
                "/routing/v1/chat/completions", json=body, headers=bearer(key) | headers
            )
            sessions.append(told.json()["session_id"])
        assert sessions[0] == sessions[1] != sessions[2], headers


ON_LOOPBACK: list[tuple[dict[str, str], bool]] = [
    ({}, True),
    ({"authorization": "Bearer unused"}, True),
    ({"authorization": "Bearer pm_unknown"}, False),
    ({"origin": "http://localhost:3000"}, True),
    ({"origin": "https://evil.example"}, False),
    ({"origin": "null"}, False),
    ({"x-forwarded-for": "10.0.0.9"}, False),
    ({"forwarded": "for=10.0.0.9"}, False),
]


async def test_on_loopback_no_key_is_needed_but_other_sites_are_kept_out(
    upstream: FakeUpstream, tmp_path: Path
):
    own = {"POINTSMAN_ADMIN_KEY": ""}
    async with keyed(upstream, tmp_path / "k.db", host="127.0.0.1", environ=own) as server:
        for headers, allowed in ON_LOOPBACK:
            for path in ("/v1/models", "/admin/keys"):
                answer = await server.http.get(path, headers=headers)
                assert answer.is_success == allowed, (headers, path)
        rebound = {"host": "evil.example"}
        assert (await server.http.get("/admin/keys", headers=rebound)).status_code == 403


async def test_keys_on_loopback_protect_what_is_an_admins(upstream: FakeUpstream, tmp_path: Path):
    async with keyed(upstream, tmp_path / "k.db", host="127.0.0.1") as server:
        assert (await server.server.chat()).status_code == 200
        assert (await server.chat("wrong")).status_code == 401
        assert (await server.http.get("/admin/keys")).status_code == 401
        assert (await server.http.get("/metrics")).status_code == 200
        assert (await server.admin("GET", "/admin/keys")).status_code == 200
    never: dict[str, Any] = {"keyless": "never"}
    async with keyed(upstream, tmp_path / "k.db", host="127.0.0.1", access=never) as server:
        assert (await server.server.chat()).status_code == 401


async def test_behind_a_proxy_that_asks_for_keys_itself(upstream: FakeUpstream, tmp_path: Path):
    open_to_all = {"keyless": "anywhere"}
    async with keyed(upstream, tmp_path / "k.db", access=open_to_all) as server:
        assert (await server.server.chat()).status_code == 200
        for path in ("/admin/keys", "/metrics"):
            assert (await server.http.get(path)).status_code == 401
