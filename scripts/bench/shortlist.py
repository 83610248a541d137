"""Accuracy and time of a decision among 8 to 256 routes, with the shortlist and without.

    python -m scripts.bench.shortlist FILE [--checkpoint checkpoints/nano] [--decisions 40]

Method: single requests of a file of decision records that need one route. Routes are those that the
requests need, as the file words them, and then tasks of the taxonomy whose text an encoder does not
find like any of them. Every number of routes is one set, in one order, for all requests; a request
counts where its route is in the set. Without the shortlist the model reads all routes, under a
budget of 8,192 tokens whatever the checkpoint's own is. `cold_ms` is the first decision among a
set, which reads the routes; `warm_ms` the median of the others.

The last line of output is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import random
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from routing.conversation import Conversation, normalise
from routing.encoder import route_text
from routing.layout import Layout
from routing.manifest import IdentifierReadOut
from routing.records import read_decisions
from routing.tasks import Route
from scripts.places import CONFIGS

COUNTS = (8, 16, 24, 32, 64, 128, 256)
BUDGET = 8192
LIKE = 0.55
"""Cosine from which a task of the taxonomy is taken to be what a request may need."""

Asked = tuple[Conversation, str]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure decisions among many routes.")
    parser.add_argument("file", type=Path, help="decision records")
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/nano"))
    parser.add_argument("--decisions", type=int, default=40)
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS))
    arguments = parser.parse_args()
    print(json.dumps(asyncio.run(_measure(arguments))))


async def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    from scripts.base_model import ensure_base
    from serving.engine.checkpoint import load_model
    from serving.engine.contract import read_contract
    from serving.engine.encoder import shortlist_embedder
    from serving.engine.prefixes import PrefixMemo
    from serving.engine.scorer import Scorer
    from serving.engine.shortlist import ShortlistingEngine

    contract = read_contract(arguments.checkpoint)
    manifest = contract.manifest
    base = ensure_base(manifest.base.name) if manifest.weights == "adapter" else None
    model = load_model(contract, base)
    embed = shortlist_embedder()
    asked, routes = _requests(arguments.file, max(arguments.counts))
    routes += _fillers(routes, embed, max(arguments.counts) - len(routes))

    budget = manifest.budget.model_copy(update={"max_tokens": BUDGET})
    read_out = manifest.read_out
    identifiers = read_out.identifiers if isinstance(read_out, IdentifierReadOut) else None
    layout = Layout(contract.tokenizer, budget, identifiers, version=manifest.layout_version)
    wide = dataclasses.replace(contract, layout=layout)

    def plain() -> _Plain:
        prefixes = PrefixMemo(layout)
        return _Plain(Scorer(wide, model, prefixes, cache_bytes=2 * 2**30), prefixes)

    rows: list[dict[str, Any]] = []
    for count in arguments.counts:
        offered = routes[:count]
        random.Random(count).shuffle(offered)
        names = {route.name for route in offered}
        chosen = [each for each in asked if each[1] in names][: arguments.decisions]
        for kind in ("all", "shortlist"):
            engine: Any = plain()
            if kind == "shortlist":
                engine = ShortlistingEngine(engine, lambda: embed)
            row = {"routes": count, "read": kind, **await _decide_all(engine, offered, chosen)}
            rows.append(row)
            print(row, flush=True)
    return {"checkpoint": manifest.name, "version": manifest.version, "rows": rows}


class _Plain:
    """A scorer as an engine: what the shortlist stands around."""

    def __init__(self, scorer: Any, prefixes: Any) -> None:
        self._scorer = scorer
        self._prefixes = prefixes

    def check_routes(self, routes: Sequence[Route]) -> None:
        self._prefixes(routes)

    async def decide(self, routes: Sequence[Route], conversation: Conversation) -> Any:
        return self._scorer.decide(routes, conversation)


async def _decide_all(
    engine: Any, routes: Sequence[Route], asked: Sequence[Asked]
) -> dict[str, Any]:
    hits, times = 0, []
    for conversation, expected in asked:
        start = time.perf_counter()
        decision = await engine.decide(routes, conversation)
        times.append((time.perf_counter() - start) * 1000)
        hits += decision.route == expected
    return {
        "decisions": len(asked),
        "accuracy": round(hits / len(asked), 3),
        "cold_ms": round(times[0], 1),
        "warm_ms": round(statistics.median(times[1:]), 1),
    }


def _requests(path: Path, most: int) -> tuple[list[Asked], list[Route]]:
    """Single requests with the one route each needs, and those routes, each once."""
    asked: list[Asked] = []
    routes: dict[str, Route] = {}
    for record in read_decisions(path):
        if len(record.expected) != 1 or len(record.messages) != 1:
            continue
        route = next(each for each in record.routes if each.name == record.expected[0])
        if route.name not in routes and len(routes) >= min(most, 64):
            continue
        routes.setdefault(route.name, route)
        asked.append((normalise(record.messages), route.name))
    return asked, list(routes.values())


def _fillers(routes: Sequence[Route], embed: Any, count: int) -> list[Route]:
    """Tasks of the taxonomy that none of the routes is like, shuffled."""
    from data_synthesis.taxonomy import load_taxonomy

    names = {route.name for route in routes}
    known = {task.name: task.description for _, task in load_taxonomy(CONFIGS / "taxonomy").tasks()}
    tasks = [
        Route(name=name, description=text) for name, text in known.items() if name not in names
    ]
    likeness = embed([route_text(t) for t in tasks]) @ embed([route_text(r) for r in routes]).T
    apart = [task for task, row in zip(tasks, likeness, strict=True) if np.max(row) < LIKE]
    random.Random(3).shuffle(apart)
    if len(apart) < count:
        raise SystemExit(f"only {len(apart)} tasks are apart from the routes, {count} are needed")
    return apart[:count]


if __name__ == "__main__":
    main()
