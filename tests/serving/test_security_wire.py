"""What a client or an upstream puts on the wire cannot reach further than it should."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from access_fakes import ADMIN, Keyed, bearer, keyed
from serving_fakes import KEY, Behaviour, FakeUpstream

ELSEWHERE = ("base_url", "api_base", "api_key", "custom_host", "url", "organization", "api_version")


@pytest.fixture
async def server(upstream: FakeUpstream, tmp_path: Path) -> AsyncIterator[Keyed]:
    async with keyed(upstream, tmp_path / "keys.db", limits={"idle_s": 0.5}) as running:
        yield running


@pytest.fixture
async def elsewhere() -> AsyncIterator[FakeUpstream]:
    """A server of an attacker."""
    fake = FakeUpstream()
    await fake.start()
    yield fake
    await fake.stop()


async def raw(server: Keyed, sent: bytes, *, wait_s: float = 10) -> bytes:
    """All that a connection answers until it is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.http.base_url.port)
    writer.write(sent)
    try:
        return await asyncio.wait_for(reader.read(), wait_s)
    finally:
        writer.close()


async def test_no_field_and_no_header_chooses_where_to_ask(
    server: Keyed, upstream: FakeUpstream, elsewhere: FakeUpstream
):
    key = (await server.make())["key"]
    headers = bearer(key) | {f"x-{name}": elsewhere.url for name in ELSEWHERE}
    headers |= {"x-portkey-custom-host": elsewhere.url, "x-forwarded-host": elsewhere.url}
    fields = dict.fromkeys(ELSEWHERE, elsewhere.url)
    for path in ("/v1/chat/completions", "/v1/messages", "/v1/responses"):
        answer = await server.server.ask(path, headers=headers, **fields)
        assert answer.status_code == 200, answer.text
    for model in (elsewhere.url, f"{elsewhere.url}/x", "http://127.0.0.1/x", "../p/x", "p@evil/x"):
        assert (await server.chat(key, model=model)).status_code == 404
    # Part of a path is a model's name, sent in the body alone.
    assert (await server.chat(key, model="p/../../admin")).status_code == 200
    assert {path.removeprefix("/v1") for path in upstream.paths} <= {
        "/chat/completions",
        "/responses",
    }
    assert not elsewhere.requests


async def test_redirects_are_not_followed(
    server: Keyed, upstream: FakeUpstream, elsewhere: FakeUpstream
):
    key = (await server.make())["key"]
    upstream.models["code-1"] = Behaviour("error", 307, {"location": elsewhere.url}, b"{}")
    assert (await server.chat(key, model="p/code-1")).status_code == 502
    assert not elsewhere.requests


async def test_only_listed_headers_are_forwarded_either_way(server: Keyed, upstream: FakeUpstream):
    key = (await server.make())["key"]
    upstream.models["code-1"] = Behaviour(
        headers={"set-cookie": "a=b", "x-secret": "s", "server": "s", "x-request-id": "r1"}
    )
    headers = bearer(key) | {
        "x-api-key": key,
        "cookie": "session=1",
        "x-custom": "c",
        "openai-organization": "o",
        "referer": "https://intranet/",
    }
    answer = await server.server.chat(headers=headers)
    assert answer.status_code == 200
    sent = upstream.headers[-1]
    assert set(sent) <= {
        *("host", "content-type", "accept", "accept-encoding", "user-agent", "content-length"),
        "authorization",
    }
    assert sent["authorization"] == f"Bearer {KEY}"
    assert key not in str(sent)
    assert not {"set-cookie", "x-secret"} & set(answer.headers)
    assert answer.headers["x-request-id"] == "r1"


async def test_names_cannot_break_out_of_headers(server: Keyed):
    key = (await server.make())["key"]
    for name in ("p/a\r\nx-injected: 1", "p/ä☃", "p/a\x00b", "p/\u2028", "p/a, x=200"):
        answer = await server.chat(key, model=name)
        assert "x-injected" not in answer.headers
        assert answer.headers.get("x-pointsman-model", "").isascii()
    inline = [{"name": "a\r\nx-injected: 1 ☃", "description": "d", "models": ["p/code-1"]}]
    answer = await server.chat(key, "a\r\nx-injected: 1 ☃", routing_preferences=inline)
    assert "x-injected" not in answer.headers
    for line in (
        b"x-a: 1\r\n b\nx-c: 2",
        b"x-a: \xff\xfe",
        b"x\xc3\xa4: 1",
        b"traceparent: 00-\xe9",
    ):
        told = await raw(
            server,
            b"GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer "
            + key.encode() + b"\r\n" + line + b"\r\n\r\n",
        )  # fmt: skip
        assert told.split()[1] in (b"200", b"400")
    odd = [b"\xff\xfe", b"p\xc3\xa4", b"a b", b"a\tb"]
    for value in odd:
        told = await raw(
            server,
            b"GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-api-key: "
            + value + b"\r\n\r\n",
        )  # fmt: skip
        assert told.split()[1] in (b"401", b"400")


async def test_an_upstreams_headers_cannot_break_an_answer(tmp_path: Path, upstream: FakeUpstream):
    """Bytes that no header of ours may hold are dropped with their header."""
    body = b'{"choices": [{"message": {"role": "assistant", "content": "x"}}]}'

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
            b"x-request-id: \xe2\x98\x83\xff\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            % len(body)
            + body
        )
        await writer.drain()
        writer.close()

    odd = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = odd.sockets[0].getsockname()[1]
    providers = {"odd": {"base_url": f"http://127.0.0.1:{port}"}}
    async with odd, keyed(upstream, tmp_path / "k.db", providers=providers) as server:
        key = (await server.make())["key"]
        told = await server.chat(key, model="odd/x")
        assert told.status_code == 200, told.text
        assert told.headers.get("x-request-id", "").isascii()


def request_of(key: str | None, head: str, body: bytes = b"") -> bytes:
    bears = f"authorization: Bearer {key}\r\n" if key else ""
    return f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n{bears}{head}\r\n".encode() + body


async def test_a_body_without_a_key_is_answered_before_it_has_come(server: Keyed):
    for head in ("content-length: 1000000000\r\n", "transfer-encoding: chunked\r\n"):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.http.base_url.port)
        writer.write(request_of(None, head))
        line = await asyncio.wait_for(reader.readline(), 10)
        assert b" 401 " in line
        # And the connection does not stay open for what never comes.
        await asyncio.wait_for(reader.read(), 20)
        writer.close()


async def test_a_large_body_without_a_key_gets_its_answer(server: Keyed):
    answer = await server.http.post("/v1/chat/completions", content=b"x" * 2_000_000)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"


async def test_a_body_without_end_is_ended(server: Keyed):
    key = (await server.make())["key"]
    reader, writer = await asyncio.open_connection("127.0.0.1", server.http.base_url.port)
    writer.write(request_of(key, "transfer-encoding: chunked\r\n", b"5\r\nhello\r\n"))
    told = await asyncio.wait_for(reader.read(), 20)
    assert b" 408 " in told.split(b"\r\n")[0]
    writer.close()


async def test_admins_bodies_are_bounded_too(tmp_path: Path, upstream: FakeUpstream):
    async with keyed(upstream, tmp_path / "k.db", limits={"body_bytes": 1000}) as server:
        for method, path in (
            ("POST", "/admin/keys"),
            ("PATCH", "/admin/keys/x"),
            ("POST", "/admin/keys/x/rotate"),
            ("PUT", "/admin/providers/p/key"),
            ("POST", "/admin/checkpoint"),
        ):
            answer = await server.http.request(
                method, path, content=b" " * 5000, headers=bearer(ADMIN)
            )
            assert answer.status_code == 413, path
