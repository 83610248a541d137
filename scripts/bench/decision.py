"""One forward pass against generated JSON, against recomputing, and what the server adds.

    python -m scripts.bench.decision [--checkpoint checkpoints/nano] [--rounds 12]

Method: the same weights run in two vLLM engines of this process's care, prefix caching on: one
pools states (our *pointer*), one generates (our *identifier*, one token; and *json*, the
reference's prompt form with its `{"route": [...]}` answer, held to it by structured output). 8
routes, three exchanges that each variant has decided before, then a new user turn of 60 tokens.
Variants take turns, round by round, with new texts, so that a busy machine slows all alike; the
first round is not counted and medians are given. The identifier and JSON variants are timed, not
judged: the weights are those of a pointer checkpoint.

    latency_ratio      json over pointer (and over identifier), one decision at a time, warm
    throughput_ratio   decisions a second with --concurrent at once, pointer over json
    turn8_ratio        embedded engine without its cache over with it, at the 8th turn
    turns_ms           decision time by turn of a 12-turn conversation, warm, both engines
    server_share_ms    a decision over HTTP, less the forward passes of model and encoder

The last line of output is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from routing.conversation import Conversation, Turn
from routing.layout import choose_identifiers
from routing.manifest import GeneratedReadOut, IdentifierReadOut, Manifest, load_manifest
from scripts.adopt_command import ANSWERS, PROMPT
from scripts.bench.decision_time import NEW_TURN_TOKENS, ROUTES, Texts

TURNS = 12
Decide = Callable[[Conversation], Awaitable[Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare decisions with generated answers.")
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/nano"))
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--concurrent", type=int, default=32)
    arguments = parser.parse_args()
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(_measure(arguments, Path(folder)))))


async def _measure(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    from scripts.base_model import ensure_base
    from serving.engine.checkpoint import read_contract
    from serving.engine.merged import merged_folder

    manifest = load_manifest(arguments.checkpoint)
    base = ensure_base(manifest.base.name) if manifest.weights == "adapter" else None
    contract = read_contract(arguments.checkpoint)
    whole = await asyncio.to_thread(merged_folder, contract, base)
    identifiers = choose_identifiers(contract.tokenizer, 65)
    twins = {
        "identifier": IdentifierReadOut(identifiers=identifiers),
        "json": GeneratedReadOut(
            format="plano-orchestrator", prompt=PROMPT + ANSWERS["plano-orchestrator"]
        ),
    }
    folders = {name: _twin(whole, manifest, name, each, scratch) for name, each in twins.items()}
    texts = Texts(contract.tokenizer, seed=11)
    result: dict[str, Any] = {"checkpoint": manifest.name, "version": manifest.version}
    async with _engines(arguments.checkpoint, base, folders) as engines:
        result |= await _latency(engines, texts, arguments.rounds)
        result |= await _throughput(engines, texts, arguments.concurrent)
        result["turns_ms"] = {"vllm": await _turns(engines["pointer"], texts)}
    result |= await _embedded(arguments.checkpoint, base, texts, arguments.rounds, result)
    result["server_share_ms"] = await _server_share(arguments.checkpoint, base, texts)
    return result


def _twin(whole: Path, manifest: Manifest, name: str, read_out: Any, scratch: Path) -> Path:
    """The same weights under another read-out."""
    folder = scratch / name
    folder.mkdir()
    for path in whole.iterdir():
        if path.is_file() and path.name not in ("manifest.json", "pointer.safetensors"):
            (folder / path.name).symlink_to(path.resolve())
    update = {"read_out": read_out, "weights": "merged", "files": {}, "encoder": None}
    manifest.model_copy(update=update).save(folder)
    return folder


@asynccontextmanager
async def _engines(
    checkpoint: Path, base: Path | None, folders: dict[str, Path]
) -> AsyncIterator[dict[str, Decide]]:
    from serving.config import VllmConfig
    from serving.engine.checkpoint import read_contract
    from serving.engine.configured import configured_engine
    from serving.engine.vllm.engine import VllmEngine
    from serving.engine.vllm.generated import GeneratingEngine
    from serving.engine.vllm.in_process import InProcessReader, VllmSettings

    options = {"enforce_eager": True}
    config = VllmConfig(
        kind="vllm",
        checkpoint=checkpoint,
        base=base,
        dtype="float32",
        options=options,
        max_waiting=256,
    )
    pointer = configured_engine(config, {})
    # One vLLM generates for both: idle engines cost nothing, but their memory does.
    settings = VllmSettings(None, "generated", dtype="float32", options=options)
    reader = InProcessReader(lambda: folders["json"], settings)
    identifier = VllmEngine(read_contract(folders["identifier"]), reader)
    generating = GeneratingEngine(read_contract(folders["json"]), reader)
    try:
        for engine in (pointer, identifier, generating):
            await engine.start()
        named = {"pointer": pointer, "identifier": identifier, "json": generating}
        yield {
            name: lambda conversation, engine=engine: engine.decide(ROUTES, conversation)  # type: ignore[misc]
            for name, engine in named.items()
        }
    finally:
        await pointer.close()
        await reader.close()


def _asked(texts: Texts, history: list[Turn]) -> Conversation:
    return Conversation((*history, Turn("user", texts(NEW_TURN_TOKENS), len(history))))


async def _timed(work: Awaitable[Any]) -> float:
    start = time.perf_counter()
    await work
    return (time.perf_counter() - start) * 1000


async def _latency(engines: dict[str, Decide], texts: Texts, rounds: int) -> dict[str, Any]:
    times: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(rounds + 1):
        for name, decide in engines.items():
            history = texts.history()
            await decide(_asked(texts, history))  # another new turn: caches all before it
            took = await _timed(decide(_asked(texts, history)))
            if number:
                times[name].append(took)
    medians = {name: statistics.median(each) for name, each in times.items()}
    print("one at a time, warm, ms:", {name: round(ms, 1) for name, ms in medians.items()})
    return {
        "latency_ms": {name: round(ms, 1) for name, ms in medians.items()},
        "latency_ratio": round(medians["json"] / medians["pointer"], 2),
        "latency_ratio_identifier": round(medians["json"] / medians["identifier"], 2),
    }


async def _throughput(engines: dict[str, Decide], texts: Texts, concurrent: int) -> dict[str, Any]:
    rates: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(3):
        for name, decide in engines.items():
            histories = [texts.history() for _ in range(concurrent)]
            await asyncio.gather(*(decide(_asked(texts, each)) for each in histories))
            new = [_asked(texts, each) for each in histories]
            took = await _timed(asyncio.gather(*map(decide, new)))
            if number:
                rates[name].append(concurrent / took * 1000)
    means = {name: statistics.mean(each) for name, each in rates.items()}
    print(f"{concurrent} at once, decisions a second:", {n: round(v, 2) for n, v in means.items()})
    return {
        "decisions_per_second": {name: round(rate, 2) for name, rate in means.items()},
        "throughput_ratio": round(means["pointer"] / means["json"], 2),
        "throughput_ratio_identifier": round(means["identifier"] / means["json"], 2),
    }


async def _turns(decide: Decide, texts: Texts, talks: int = 3) -> list[float]:
    """Median decision time at each turn of conversations that grow."""
    times: list[list[float]] = [[] for _ in range(TURNS)]
    for _ in range(talks + 1):
        history: list[Turn] = []
        for turn in range(TURNS):
            conversation = _asked(texts, history)
            times[turn].append(await _timed(decide(conversation)))
            answer = Turn("assistant", texts(NEW_TURN_TOKENS), len(history) + 1)
            history = [*conversation.turns, answer]
    return [round(statistics.median(each[1:]), 1) for each in times]


async def _embedded(
    checkpoint: Path, base: Path | None, texts: Texts, rounds: int, result: dict[str, Any]
) -> dict[str, Any]:
    from serving.engine.embedded import EmbeddedEngine

    cached = EmbeddedEngine(checkpoint, base)
    naive = EmbeddedEngine(checkpoint, base, cache_bytes=0)
    for engine in (cached, naive):
        await engine.start()
    result["turns_ms"]["embedded"] = await _turns(lambda c: cached.decide(ROUTES, c), texts)
    times: dict[str, list[float]] = {"cached": [], "naive": []}
    for _ in range(max(3, rounds // 3)):
        history: list[Turn] = []
        for _ in range(7):
            history.append(Turn("user", texts(NEW_TURN_TOKENS), len(history)))
            history.append(Turn("assistant", texts(NEW_TURN_TOKENS), len(history)))
        await cached.decide(ROUTES, Conversation(tuple(history[:-1])))
        asked = _asked(texts, history)
        times["cached"].append(await _timed(cached.decide(ROUTES, asked)))
        times["naive"].append(await _timed(naive.decide(ROUTES, asked)))
    for engine in (cached, naive):
        await engine.close()
    medians = {name: statistics.median(each) for name, each in times.items()}
    print("turn 8, embedded, ms:", {name: round(ms, 1) for name, ms in medians.items()})
    return {"turn8_ratio": round(medians["naive"] / medians["cached"], 2)}


async def _server_share(checkpoint: Path, base: Path | None, texts: Texts) -> float:
    """Median milliseconds of a decision over HTTP that are no forward pass."""
    import aiohttp

    from serving.app import create_app
    from serving.config import EmbeddedConfig, ServerConfig
    from serving.engine.embedded import EmbeddedEngine
    from serving.engine.encoder import Embedder
    from serving.engine.forward import Forward
    from serving.run import make_server

    spent = 0.0

    def counting(inner: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal spent
            start = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                spent += (time.perf_counter() - start) * 1000

        return call

    plain = Forward.__call__, Embedder._compute
    Forward.__call__ = counting(plain[0])  # type: ignore[method-assign]
    Embedder._compute = counting(plain[1])  # type: ignore[method-assign]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = ServerConfig(engine=EmbeddedConfig(checkpoint=checkpoint, base=base))
    engine = EmbeddedEngine(checkpoint, base)
    server = make_server(create_app(config, engine=engine, environ={}), "127.0.0.1", port)
    task = asyncio.create_task(server.serve())
    preferences = [{"name": r.name, "description": r.description, "models": ["m"]} for r in ROUTES]
    shares: list[float] = []
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            await _ready(http)
            history: list[Turn] = []
            for _ in range(40):
                asked = _asked(texts, history[-6:] if len(history) % 6 else [])
                history = [*asked.turns, Turn("assistant", texts(20), len(asked.turns))]
                messages = [{"role": t.role, "content": t.text} for t in asked.turns]
                body = {"messages": messages, "routing_preferences": preferences}
                spent = 0.0
                start = time.perf_counter()
                async with http.post("/routing/v1/chat/completions", json=body) as response:
                    await response.read()
                    assert response.status == 200, await response.text()
                shares.append((time.perf_counter() - start) * 1000 - spent)
    finally:
        server.stop()
        await task
        Forward.__call__, Embedder._compute = plain  # type: ignore[method-assign]
    return round(statistics.median(shares[4:]), 2)


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


if __name__ == "__main__":
    main()
