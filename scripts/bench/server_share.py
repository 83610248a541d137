"""What the server adds to a decision: HTTP, validation, layout, cache, scores, JSON."""

from __future__ import annotations

import asyncio
import json
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from scripts.bench.decision_time import NEW_TURN_TOKENS, ROUTES, Texts
from scripts.places import ROOT

REQUESTS, NOT_COUNTED = 40, 4
TIMEOUT_MS = 30_000
ANSWER_TOKENS = 20
TALK = 6
"""Messages after which a conversation begins anew."""


@dataclass(slots=True)
class _Spent:
    ms: float = 0.0


@contextmanager
def _forward_passes() -> Iterator[_Spent]:
    """Time of forward passes: in the outermost calls of torch modules, of our own passes of Llama
    and BERT, and of the pointer's projections, which are weights of the model too."""
    from torch.nn.modules.module import (
        register_module_forward_hook,
        register_module_forward_pre_hook,
    )

    from routing.pointer import PointerHead
    from serving.engine.bert import BertStates
    from serving.engine.llama import LlamaBackbone

    passes = ((PointerHead, "scores"), (LlamaBackbone, "__call__"), (BertStates, "__call__"))
    spent, local = _Spent(), threading.local()

    def enter(*_: Any) -> None:
        local.depth = getattr(local, "depth", 0) + 1
        if local.depth == 1:
            local.start = time.perf_counter()

    def leave(*_: Any) -> None:
        local.depth -= 1
        if local.depth == 0:
            spent.ms += (time.perf_counter() - local.start) * 1000

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            enter()
            try:
                return function(*arguments)
            finally:
                leave()

        return call

    hooks = (
        register_module_forward_pre_hook(enter),
        register_module_forward_hook(leave, always_call=True),
    )
    with ExitStack() as patches:
        for hook in hooks:
            patches.callback(hook.remove)
        for owner, name in passes:
            patches.enter_context(patch.object(owner, name, timed(getattr(owner, name))))
        yield spent


async def server_share(checkpoint: Path, base: Path | None, texts: Texts) -> float:
    """Median milliseconds of a warm decision over HTTP that are no forward pass.

    The client is a process of its own, whose reading and writing counts as the server's.
    """
    from serving import logs
    from serving.app import create_app
    from serving.config import EmbeddedConfig, Limits, ServerConfig
    from serving.engine.embedded import EmbeddedEngine
    from serving.listening import make_server

    logs.configure("warning")
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
    client = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "scripts.bench.asking", str(port), "/routing/v1/chat/completions"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        limit=2**24,
    )
    assert client.stdin is not None
    assert client.stdout is not None
    shares: list[float] = []
    try:
        await _ready(port)
        with _forward_passes() as spent:
            for body in _bodies(texts):
                spent.ms = 0.0
                client.stdin.write(json.dumps(body).encode() + b"\n")
                took, _, answer = (await client.stdout.readline()).partition(b" ")
                # A request that was not decided is answered too, by fallbacks.
                if json.loads(answer).get("confidence") is None or not spent.ms:
                    raise RuntimeError(f"no decision: {answer.decode()}")
                shares.append(float(took) - spent.ms)
    finally:
        client.stdin.close()
        await client.wait()
        server.stop()
        await task
    share = statistics.median(shares[NOT_COUNTED:])
    print(f"the server's own share of a decision, ms: {share:.2f}", flush=True)
    return round(share, 2)


def _bodies(texts: Texts) -> Iterator[dict[str, Any]]:
    """Requests of conversations that grow by a turn each."""
    preferences = [{"name": r.name, "description": r.description, "models": ["m"]} for r in ROUTES]
    messages: list[dict[str, str]] = []
    for _ in range(REQUESTS):
        if len(messages) >= TALK:
            messages = []
        messages = [*messages, {"role": "user", "content": texts(NEW_TURN_TOKENS)}]
        yield {"messages": messages, "routing_preferences": preferences}
        messages.append({"role": "assistant", "content": texts(ANSWER_TOKENS)})


async def _ready(port: int) -> None:
    import aiohttp

    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
        for _ in range(600):
            try:
                async with http.get("/readyz") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
    raise TimeoutError("the server did not become ready")
