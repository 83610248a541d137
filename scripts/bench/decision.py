"""One forward pass against generated JSON, against recomputing, and what the server adds.

    python -m scripts.bench.decision [--checkpoint checkpoints/nano] [--rounds 12]

Method: two vLLM engines as this server runs them, prefix caching on, serve the same weights: one
pools states (our *pointer*), one generates (our *identifier*, one token; and *json*, the
reference's prompt form and its `{"route": ["name"]}` answer, held by structured output to name each
route in turn, so that answers are as long as they are on average). 8 routes, three exchanges that
each variant has decided before, then a new user turn of 60 tokens. Variants take turns, round by
round, with new texts, so that a busy machine slows all alike; the first round is not counted,
medians are given. While one engine is asked the other sleeps: `idle_cores` is what both used while
nothing was asked, and has to be next to 0 for the comparison to be fair. The identifier and JSON
variants are timed, not judged: the weights are those of a pointer checkpoint. Last, without vLLM,
the embedded engine and the server around it.

    latency_ratio      json over pointer (and over identifier), one decision at a time, warm
    throughput_ratio   decisions a second with --concurrent at once, warm, pointer over json
    turn8_ratio        embedded engine without its cache over with it, at the 8th turn
    turns_ms           decision time by turn of a 12-turn conversation, both engines
    turns_tokens       prompt tokens computed in each, of vLLM
    turns_spread       slowest over fastest of turns 2 to 12 in that, less 1
    server_share_ms    a decision over HTTP, less the forward passes of model and encoder
    tokens_computed    prompt tokens of a warm decision that the prefix cache did not have

The last line of output is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from routing.conversation import Conversation, Turn
from routing.layout import choose_identifiers
from routing.manifest import GeneratedReadOut, IdentifierReadOut, Manifest, load_manifest
from scripts.adopt_command import ANSWERS, PROMPT
from scripts.bench.decision_time import NEW_TURN_TOKENS, ROUTES, Texts

TURNS = 12
IDLE_S = 3.0
FORMAT = "plano-orchestrator"
Decide = Callable[[Conversation], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to decide, and how many prompt tokens its vLLM has computed so far."""

    decide: Decide
    computed: Callable[[], int]


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare decisions with generated answers.")
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/nano"))
    parser.add_argument("--rounds", type=int, default=12, help="of one decision at a time")
    parser.add_argument("--concurrent", type=int, default=32)
    parser.add_argument("--concurrent-rounds", type=int, default=4)
    parser.add_argument("--talks", type=int, default=5, help="conversations of 12 turns")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(_measure(arguments, Path(folder)))))


async def _measure(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    from scripts.base_model import ensure_base
    from scripts.bench.server_share import server_share
    from serving.engine.contract import read_contract
    from serving.engine.merged import merged_folder

    start = time.perf_counter()
    manifest = load_manifest(arguments.checkpoint)
    base = ensure_base(manifest.base.name) if manifest.weights == "adapter" else None
    contract = read_contract(arguments.checkpoint)
    whole = await asyncio.to_thread(merged_folder, contract, base)
    twins = {
        "identifier": IdentifierReadOut(identifiers=choose_identifiers(contract.tokenizer, 65)),
        "json": GeneratedReadOut(format=FORMAT, prompt=PROMPT + ANSWERS[FORMAT]),
    }
    folders = {name: _twin(whole, manifest, name, each, scratch) for name, each in twins.items()}
    texts = Texts(contract.tokenizer, seed=11)
    result: dict[str, Any] = {"checkpoint": manifest.name, "version": manifest.version}
    answers: list[str] = []
    cache = _cache_bytes(whole, arguments.concurrent)
    async with _variants(arguments.checkpoint, base, folders, cache, answers) as variants:
        result["idle_cores"] = await _idle_cores()
        result |= await _latency(variants, texts, arguments.rounds)
        result |= await _throughput(
            variants, texts, arguments.concurrent, arguments.concurrent_rounds
        )
        turned = await _turns(variants["pointer"], texts, arguments.talks)
        turns = {"vllm": turned[0]}
        result["turns_tokens"] = turned[1]
    lengths = [len(contract.tokenizer.encode(answer)) + 1 for answer in answers]  # and the end
    result["json_answer_tokens"] = round(statistics.mean(lengths), 1)
    turns["embedded"], result["turn8_ratio"] = await _embedded(
        arguments.checkpoint, base, texts, arguments.talks
    )
    result |= {"turns_ms": turns, "turns_spread": {n: _spread(each) for n, each in turns.items()}}
    result["server_share_ms"] = await server_share(arguments.checkpoint, base, texts)
    return result | {"took_s": round(time.perf_counter() - start)}


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


def _cache_bytes(whole: Path, concurrent: int) -> int:
    """Room for what two variants keep of so many conversations, so that nothing warm is let go."""
    config = json.loads((whole / "config.json").read_text(encoding="utf-8"))
    heads = config["num_key_value_heads"]
    size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    token = 2 * config["num_hidden_layers"] * heads * size * 4
    return int(token * (concurrent + 8) * 2500)


@asynccontextmanager
async def _variants(
    checkpoint: Path, base: Path | None, folders: dict[str, Path], cache: int, answers: list[str]
) -> AsyncIterator[dict[str, Variant]]:
    from serving.config import VllmConfig
    from serving.engine.configured import configured_engine
    from serving.engine.contract import read_contract
    from serving.engine.vllm.engine import VllmEngine
    from serving.engine.vllm.generated import answer_schema, answer_tokens, question
    from serving.engine.vllm.in_process import InProcessReader, VllmSettings

    options = {"kv_cache_memory_bytes": cache}
    config = VllmConfig(
        kind="vllm", checkpoint=checkpoint, base=base, options=options, max_waiting=256
    )
    pointer = configured_engine(config, {})
    assert isinstance(pointer, VllmEngine)
    # One vLLM generates for both: their prompts differ from the first token on.
    settings = VllmSettings(None, "generated", options=options)
    reader = InProcessReader(lambda: folders["json"], settings)
    identifier = VllmEngine(read_contract(folders["identifier"]), reader)
    asked = load_manifest(folders["json"]).read_out
    assert isinstance(asked, GeneratedReadOut)
    # Weights that were not trained for it would answer with no route, or with many.
    turn = itertools.cycle([route.name for route in ROUTES])

    async def generate(conversation: Conversation) -> None:
        text, name = question(asked, ROUTES, conversation), next(turn)
        schema = answer_schema(asked, [name])
        schema["properties"]["route"]["minItems"] = 1
        answer, _ = await reader.generate(text, schema, answer_tokens([name]))
        if json.loads(answer) != {"route": [name]}:
            raise RuntimeError(f"an answer of another form: {answer}")
        answers.append(answer)

    try:
        for engine in (pointer, identifier):
            await engine.start()
        print("vLLM runs twice", flush=True)

        def generated_tokens() -> int:
            return reader.counts.prompt - reader.counts.cached

        yield {
            "pointer": Variant(
                lambda asked: pointer.decide(ROUTES, asked),
                lambda: int(pointer.metrics().tokens_computed),
            ),
            "identifier": Variant(lambda asked: identifier.decide(ROUTES, asked), generated_tokens),
            "json": Variant(generate, generated_tokens),
        }
    finally:
        await pointer.close()
        await identifier.close()


async def _idle_cores() -> float:
    """Cores that the engines' processes use while nothing is asked of them."""
    import psutil

    def used() -> float:
        children = psutil.Process().children(recursive=True)
        return sum(sum(child.cpu_times()[:2]) for child in children)

    await asyncio.sleep(1)
    before = used()
    await asyncio.sleep(IDLE_S)
    return round((used() - before) / IDLE_S, 2)


def _asked(texts: Texts, history: list[Turn]) -> Conversation:
    return Conversation((*history, Turn("user", texts(NEW_TURN_TOKENS), len(history))))


async def _timed(work: Awaitable[Any]) -> float:
    start = time.perf_counter()
    await work
    return (time.perf_counter() - start) * 1000


async def _latency(variants: dict[str, Variant], texts: Texts, rounds: int) -> dict[str, Any]:
    times: dict[str, list[float]] = {name: [] for name in variants}
    computed: dict[str, list[int]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, variant in variants.items():
            history = texts.history()
            await variant.decide(_asked(texts, history))  # another new turn: caches all before it
            asked, before = _asked(texts, history), variant.computed()
            took = await _timed(variant.decide(asked))
            if number:
                times[name].append(took)
                computed[name].append(variant.computed() - before)
    medians = {name: statistics.median(each) for name, each in times.items()}
    print("one at a time, warm, ms:", _rounded(medians), flush=True)
    return {
        "latency_ms": _rounded(medians),
        "latency_range_ms": {name: [round(min(e)), round(max(e))] for name, e in times.items()},
        "latency_ratio": round(medians["json"] / medians["pointer"], 2),
        "latency_ratio_identifier": round(medians["json"] / medians["identifier"], 2),
        "tokens_computed": {name: statistics.median(each) for name, each in computed.items()},
    }


async def _throughput(
    variants: dict[str, Variant], texts: Texts, concurrent: int, rounds: int
) -> dict[str, Any]:
    histories = {name: [texts.history() for _ in range(concurrent)] for name in variants}
    times: dict[str, list[float]] = {name: [] for name in variants}
    computed: dict[str, list[int]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, variant in variants.items():
            asked, before = [_asked(texts, each) for each in histories[name]], variant.computed()
            took = await _timed(asyncio.gather(*map(variant.decide, asked)))
            if number:  # the first reads the histories
                times[name].append(took)
                computed[name].append((variant.computed() - before) // concurrent)
    rates = {name: concurrent / statistics.median(each) * 1000 for name, each in times.items()}
    print(f"{concurrent} at once, warm, decisions a second:", _rounded(rates), flush=True)
    return {
        "decisions_per_second": _rounded(rates),
        "throughput_ratio": round(rates["pointer"] / rates["json"], 2),
        "throughput_ratio_identifier": round(rates["identifier"] / rates["json"], 2),
        "tokens_computed_concurrent": {
            name: statistics.median(each) for name, each in computed.items()
        },
    }


async def _turns(variant: Variant, texts: Texts, talks: int) -> tuple[list[float], list[int]]:
    """Median time, and tokens, of each turn of conversations that grow; the first warms up."""
    times: list[list[float]] = [[] for _ in range(TURNS)]
    tokens = [0] * TURNS
    for _ in range(talks + 1):
        history: list[Turn] = []
        for turn in range(TURNS):
            conversation, before = _asked(texts, history), variant.computed()
            times[turn].append(await _timed(variant.decide(conversation)))
            tokens[turn] = variant.computed() - before
            answer = Turn("assistant", texts(NEW_TURN_TOKENS), len(history) + 1)
            history = [*conversation.turns, answer]
    found = [round(statistics.median(each[1:]), 1) for each in times]
    print("by turn, ms:", found, "tokens computed:", tokens, flush=True)
    return found, tokens


def _spread(turns: list[float]) -> float:
    return round(max(turns[1:]) / min(turns[1:]) - 1, 2)


async def _embedded(
    checkpoint: Path, base: Path | None, texts: Texts, talks: int
) -> tuple[list[float], float]:
    """Time by turn with the cache, and without it over with it at the 8th turn."""
    from serving.engine.embedded import EmbeddedEngine

    cached = EmbeddedEngine(checkpoint, base)
    naive = EmbeddedEngine(checkpoint, base, cache_bytes=0)
    for engine in (cached, naive):
        await engine.start()
    variant = Variant(
        lambda asked: cached.decide(ROUTES, asked), lambda: int(cached.metrics().tokens_computed)
    )
    turns, _ = await _turns(variant, texts, talks)
    times: dict[str, list[float]] = {"cached": [], "naive": []}
    for _ in range(talks):
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
    print("turn 8, embedded, ms:", _rounded(medians), flush=True)
    return turns, round(medians["naive"] / medians["cached"], 2)


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 2 if value < 100 else 1) for name, value in values.items()}


if __name__ == "__main__":
    main()
