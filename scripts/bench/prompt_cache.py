"""A provider of Chat Completions that has a prompt cache, as real ones have, and counts by it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import orjson
from aiohttp import web

BYTES_PER_TOKEN = 4
SMALLEST = 128
"""Tokens of a prefix that are worth caching."""
OUTPUT_TOKENS = 60


class CachingProvider:
    """Each model has a cache of its own: of the messages that a prompt begins with, those are
    cached that the model has read before in the same order."""

    def __init__(self, delay_s: Callable[[str, int], float] = lambda model, number: 0.0) -> None:
        self.asked: list[str] = []
        """Models in the order they were asked."""
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.url = ""
        self._delay = delay_s
        self._asked: Counter[str] = Counter()
        self._read: set[tuple[str, bytes]] = set()
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen on a free port of this machine; `url` is then the base URL."""
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/chat/completions", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/v1"

    async def stop(self) -> None:
        """Close; safe to call twice."""
        if self._runner is not None:
            await self._runner.cleanup()

    def forget(self) -> None:
        """Empty the caches."""
        self._read.clear()

    async def _answer(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        model: str = body["model"]
        self.asked.append(model)
        self._asked[model] += 1
        await asyncio.sleep(self._delay(model, self._asked[model]))
        tokens, cached = self._look_up(model, body["messages"])
        self.prompt_tokens += tokens
        self.cached_tokens += cached
        usage = {
            "prompt_tokens": tokens,
            "completion_tokens": OUTPUT_TOKENS,
            "total_tokens": tokens + OUTPUT_TOKENS,
            "prompt_tokens_details": {"cached_tokens": cached},
        }
        message = {"role": "assistant", "content": "Done."}
        answer = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": model,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": usage,
        }
        return web.Response(body=orjson.dumps(answer), content_type="application/json")

    def _look_up(self, model: str, messages: list[dict[str, Any]]) -> tuple[int, int]:
        """Tokens of a prompt, and how many of them the model's cache held."""
        said = blake2b(digest_size=16)
        size = cached = 0
        for message in messages:
            text = orjson.dumps(message)
            said.update(text)
            size += len(text)
            prefix = (model, said.digest())
            if prefix in self._read and size >= SMALLEST * BYTES_PER_TOKEN:
                cached = size
            self._read.add(prefix)
        return size // BYTES_PER_TOKEN, cached // BYTES_PER_TOKEN
