"""The HTTP side: routes, body limit, streaming, disconnects, errors in OpenAI's shape."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from serving.local_upstream.generation import Finished, Generation, Generator, Started
from serving.local_upstream.protocol import Answer, RequestError, model_list, parse_request

MAX_BODY_BYTES = 16 * 2**20
BASE_VARIABLE = "POINTSMAN_UPSTREAM_BASE"
THREADS_VARIABLE = "POINTSMAN_UPSTREAM_THREADS"

T = TypeVar("T")


def from_environment() -> Starlette:
    """The app as the command line configures it, for a worker process of its own."""
    base = Path(os.environ[BASE_VARIABLE])
    threads = int(os.environ.get(THREADS_VARIABLE, "2"))
    # A worker that can never answer ends, and its parent with it: whoever started them sees that.
    return create_app(Generator(base, threads=threads, on_failure=lambda: os._exit(1)))


def create_app(generator: Generator) -> Starlette:
    """An app that answers with `generator`, which it loads at its start and closes at its end."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        generator.load()
        yield
        generator.close()

    endpoints = _Endpoints(generator)
    return Starlette(
        lifespan=lifespan,
        routes=[
            Route("/v1/chat/completions", endpoints.chat, methods=["POST"]),
            Route("/v1/models", endpoints.models, methods=["GET"]),
            Route("/healthz", endpoints.health, methods=["GET"]),
        ],
        exception_handlers={RequestError: _request_error, HTTPException: _http_error},
    )


class _Endpoints:
    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._created = int(time.time())

    async def models(self, request: Request) -> Response:
        return _json(model_list(self._created))

    async def health(self, request: Request) -> Response:
        """200 once the model can answer, 503 while it loads or if it could not be loaded."""
        generator = self._generator
        status = "ready" if generator.ready else "failed" if generator.failure else "loading"
        body = {
            "status": status,
            "error": generator.failure,
            "running": generator.running,
            "waiting": generator.waiting,
            "finished": generator.finished,
            "cancelled": generator.cancelled,
        }
        return _json(body, 200 if generator.ready else 503)

    async def chat(self, request: Request) -> Response:
        chat = parse_request(await _body(request))
        generation = self._generator.submit(chat)
        try:
            # Before a stream is begun, a failure can still have its own status.
            events = aiter(generation)
            started = await _unless_gone(request, anext(events))
            assert isinstance(started, Started)
            answer = Answer(chat.model, started.prompt_tokens)
            if chat.stream:
                stream = _stream(generation, events, answer, chat.include_usage)
                return StreamingResponse(stream, media_type="text/event-stream")
            return _json(await _unless_gone(request, _whole(events, answer)))
        except ClientDisconnect:
            generation.cancel()
            return Response(status_code=499)
        except BaseException:
            generation.cancel()
            raise


async def _whole(events: AsyncIterator[Started | str | Finished], answer: Answer) -> Any:
    pieces: list[str] = []
    async for event in events:
        if isinstance(event, str):
            pieces.append(event)
        elif isinstance(event, Finished):
            return answer.whole("".join(pieces), event.reason, event.completion_tokens)
    raise RequestError(500, "generation ended without a reason")


async def _stream(
    generation: Generation,
    events: AsyncIterator[Started | str | Finished],
    answer: Answer,
    include_usage: bool,
) -> AsyncIterator[bytes]:
    try:
        yield _event(answer.chunk({"role": "assistant", "content": ""}))
        async for event in events:
            if isinstance(event, str):
                yield _event(answer.chunk({"content": event}))
            elif isinstance(event, Finished):
                yield _event(answer.chunk({}, event.reason))
                if include_usage:
                    yield _event(answer.usage_chunk(event.completion_tokens))
        yield b"data: [DONE]\n\n"
    except RequestError as error:
        yield _event(error.body)  # and no [DONE]: the answer is not whole
    finally:
        generation.cancel()


async def _unless_gone(request: Request, work: Any) -> Any:
    """The outcome of `work`; raises ClientDisconnect, and cancels it, if the client leaves."""
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for one in (task, watcher):
            one.cancel()


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _body(request: Request) -> Any:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise RequestError(413, f"the body exceeds {MAX_BODY_BYTES} bytes")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(400, f"the body is not JSON: {error}") from None


def _event(data: Any) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\n\n"


def _json(body: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")


async def _request_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    response = _json(error.body, error.status)
    if error.retry_after is not None:
        response.headers["retry-after"] = str(error.retry_after)
    return response


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    return _json(RequestError(error.status_code, message).body, error.status_code)
