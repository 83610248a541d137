"""A provider on a real socket that speaks all three protocols, with scripted faults."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


@dataclass
class Behaviour:
    """How the provider answers for one model."""

    kind: str = "ok"
    """ok, error, html, bad_json, huge, drip, hang, cut, comments, error_event, error_midway,
    error_in_answer, redirect."""
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    after: int = 2
    """Pieces of text before a stream is cut or hangs."""
    text: str = "Hello, world!"
    answer: dict[str, Any] | None = None
    """A whole answer instead of one with `text`."""
    events: list[bytes] | None = None
    """A whole stream instead of one with `text`."""


class FakeUpstream:
    """Remembers what it was asked."""

    def __init__(self) -> None:
        self.models: dict[str, Behaviour] = {}
        self.requests: list[dict[str, Any]] = []
        self.raw: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.dropped = asyncio.Event()
        """Set when a client left while an answer hung."""
        self.release = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self.url = ""

    @property
    def asked(self) -> list[str]:
        """Upstream model names in the order they were asked."""
        return [request["model"] for request in self.requests]

    @property
    def connections(self) -> int:
        """Open connections, idle ones too."""
        assert self._runner is not None
        assert self._runner.server is not None
        return len(self._runner.server.connections)

    async def start(self) -> None:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/v1"

    async def stop(self) -> None:
        self.release.set()
        assert self._runner is not None
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        body = orjson.loads(raw)
        self.raw.append(raw)
        self.requests.append(body)
        self.headers.append({k.lower(): v for k, v in request.headers.items()})
        self.paths.append(request.path)
        how = self.models.get(body["model"], Behaviour())
        if how.kind == "error":
            default = orjson.dumps(
                {"error": {"message": "scripted", "type": "t", "param": None, "code": "c"}}
            )
            content = default if how.body is None else how.body
            headers = {"content-type": "application/json", **how.headers}
            return web.Response(status=how.status, body=content, headers=headers)
        if how.kind == "redirect":
            raise web.HTTPTemporaryRedirect(f"{self.url}/elsewhere")
        if how.kind == "html":
            return web.Response(text="<html>gateway</html>", content_type="text/html")
        if how.kind == "bad_json":
            return web.Response(body=b'{"id": "chatcmpl-1", "cho', content_type="application/json")
        if how.kind == "error_in_answer":
            return web.json_response({"error": {"message": "no capacity", "code": 502}})
        if how.kind == "hang" and how.after == 0:
            await self._hang()
        wire = next((w for path, w in _WIRES.items() if request.path.endswith(path)), _chat)
        if body.get("stream"):
            return await self._stream(request, wire(body, how)[1], how)
        return await self._whole(request, wire(body, how)[0], how)

    async def _hang(self) -> None:
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.dropped.set()
            raise

    async def _whole(
        self, request: web.Request, answer: dict[str, Any], how: Behaviour
    ) -> web.StreamResponse:
        content = orjson.dumps(how.answer or answer)
        headers = {"content-type": "application/json", **how.headers}
        if how.kind not in ("cut", "drip", "huge"):
            return web.Response(body=content, headers=headers)
        length = {"content-length": str(len(content))} if how.kind != "huge" else {}
        response = web.StreamResponse(headers={**headers, **length})
        await response.prepare(request)
        if how.kind == "huge":
            for _ in range(64):
                await response.write(b" " * 2**16)
            return response
        if how.kind == "drip":
            for start in range(0, len(content), 20):
                await response.write(content[start : start + 20])
                await asyncio.sleep(0.005)
            return response
        await response.write(content[:20])
        assert request.transport is not None
        request.transport.abort()
        return response

    async def _stream(
        self, request: web.Request, events: list[bytes], how: Behaviour
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream", **how.headers})
        response.enable_chunked_encoding()
        await response.prepare(request)
        assert request.transport is not None
        if how.kind == "comments":
            await response.write(b": waiting\n\n")
            await asyncio.sleep(0.02)
            request.transport.abort()
            return response
        if how.kind == "error_event":
            await response.write(b'data: {"error": {"message": "overloaded", "code": 529}}\n\n')
            return response
        for number, event in enumerate(how.events or events):
            if number == how.after and how.kind == "cut":
                await response.write(b'data: {"id": "half an ev')
                await asyncio.sleep(0.02)
                request.transport.abort()
                return response
            if number == how.after and how.kind == "error_midway":
                await response.write(b'data: {"error": {"message": "ran dry", "code": 500}}\n\n')
                return response
            if number == how.after and how.kind == "ended_early":
                return response
            if number == how.after and how.kind == "hang":
                await self._hang()
            if how.kind == "drip":
                for at in range(0, len(event), 7):
                    await response.write(event[at : at + 7])
                    await asyncio.sleep(0.001)
            elif how.kind == "huge":
                await response.write(b"data: " * (number == 0) + b'{"x":"' + b"x" * 2**19)
            else:
                await response.write(event)
        return response


def data(value: Any, name: str | None = None) -> bytes:
    """An event."""
    lead = f"event: {name}\n".encode() if name else b""
    return lead + b"data: " + orjson.dumps(value) + b"\n\n"


Wire = tuple[dict[str, Any], list[bytes]]


def _chat(body: dict[str, Any], how: Behaviour) -> Wire:
    model = body["model"]
    message = {"role": "assistant", "content": how.text}
    answer = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": USAGE,
    }
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model}
    deltas = [{"role": "assistant", "content": piece + " "} for piece in how.text.split(" ")]
    chunks = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        for delta in deltas
    ]
    chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if (body.get("stream_options") or {}).get("include_usage"):
        chunks = [{**chunk, "usage": None} for chunk in chunks]
        chunks.append({**head, "choices": [], "usage": USAGE})
    return answer, [*map(data, chunks), b"data: [DONE]\n\n"]


def _messages(body: dict[str, Any], how: Behaviour) -> Wire:
    usage = {"input_tokens": 11, "output_tokens": 7}
    answer = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [{"type": "text", "text": how.text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": usage,
    }
    started = {**answer, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    block = {"type": "text", "text": ""}
    events = [
        {"type": "message_start", "message": started},
        {"type": "content_block_start", "index": 0, "content_block": block},
        *(
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": piece + " "},
            }
            for piece in how.text.split(" ")
        ),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 7},
        },
        {"type": "message_stop"},
    ]
    return answer, [data(event, event["type"]) for event in events]


def _responses(body: dict[str, Any], how: Behaviour) -> Wire:
    item = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": how.text, "annotations": []}],
    }
    answer = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": body["model"],
        "status": "completed",
        "error": None,
        "output": [item],
        "usage": {
            "input_tokens": 11,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 7,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 18,
        },
    }
    begun = {**answer, "status": "in_progress", "output": [], "usage": None}
    at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    events = [
        {"type": "response.created", "response": begun},
        *(
            {"type": "response.output_text.delta", "delta": piece + " ", **at}
            for piece in how.text.split(" ")
        ),
        {"type": "response.completed", "response": answer},
    ]
    return answer, [
        data({**event, "sequence_number": n}, event["type"]) for n, event in enumerate(events)
    ]


def _embeddings(body: dict[str, Any], how: Behaviour) -> Wire:
    entry = {"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}
    usage = {"prompt_tokens": 11, "total_tokens": 11}
    return {"object": "list", "data": [entry], "model": body["model"], "usage": usage}, []


_WIRES = {"/messages": _messages, "/responses": _responses, "/embeddings": _embeddings}
