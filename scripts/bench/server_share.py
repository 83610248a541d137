"""What the server adds to a decision: HTTP, validation, layout, cache, scores, JSON."""

from __future__ import annotations

import asyncio
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from routing.conversation import Turn
from scripts.bench.decision_time import NEW_TURN_TOKENS, ROUTES, Texts

REQUESTS, NOT_COUNTED = 40, 4
TIMEOUT_MS = 30_000
TALK = 6
"""Turns after which a conversation begins anew."""


@dataclass(slots=True)
class _Spent:
    ms: float = 0.0


@contextmanager
def _forward_passes() -> Iterator[_Spent]:
    """Time in the outermost calls of torch modules: the passes of model and encoder, alone."""
    from torch.nn.modules.module import (
        register_module_forward_hook,
        register_module_forward_pre_hook,
    )

    spent, local = _Spent(), threading.local()

    def enter(module: Any, args: Any) -> None:
        local.depth = getattr(local, "depth", 0) + 1
        if local.depth == 1:
            local.start = time.perf_counter()

    def leave(module: Any, args: Any, output: Any) -> None:
        local.depth -= 1
        if local.depth == 0:
            spent.ms += (time.perf_counter() - local.start) * 1000

    hooks = (
        register_module_forward_pre_hook(enter),
        register_module_forward_hook(leave, always_call=True),
    )
    try:
        yield spent
    finally:
        for hook in hooks:
            hook.remove()


async def server_share(checkpoint: Path, base: Path | None, texts: Texts) -> float:
    """Median milliseconds of a warm decision over HTTP that are no forward pass.

    Client and server share a process, so that the client's own time counts as the server's.
    """
    import aiohttp

    from serving.app import create_app
    from serving.config import EmbeddedConfig, Limits, ServerConfig
    from serving.engine.embedded import EmbeddedEngine
    from serving.listening import make_server

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = ServerConfig(
        engine=EmbeddedConfig(checkpoint=checkpoint, base=base),
        limits=Limits(decision_timeout_ms=TIMEOUT_MS),
    )
    engine = EmbeddedEngine(checkpoint, base)
    server = make_server(create_app(config, engine=engine, environ={}), "127.0.0.1", port)
    task = asyncio.create_task(server.serve())
    preferences = [{"name": r.name, "description": r.description, "models": ["m"]} for r in ROUTES]
    shares: list[float] = []
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            await _ready(http)
            history: list[Turn] = []
            with _forward_passes() as spent:
                for _ in range(REQUESTS):
                    if len(history) >= TALK:
                        history = []
                    history.append(Turn("user", texts(NEW_TURN_TOKENS), len(history)))
                    messages = [{"role": t.role, "content": t.text} for t in history]
                    body = {"messages": messages, "routing_preferences": preferences}
                    spent.ms, start = 0.0, time.perf_counter()
                    async with http.post("/routing/v1/chat/completions", json=body) as response:
                        answer = await response.json()
                        took = (time.perf_counter() - start) * 1000
                    # A request that was not decided is answered too, by fallbacks.
                    if answer.get("confidence") is None or not spent.ms:
                        raise RuntimeError(f"no decision: {answer}")
                    shares.append(took - spent.ms)
                    history.append(Turn("assistant", texts(20), len(history)))
    finally:
        server.stop()
        await task
    share = statistics.median(shares[NOT_COUNTED:])
    print(f"the server's own share of a decision, ms: {share:.2f}", flush=True)
    return round(share, 2)


async def _ready(http: Any) -> None:
    import aiohttp

    for _ in range(600):
        try:
            async with http.get("/readyz") as response:
                if response.status == 200:
                    return
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.1)
    raise TimeoutError("the server did not become ready")
