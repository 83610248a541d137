"""Canaries: distinct secrets put in everywhere, and looked for wherever something comes out."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from access_fakes import Keyed, bearer, keyed
from serving_fakes import KEY, KEY_ENV, Behaviour, FakeEngine, FakeUpstream

PROMPT = "coding: my canary-prompt-5b1d is private"
ADMIN = "canary-admin-key-77aa"
SECRET = "canary-key-secret-0c0c0c"
STORED = "canary-stored-provider-key-1e1e"
FERNET = "Y2FuYXJ5LWVuY3J5cHRpb24ta2V5LTAwMDAwMDAwMDA="
DATABASE = "canary-database-password-9d9d"
REDIS = "canary-redis-password-3c3c"
SECRETS = {
    "provider key": KEY,
    "admin key": ADMIN,
    "key secret": SECRET,
    "stored key": STORED,
    "encryption key": FERNET,
}


async def broken(*_: Any) -> Any:
    raise RuntimeError(f"{PROMPT} {KEY}")


async def exercise(server: Keyed, upstream: FakeUpstream, key: str) -> list[str]:
    """Everything that answers, errs, or breaks; each answer with its headers, but that which shows
    a new key."""
    told = []

    async def ask(method: str, path: str, bears: str | None = key, **arguments: Any) -> None:
        headers = bearer(bears) if bears else {}
        try:
            answer = await server.http.request(method, path, headers=headers, **arguments)
            told.append(f"{answer.status_code} {answer.headers} {answer.text}")
        except Exception as error:
            told.append(repr(error))

    def body(model: str = "router:work", **fields: Any) -> dict[str, Any]:
        return {
            "model": model,
            "messages": [{"role": "user", "content": PROMPT}],
            "max_tokens": 20,
            **fields,
        }

    for path in ("/v1/chat/completions", "/v1/messages", "/routing/v1/chat/completions"):
        await ask("POST", path, json=body())
        await ask("POST", path, json=body(stream=True))
        await ask("POST", path, json=body("router:nobody"))
        await ask("POST", path, json=body(messages=PROMPT))
        await ask("POST", path, content=PROMPT.encode())
        await ask("POST", path, bears=f"{key}x", json=body())
        await ask("POST", path, bears=None, json=body())
    await ask("POST", "/v1/responses", json={"model": "p/r", "input": PROMPT})
    leaks = {
        "leak-401": Behaviour("error", 401, body=f'{{"error": "Incorrect key {KEY}"}}'.encode()),
        "leak-400": Behaviour(
            "error", 400, body=f'{{"error": {{"message": "bad {KEY}"}}}}'.encode()
        ),
        "leak-500": Behaviour("error", 500, body=f"trace {KEY}".encode()),
        "cut": Behaviour("cut", after=1),
        "redirect": Behaviour("redirect"),
        "bad": Behaviour("bad_json"),
    }
    upstream.models |= leaks
    for model in leaks:
        await ask("POST", "/v1/chat/completions", json=body(f"p/{model}"))
        await ask("POST", "/v1/chat/completions", json=body(f"p/{model}", stream=True))
    await ask("PUT", "/admin/providers/p/key", ADMIN, json={"key": STORED})
    await ask("PUT", "/admin/providers/p/key", ADMIN, json={"key": f"{STORED}\n"})
    await ask("PUT", "/admin/providers/p/key", ADMIN, json={"kee": STORED})
    await ask("PUT", "/admin/providers/p/key", ADMIN, content=f'{{"key": "{STORED}'.encode())
    for path in ("/admin/keys", "/admin/providers", "/metrics", "/openapi.json", "/v1/key"):
        await ask("GET", path, ADMIN)
        await ask("GET", path)
    await ask("GET", "/v1/models")
    await ask("GET", "/readyz", None)
    server.server.engine.script = broken
    await ask("POST", "/v1/chat/completions", json=body(messages=[*body()["messages"]] * 2))
    gateway, server.server.app.state.gateway = server.server.app.state.gateway, None
    await ask("POST", "/v1/chat/completions", json=body())  # a fault of our own
    server.server.app.state.gateway = gateway
    return told


async def test_no_secret_comes_out_anywhere(
    upstream: FakeUpstream,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
):
    caplog.set_level(logging.DEBUG)
    file = tmp_path / "k.db"
    environ = {
        "POINTSMAN_ADMIN_KEY": ADMIN,
        "POINTSMAN_KEY_SECRET": SECRET,
        "POINTSMAN_ENCRYPTION_KEYS": FERNET,
        KEY_ENV: KEY,
    }
    async with keyed(upstream, file, engine=FakeEngine(), environ=environ) as server:
        made = await server.http.post(
            "/admin/keys", json={"name": "n", "monthly_budget": 1}, headers=bearer(ADMIN)
        )
        key = made.json()["key"]
        answers = await exercise(server, upstream, key)
    database = sqlite3.connect(file)
    rows = "\n".join(database.iterdump())
    database.close()
    places = {
        "answers": "\n".join(answers),
        "rows": rows,
        "logs": "".join(capfd.readouterr()) + caplog.text,
    }
    # That they were looked for where there was something to find.
    assert all(word in places["logs"] for word in ("request", "fault", "routing_failed"))
    assert "api_keys" in rows
    for where, text in places.items():
        for name, secret in {**SECRETS, "key": key}.items():
            assert secret not in text, f"{name} in {where}"
            assert secret.encode().hex() not in text.lower(), f"{name} in {where}, in hexadecimal"
    for where in ("rows", "logs"):
        assert "canary-prompt" not in places[where], where


@pytest.mark.parametrize("kind", ["refused", "wrong"])
async def test_passwords_of_stores_that_do_not_answer_are_not_told(
    upstream: FakeUpstream,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    kind: str,
):
    caplog.set_level(logging.DEBUG)
    port = 1 if kind == "refused" else int(upstream.url.split(":")[2].removesuffix("/v1"))
    environ = {"POINTSMAN_REDIS_URL": f"redis://:{REDIS}@127.0.0.1:{port}/0"}
    url = f"postgresql://canary:{DATABASE}@127.0.0.1:{port}/canary"
    async with keyed(upstream, url, environ=environ, wait_ready=False) as server:
        answers = [await server.admin("GET", "/admin/keys"), await server.admin("GET", "/metrics")]
        answers += [await server.http.get("/v1/models", headers=bearer("pm_" + "x" * 43))]
        assert [each.status_code for each in answers] == [503, 200, 503]
    told = "".join(capfd.readouterr()) + caplog.text + "".join(each.text for each in answers)
    assert "database_down" in told
    for secret in (DATABASE, REDIS):
        assert secret not in told
