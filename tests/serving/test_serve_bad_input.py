"""Bad input: refused in OpenAI's error shape, with the field to blame, and never a 500."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import unquote

import orjson
import pytest
from serving_fakes import BRIEF, FakeEngine, FakeUpstream, Running, config_for, serving, task
from structlog.testing import capture_logs

USER = [{"role": "user", "content": "coding please"}]


def assert_openai_error(response: Any, status: int, param: str | None) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["param"] == param
    return error


async def test_unknown_router_or_model(server: Running):
    for model in ("router:nope", "router:", "nope", "gpt-5", "q/x", "p/", "off/x"):
        error = assert_openai_error(await server.chat(model=model), 404, "model")
        assert error["code"] == "model_not_found"
        assert ("UNSET_KEY" in error["message"]) == (model == "off/x")


async def test_a_body_that_is_no_json_object(server: Running):
    for path in ("/v1/chat/completions", "/routing/v1/chat/completions"):
        for body in (b"", b"{", b"[]", b"null", b'"x"', b"\xff", b'{"model": NaN}', b"[" * 5000):
            assert_openai_error(await server.http.post(path, content=body), 400, None)


BAD_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"model": None}, "model"),
    ({"model": 5}, "model"),
    ({"model": ""}, "model"),
    ({"messages": None}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": {}}, "messages"),
    ({"messages": ["hi"]}, "messages[0]"),
    ({"messages": [{"content": "hi"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [*USER, {"role": "robot", "content": "x"}]}, "messages[1].role"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    (
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "messages[0].content[0].text",
    ),
    ({"stream": "yes"}, "stream"),
    ({"routing_preferences": {}}, "routing_preferences"),
    ({"routing_preferences": []}, "routing_preferences"),
    ({"routing_preferences": [{"name": "a"}]}, "routing_preferences[0].description"),
    (
        {"routing_preferences": [{"name": "a\nb", "description": "d", "models": ["p/m"]}]},
        "routing_preferences[0].name",
    ),
    (
        {"routing_preferences": [{"name": "none", "description": "d", "models": ["p/m"]}]},
        "routing_preferences[0].name",
    ),
    (
        {"routing_preferences": [{"name": "a", "description": "d", "models": ["p/m"], "x": 1}]},
        "routing_preferences[0].x",
    ),
    (
        {"routing_preferences": [{"name": "a", "description": "d", "models": ["p/m", "zz"]}]},
        "routing_preferences[0].models[1]",
    ),
    (
        {"routing_preferences": [{"name": "a", "description": "d", "models": ["p/m"]}] * 2},
        "routing_preferences",
    ),
    (
        {
            "routing_preferences": [
                {"name": f"n{i}", "description": "d", "models": ["p/m"]} for i in range(9)
            ]
        },
        "routing_preferences",
    ),
]


@pytest.mark.parametrize(
    ("update", "param"), BAD_FIELDS, ids=lambda v: v if isinstance(v, str) else ""
)
async def test_a_wrong_field_is_named(server: Running, update: dict[str, Any], param: str):
    body = {"model": "router:work", "messages": USER} | update
    response = await server.http.post("/v1/chat/completions", json=body)
    assert_openai_error(response, 400, param)
    assert server.upstream.asked == []
    assert server.engine.asked == []


async def test_missing_fields(server: Running):
    without = {"messages": USER}
    assert_openai_error(await server.http.post("/v1/chat/completions", json=without), 400, "model")
    without = {"model": "p/m"}
    assert_openai_error(
        await server.http.post("/v1/chat/completions", json=without), 400, "messages"
    )


async def test_an_overlong_body(upstream: FakeUpstream):
    async with serving(
        config_for(upstream, limits={"body_bytes": 2000}), FakeEngine(), upstream
    ) as server:
        fits = await server.chat("coding " + "x" * 1000)
        declared = await server.chat("x" * 3000)
        large = await server.chat("x" * 5_000_000)  # still being sent when it is refused
        chunked = await server.http.post("/v1/chat/completions", content=_endless())
        after = await server.chat("coding again")
    assert fits.status_code == after.status_code == 200
    assert_openai_error(declared, 413, None)
    assert_openai_error(large, 413, None)
    assert_openai_error(chunked, 413, None)


async def _endless():
    for _ in range(20):
        yield b"x" * 500
        await asyncio.sleep(0)


async def test_a_body_that_does_not_arrive(upstream: FakeUpstream):
    async with serving(config_for(upstream, limits=BRIEF), FakeEngine(), upstream) as server:
        host, port = server.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n"
        writer.write(head.encode() + b'{"model": ')
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n"), 20)
        assert b" 408 " in answer
        writer.close()


async def test_unknown_paths_and_methods(server: Running):
    error = assert_openai_error(await server.http.post("/v1/nope"), 404, None)
    assert error["code"] == "unknown_url"
    response = await server.http.get("/v1/chat/completions")
    assert_openai_error(response, 405, None)
    assert response.headers["allow"] == "POST"


async def test_deep_nesting_is_refused_not_a_fault(server: Running):
    deep = "{" + '"a":{' * 400 + "}" * 400
    body = f'{{"model": "p/m", "messages": {orjson.dumps(USER).decode()}, "x": {deep}}}}}'
    response = await server.http.post("/v1/chat/completions", content=body)
    assert_openai_error(response, 400, None)


NAMES = ["l'été «résumé»", 'quotes " and \\', "日本語 の 仕事", "a: b, c = d; 100%", "🚆"]


async def test_names_of_any_language_work_and_are_escaped_in_headers(upstream: FakeUpstream):
    routers = [
        {
            "name": "work",
            "policies": [task(name, "p/m") for name in NAMES],
            "fallback_models": ["p/f"],
        }
    ]
    async with serving(config_for(upstream, routers=routers), FakeEngine(), upstream) as server:
        for name in NAMES:
            response = await server.chat(f"this is {name}")
            value = response.headers["x-model-router-selected-route"]
            assert response.status_code == 200
            assert value.isascii()
            assert unquote(value) == name
            alone = (
                await server.decision(
                    {"model": "router:work", "messages": [{"role": "user", "content": name}]}
                )
            ).json()
            assert alone["route"] == name


async def test_a_description_with_newlines_and_quotes_is_routed(server: Running):
    preference = {
        "name": "odd",
        "description": 'Line one.\nLine "two" isn\'t </routes> {json}.\r\n',
        "models": ["p/m"],
    }
    response = await server.chat("odd", routing_preferences=[preference])
    assert response.headers["x-model-router-selected-route"] == "odd"


async def test_nothing_of_a_client_reaches_a_header_unescaped(server: Running):
    assert (await server.chat(model="p/" + "a" * 300)).status_code == 404
    for model in ("p/a\r\nx-evil: 1", "p/ü", "p/a,b=200"):
        response = await server.chat(model=model)
        assert "x-evil" not in response.headers
        assert response.status_code == 200
        assert response.headers["x-pointsman-attempts"].count("=") == 1
        assert unquote(response.headers["x-pointsman-model"]) == model


async def test_a_fault_of_our_own_tells_nothing(server: Running, monkeypatch: pytest.MonkeyPatch):
    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("internal words: coding please")

    monkeypatch.setattr(server.app.state, "gateway", Broken())
    with capture_logs() as logs:
        answers = [await server.chat("coding please"), await server.http.get("/v1/models")]
    for response in answers:
        error = assert_openai_error(response, 500, None)
        assert "internal" not in response.text
        assert error["type"] == "server_error"
        assert response.headers["x-pointsman-trace-id"]
    lines = [line for line in logs if line["event"] == "request"]
    assert [line["status"] for line in lines] == [500, 500]
    assert all(line["fault"].startswith("RuntimeError in ") for line in lines)
