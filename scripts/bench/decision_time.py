"""Time of one decision of the embedded engine, by what its cache already holds.

    python -m scripts.bench.decision_time [--checkpoint checkpoints/nano] [--repetitions 15]

Method: 8 routes, a history of three exchanges, then a user turn of 60 tokens of text. In one
process, on one thread with `--threads` CPU threads, the cases are timed in turn, round by round, so
that a busy machine slows all alike. Before each timed decision the process rests for `--rest`
seconds: a shared machine that has just computed for long gives the next pass less (every operation
of it takes half as long again, those that compute nothing too), which would charge one case for the
one before it. Every round has new texts. The first round is not counted; medians are given. Timed
is all that a decision costs the engine's thread: tokenising the conversation, the forward pass over
what is not cached, cutting up keys and values, the softmax.

    warm              routes and history cached, only the new turn is computed
    answered          routes and history cached, but for the assistant's answer before the new turn:
                      what the next turn of a live conversation costs
    prefix_warm       routes cached, history and new turn computed
    cold              nothing cached, vectors of the routes' texts neither
    first_turn_warm   routes cached, no history: the first turn of a conversation
    first_turn_cold   nothing cached, no history

The last line of output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from routing.conversation import Conversation, Turn
from routing.tasks import Route
from routing.tokenizer import FileTokenizer

NEW_TURN_TOKENS = 60
HISTORY_USER_TOKENS, HISTORY_ANSWER_TOKENS, EXCHANGES = 60, 100, 3

# As long as the presets' descriptions, and of their kind; fixed here so that figures compare.
ROUTES = [
    Route(name=name, description=description)
    for name, description in (
        (
            "code_generation",
            "Writing new code from a description, such as a function, class, script, query or "
            "whole feature.",
        ),
        (
            "debugging",
            "Finding and fixing why existing code fails, from error messages, stack traces, "
            "crashes or wrong output.",
        ),
        (
            "test_writing",
            "Writing or extending automated tests, fixtures and mocks for code that already "
            "exists.",
        ),
        (
            "code_explanation",
            "Explaining what given code, a command or a language feature does, without changing "
            "anything.",
        ),
        (
            "code_review_and_refactoring",
            "Reviewing or restructuring working code for readability, speed or security while "
            "its behaviour stays the same.",
        ),
        (
            "system_design",
            "Planning software before it is coded, with its architecture, data model, interfaces "
            "and choice of technology.",
        ),
        (
            "devops_and_deployment",
            "Building, releasing and operating software with containers, pipelines, cloud "
            "services, shells, version control and monitoring.",
        ),
        (
            "translation",
            "Turning a given text into another language, keeping its meaning, tone and layout as "
            "they are.",
        ),
    )
]
WORDS = " ".join(route.description for route in ROUTES).lower().split()


def main() -> None:
    parser = argparse.ArgumentParser(description="Time decisions of the embedded engine.")
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/nano"))
    parser.add_argument("--base", help="base model's folder or name; default: the manifest's")
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rest", type=float, default=1.0, help="seconds before each decision")
    arguments = parser.parse_args()

    import torch

    from scripts.base_model import ensure_base
    from serving.engine.checkpoint import load_model
    from serving.engine.contract import read_contract
    from serving.engine.prefixes import PrefixMemo
    from serving.engine.scorer import Scorer

    torch.set_num_threads(arguments.threads)
    contract = read_contract(arguments.checkpoint)
    base = None
    if contract.manifest.weights == "adapter":
        base = ensure_base(arguments.base or contract.manifest.base.name)
    model, prefixes = load_model(contract, base), PrefixMemo(contract.layout)
    cached = Scorer(contract, model, prefixes, cache_bytes=1024 * 2**20)
    uncached = Scorer(contract, model, prefixes, cache_bytes=0)
    texts = Texts(contract.tokenizer, seed=7)
    times: dict[str, list[float]] = {}
    tokens: dict[str, list[int]] = {}
    for repetition in range(arguments.repetitions + 1):
        for case, prepare in CASES.items():
            scorer = uncached if case in COLD_CASES else cached
            conversation = prepare(scorer.decide, texts)
            if case in COLD_CASES:
                scorer.forget()  # the encoder's vectors of the routes, too
            before = scorer.metrics().tokens_computed
            time.sleep(arguments.rest)
            start = time.perf_counter()
            scorer.decide(ROUTES, conversation)
            took = time.perf_counter() - start
            if repetition:
                times.setdefault(case, []).append(took * 1000)
                tokens.setdefault(case, []).append(scorer.metrics().tokens_computed - before)
        print(f"round {repetition} of {arguments.repetitions}", flush=True)
    _report(contract.manifest.name, contract.manifest.version, arguments, times, tokens)


class Texts:
    """Random texts of an exact number of tokens, no two alike."""

    def __init__(self, tokenizer: FileTokenizer, seed: int) -> None:
        self._tokenizer = tokenizer
        self._random = random.Random(seed)

    def __call__(self, tokens: int) -> str:
        while True:
            words = self._random.choices(WORDS, k=tokens)
            while len(self._tokenizer.encode(" ".join(words))) > tokens:
                words.pop()
            if len(self._tokenizer.encode(" ".join(words))) == tokens:
                return " ".join(words)

    def history(self) -> list[Turn]:
        """Three exchanges, ending with the assistant's answer."""
        turns: list[Turn] = []
        for _ in range(EXCHANGES):
            turns.append(Turn("user", self(HISTORY_USER_TOKENS), len(turns)))
            turns.append(Turn("assistant", self(HISTORY_ANSWER_TOKENS), len(turns)))
        return turns


Decide = Callable[[list[Route], Conversation], object]


def _ask(texts: Texts, history: list[Turn]) -> Conversation:
    return Conversation((*history, Turn("user", texts(NEW_TURN_TOKENS), len(history))))


def _warm(decide: Decide, texts: Texts) -> Conversation:
    history = texts.history()
    decide(ROUTES, _ask(texts, history))  # another new turn: caches all before it
    return _ask(texts, history)


def _answered(decide: Decide, texts: Texts) -> Conversation:
    history = texts.history()
    decide(ROUTES, Conversation(tuple(history[:-1])))
    return _ask(texts, history)


def _long(decide: Decide, texts: Texts) -> Conversation:
    return _ask(texts, texts.history())


def _first_turn(decide: Decide, texts: Texts) -> Conversation:
    return _ask(texts, [])


CASES: dict[str, Callable[[Decide, Texts], Conversation]] = {
    "warm": _warm,  # first: it leaves the routes in the cache, for every case but the cold ones
    "answered": _answered,
    "prefix_warm": _long,
    "cold": _long,
    "first_turn_warm": _first_turn,
    "first_turn_cold": _first_turn,
}
COLD_CASES = {"cold", "first_turn_cold"}


def _report(
    name: str,
    version: str,
    arguments: argparse.Namespace,
    times: dict[str, list[float]],
    tokens: dict[str, list[int]],
) -> None:
    medians = {case: statistics.median(values) for case, values in times.items()}
    print(f"{name} ({version}), {len(ROUTES)} routes, {arguments.repetitions} repetitions")
    for case, values in times.items():
        print(
            f"{case:16} median {medians[case]:7.1f} ms   "
            f"min {min(values):7.1f}   max {max(values):7.1f}   "
            f"tokens computed {statistics.median(tokens[case]):.0f}"
        )
    result: dict[str, object] = {f"{case}_ms": round(ms, 1) for case, ms in medians.items()}
    result |= {
        "warm_over_cold": round(medians["warm"] / medians["cold"], 3),
        "first_turn_warm_over_cold": round(
            medians["first_turn_warm"] / medians["first_turn_cold"], 3
        ),
        "tokens_computed": {case: statistics.median(values) for case, values in tokens.items()},
        "repetitions": arguments.repetitions,
        "threads": arguments.threads,
        "rest_s": arguments.rest,
        "checkpoint": name,
        "version": version,
        "machine": f"{platform.machine()}, {_processor()}",
    }
    print(json.dumps(result))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    return next(
        (x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "unknown"
    )


if __name__ == "__main__":
    main()
