"""Stored keys of providers: encrypted, hot, bound to an origin, never shown."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from access_fakes import FERNET, Keyed, keyed
from cryptography.fernet import Fernet
from serving_fakes import KEY, KEY_ENV, FakeUpstream

STORED = "sk-stored-key-of-a-provider-42"


def switched(upstream: FakeUpstream) -> dict[str, Any]:
    """A provider that waits for its key, and one that has it from the environment."""
    return {
        "later": {"base_url": upstream.url, "api_key_env": "LATER_KEY"},
        "a": {"base_url": upstream.url, "api_key_env": KEY_ENV, "protocol": "anthropic"},
    }


@pytest.fixture
async def server(upstream: FakeUpstream, tmp_path: Path) -> AsyncIterator[Keyed]:
    async with keyed(upstream, tmp_path / "k.db", providers=switched(upstream)) as running:
        yield running


async def put(server: Keyed, name: str, key: Any = STORED) -> Any:
    return await server.admin("PUT", f"/admin/providers/{name}/key", json={"key": key})


async def test_a_stored_key_switches_a_running_provider_on_and_off(
    server: Keyed, upstream: FakeUpstream, tmp_path: Path
):
    key = (await server.make())["key"]
    assert (await server.chat(key, model="later/x")).status_code == 404
    answer = await put(server, "later")
    assert answer.status_code == 200
    assert STORED not in answer.text
    assert (await server.chat(key, model="later/x")).status_code == 200
    assert upstream.headers[-1]["authorization"] == f"Bearer {STORED}"
    listed = await server.admin("GET", "/admin/providers")
    assert STORED not in listed.text
    [later] = [each for each in listed.json()["data"] if each["name"] == "later"]
    assert later["on"]
    assert later["origin"] == upstream.url.removesuffix("/v1")
    with sqlite3.connect(tmp_path / "k.db") as database:
        assert STORED not in "\n".join(database.iterdump())
    assert (await server.admin("DELETE", "/admin/providers/later/key")).status_code == 200
    assert (await server.chat(key, model="later/x")).status_code == 404
    assert (await server.admin("DELETE", "/admin/providers/later/key")).status_code == 404


async def test_the_environments_key_goes_before(server: Keyed, upstream: FakeUpstream):
    key = (await server.make())["key"]
    assert (await put(server, "p")).status_code == 200
    await server.chat(key, model="p/x")
    assert upstream.headers[-1]["authorization"] == f"Bearer {KEY}"


async def test_keys_that_are_no_header_are_refused_unrepeated(server: Keyed):
    for bad in ("", "sk-a\r\nx: y", "sk-ä-secret", "sk secret", 7, None, "x" * 9000):
        answer = await put(server, "later", bad)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "key"
        assert "secret" not in answer.text
    assert (await put(server, "nobody")).status_code == 404


async def test_a_key_is_not_sent_to_another_origin(upstream: FakeUpstream, tmp_path: Path):
    other = FakeUpstream()
    await other.start()
    try:
        async with keyed(upstream, tmp_path / "k.db", providers=switched(upstream)) as server:
            key = (await server.make())["key"]
            await put(server, "later")
        async with keyed(upstream, tmp_path / "k.db", providers=switched(other)) as server:
            refused = await server.chat(key, model="later/x")
            assert refused.status_code == 404
            assert "another origin" in refused.json()["error"]["message"]
        assert not other.requests
    finally:
        await other.stop()


async def test_a_row_moved_to_another_provider_or_origin_is_not_used(
    upstream: FakeUpstream, tmp_path: Path
):
    file = tmp_path / "k.db"
    providers = switched(upstream) | {
        "third": {"base_url": upstream.url, "api_key_env": "THIRD_KEY"}
    }
    async with keyed(upstream, file, providers=providers) as server:
        key = (await server.make())["key"]
        await put(server, "later")
    with sqlite3.connect(file) as database:
        database.execute("UPDATE provider_keys SET provider = 'third'")
    database.close()
    async with keyed(upstream, file, providers=providers) as server:
        assert (await server.chat(key, model="third/x")).status_code == 404


async def test_encryption_keys_can_be_rotated(upstream: FakeUpstream, tmp_path: Path):
    file, new = tmp_path / "k.db", Fernet.generate_key().decode()
    for keys in (FERNET, f"{new},{FERNET}", new):
        environ = {"POINTSMAN_ENCRYPTION_KEYS": keys}
        providers = switched(upstream)
        async with keyed(upstream, file, environ=environ, providers=providers) as server:
            if keys == FERNET:
                key = (await server.make())["key"]
                await put(server, "later")
            assert (await server.chat(key, model="later/x")).status_code == 200, keys


async def test_without_encryption_keys_none_is_stored(upstream: FakeUpstream, tmp_path: Path):
    environ = {"POINTSMAN_ENCRYPTION_KEYS": ""}
    async with keyed(upstream, tmp_path / "k.db", environ=environ) as server:
        answer = await put(server, "p")
        assert (answer.status_code, answer.json()["error"]["code"]) == (
            409,
            "no_provider_key_store",
        )
