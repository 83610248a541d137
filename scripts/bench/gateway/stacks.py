"""What is measured: how each stack is configured, started and called."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from scripts.bench.decision_time import ROUTES, WORDS
from scripts.bench.gateway import peers
from scripts.bench.gateway.load import NUMBER, Call
from scripts.bench.gateway.mock import MODEL, Mock
from scripts.bench.gateway.processes import running, wait_for_port
from scripts.places import ROOT
from serving.local_process import free_port

KEY = "sk-bench-9f2c64d07be1483aa5d2c8e1b07f3a96"
"""LiteLLM's master key, and what every stack sends upstream; the upstream is ours."""
START_S = 180
USER_WORDS, ANSWER_WORDS, EXCHANGES = 60, 100, 3

TWO_WORKERS = "pointsman, 2 workers"
KINDS = ("chat", "stream", "bulk")
"""Of answers that every stack is measured on."""
KEPT = 5_000
"""Sessions, and decisions, that our server keeps in memory."""
FAILOVER = "failover"
"""The kind of call whose first model answers 500, and its second as `chat`."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A gateway, or the upstream itself."""

    name: str
    calls: Mapping[str, Call]
    version: str = ""
    command: tuple[str, ...] = ()
    """Empty for the upstream itself."""
    port: int = 0
    environ: Mapping[str, str] = field(default_factory=dict)


Prepare = Callable[[Mock, Path, Path], Stack]
"""A stack for an upstream, with a folder for its files and the cache of peers; raises
NotInstalled."""


class DidNotStart(Exception):
    """A stack that does not listen; the message ends with what it said last."""


@contextmanager
def started(stack: Stack, cores: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The stack's process on its cores, listening."""
    log = folder / f"{stack.name}.log"
    with running(stack.command, cores, log, stack.environ, ROOT) as process:
        if not wait_for_port(process, stack.port, START_S):
            said = log.read_text(errors="replace").strip().splitlines()[-3:]
            raise DidNotStart(f"{stack.name} did not start: {' '.join(said)[-300:]}")
        yield process


def direct(mock: Mock, folder: Path, cache: Path) -> Stack:
    """The upstream without a gateway."""
    return Stack("direct", {kind: _call(mock.base_url(kind), MODEL, kind) for kind in KINDS})


def ceiling(mock: Mock, folder: Path, cache: Path) -> Stack:
    """Our server and HTTP client, passing bytes through."""
    port = free_port("127.0.0.1")
    upstream = mock.base_url("chat").removesuffix("/chat/v1")
    command = (sys.executable, "-m", "scripts.bench.gateway.ceiling", str(port), upstream)
    urls = {kind: f"http://127.0.0.1:{port}/{kind}/v1" for kind in KINDS}
    calls = {kind: _call(url, MODEL, kind) for kind, url in urls.items()}
    return Stack("ceiling", calls, "", command, port)


def pointsman(mock: Mock, folder: Path, cache: Path) -> Stack:
    """Our server: eight tasks a router, a kind of answer each; log and metrics on, as always."""
    return our_server(mock, folder, "pointsman")


def two_workers(mock: Mock, folder: Path, cache: Path) -> Stack:
    """Our server with two worker processes and the engine in a third."""
    return our_server(mock, folder, TWO_WORKERS, workers=2)


def our_server(
    mock: Mock, folder: Path, name: str, *, workers: int = 1, sections: Mapping[str, object] = {}
) -> Stack:
    """Our server with further sections of its configuration, which is in `<name>.yaml`."""
    port = free_port("127.0.0.1")
    pools = {kind: [f"{kind}/{MODEL}"] for kind in KINDS}
    pools[FAILOVER] = [f"broken/{MODEL}", f"chat/{MODEL}"]
    providers = {
        name: {"base_url": mock.base_url(name), "api_key_env": "BENCH_KEY"}
        for name in (*KINDS, "broken")
    }
    config = {
        "listen": {"host": "127.0.0.1", "port": port, "workers": workers},
        "providers": providers,
        "models": {
            f"{name}/{MODEL}": {
                "provider": name,
                "model": MODEL,
                "price": {"input": 0.5, "output": 2},
            }
            for name in providers
        },
        "routers": [
            {
                "name": kind,
                "description": f"Answers of the kind {kind}.",
                "policies": [
                    {
                        "custom_task": {"name": route.name, "description": route.description},
                        "models": models,
                    }
                    for route in ROUTES
                ],
                "fallback_models": [f"chat/{MODEL}"],
            }
            for kind, models in pools.items()
        ],
        # Full early in a soak, so that it shows whether memory grows beyond what is bounded.
        "sessions": {"max_sessions": KEPT},
        "limits": {"remembered_decisions": KEPT},
        **sections,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    command = (sys.executable, "-m", "scripts.bench.gateway.engine_server", str(path))
    base_url = f"http://127.0.0.1:{port}/v1"
    calls = {kind: _call(base_url, f"router:{kind}", kind) for kind in pools}
    return Stack(name, calls, "", command, port, {"BENCH_KEY": KEY})


def litellm(mock: Mock, folder: Path, cache: Path) -> Stack:
    """LiteLLM's proxy with one worker and no database."""
    program, version = peers.litellm(cache)
    port = free_port("127.0.0.1")
    upstreams = {kind: kind for kind in KINDS} | {FAILOVER: "broken"}
    config = {
        "model_list": [
            {
                "model_name": name,
                "litellm_params": {
                    "model": f"openai/{MODEL}",
                    "api_base": mock.base_url(upstream),
                    "api_key": KEY,
                },
            }
            for name, upstream in upstreams.items()
        ],
        "router_settings": {"fallbacks": [{FAILOVER: ["chat"]}]},
        "general_settings": {"master_key": KEY},
    }
    path = folder / "litellm.yaml"
    path.write_text(yaml.safe_dump(config))
    command = (str(program), "--config", str(path), "--host", "127.0.0.1", "--port", str(port))
    base_url = f"http://127.0.0.1:{port}/v1"
    calls = {name: _call(base_url, name, name) for name in upstreams}
    environ = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "127.0.0.1"}
    return Stack("litellm", calls, version, (*command, "--num_workers", "1"), port, environ)


def portkey(mock: Mock, folder: Path, cache: Path) -> Stack:
    """Portkey's gateway, which is told its upstream in each request's headers."""
    script, version = peers.portkey(cache)
    port = free_port("127.0.0.1")
    calls = {}
    for kind in KINDS:
        call = _call(f"http://127.0.0.1:{port}/v1", MODEL, kind)
        headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": mock.base_url(kind)}
        calls[kind] = replace(call, headers={**call.headers, **headers})
    command = ("node", str(script), f"--port={port}", "--headless")
    environ = {"TRUSTED_CUSTOM_HOSTS": "127.0.0.1"}
    return Stack("portkey", calls, version, command, port, environ)


def _call(base_url: str, model: str, kind: str) -> Call:
    """The same conversation for all: three exchanges, then a new user turn."""
    draw = random.Random(7)
    messages = [{"role": "system", "content": f"You are a helpful assistant. ({NUMBER})"}]
    for _ in range(EXCHANGES):
        messages.append({"role": "user", "content": _talk(draw, USER_WORDS)})
        messages.append({"role": "assistant", "content": _talk(draw, ANSWER_WORDS)})
    messages.append({"role": "user", "content": _talk(draw, USER_WORDS)})
    body: dict[str, object] = {"model": model, "messages": messages}
    if kind in ("stream", "bulk"):
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    return Call(f"{base_url}/chat/completions", json.dumps(body), headers)


def _talk(draw: random.Random, words: int) -> str:
    return " ".join(draw.choices(WORDS, k=words))
