"""Memory over many decisions of the embedded engine.

    python -m scripts.bench.soak [--checkpoint checkpoints/nano] [--decisions 20000]

Method: `--talks` conversations go on side by side. The next turn of a random one is decided, and
one that has had five turns gives way to a new one. Each has one of eight routers of four routes;
one in twenty brings routes of its own that nobody brings again. Texts are short and new. The cache
is small (`--cache-mb`), so that it is full early and lets go all the time. Resident memory is read
every tenth of the way. In the first half everything that is bounded fills up: the cache, the laid
out routes (256), the encoder's vectors (of 8,192 texts). Memory should not grow in the second half:
exit status 1 where it grows by more than `--most-growth-mb`.

The last line of output is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from routing.conversation import Conversation, Turn
from routing.manifest import load_manifest
from routing.tasks import Route
from scripts.bench.decision_time import ROUTES, WORDS

MB = 2**20
REPORTS = 10
ROUTERS, ROUTES_EACH, TURNS = 8, 4, 5
OWN_ROUTES = 0.05
MALLINFO2 = (
    *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
    *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Watch memory over many decisions.")
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/nano"))
    parser.add_argument("--decisions", type=int, default=20_000)
    parser.add_argument("--talks", type=int, default=32)
    parser.add_argument("--cache-mb", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--most-growth-mb", type=float, default=24.0)
    arguments = parser.parse_args()
    result = asyncio.run(_soak(arguments))
    print(json.dumps(result))
    sys.exit(result["growth_mb"] > arguments.most_growth_mb)


async def _soak(arguments: argparse.Namespace) -> dict[str, Any]:
    from scripts.base_model import ensure_base
    from serving.engine.embedded import EmbeddedEngine

    manifest = load_manifest(arguments.checkpoint)
    base = ensure_base(manifest.base.name) if manifest.weights == "adapter" else None
    engine = EmbeddedEngine(
        arguments.checkpoint,
        base,
        threads=arguments.threads,
        cache_bytes=arguments.cache_mb * MB,
    )
    await engine.start()
    talks = Talks(arguments.talks, random.Random(5))
    process = psutil.Process()
    rows: list[dict[str, Any]] = []
    times: list[float] = []
    every = max(1, arguments.decisions // REPORTS)
    for number in range(1, arguments.decisions + 1):
        routes, conversation = talks.next()
        start = time.perf_counter()
        await engine.decide(routes, conversation)
        times.append((time.perf_counter() - start) * 1000)
        if number % every == 0:
            metrics = engine.metrics()
            rows.append(
                {
                    "decisions": number,
                    "rss_mb": round(process.memory_info().rss / MB, 1),
                    "median_ms": round(statistics.median(times), 1),
                    "heap_mb": heap_mb(),
                    "cache_mb": round(metrics.cache_bytes / MB, 1),
                    "cache_entries": metrics.cache_entries,
                    "evictions": metrics.cache_evictions,
                }
            )
            times.clear()
            print(rows[-1], flush=True)
    await engine.close()
    half, last = rows[(len(rows) - 1) // 2]["rss_mb"], rows[-1]["rss_mb"]
    return {
        "checkpoint": manifest.name,
        "version": manifest.version,
        "rss_mb": [row["rss_mb"] for row in rows],
        "growth_mb": round(last - half, 1),
        "evictions": rows[-1]["evictions"],
    }


class _Mallinfo2(ctypes.Structure):
    """glibc's `struct mallinfo2`, over all arenas; mallinfo(3)."""

    _fields_ = [(name, ctypes.c_size_t) for name in MALLINFO2]


def heap_mb() -> dict[str, float] | None:
    """Of the C heap: what is in use, free within it, and mapped for large blocks; None elsewhere.

    Tells what is kept from what fragmentation holds.
    """
    try:
        call = ctypes.CDLL("libc.so.6").mallinfo2
    except (OSError, AttributeError):
        return None
    call.restype = _Mallinfo2
    info = call()
    parts = {"used": info.uordblks, "free": info.fordblks, "mapped": info.hblkhd}
    return {name: round(value / MB, 1) for name, value in parts.items()}


@dataclass(slots=True)
class Talk:
    """A conversation under way."""

    routes: Sequence[Route]
    turns: list[Turn] = field(default_factory=list)


class Talks:
    """Conversations side by side, without end."""

    def __init__(self, count: int, draw: random.Random) -> None:
        self._draw = draw
        self._routers = [draw.sample(ROUTES, ROUTES_EACH) for _ in range(ROUTERS)]
        self._own = 0
        self._talks = [self._begin() for _ in range(count)]

    def next(self) -> tuple[Sequence[Route], Conversation]:
        """The next user turn of one of them."""
        place = self._draw.randrange(len(self._talks))
        if len(self._talks[place].turns) >= 2 * TURNS - 1:
            self._talks[place] = self._begin()
        talk = self._talks[place]
        if talk.turns:
            talk.turns.append(Turn("assistant", self._text(), len(talk.turns)))
        talk.turns.append(Turn("user", self._text(), len(talk.turns)))
        return talk.routes, Conversation(tuple(talk.turns))

    def _begin(self) -> Talk:
        if self._draw.random() >= OWN_ROUTES:
            return Talk(self._draw.choice(self._routers))
        self._own += 1
        return Talk(
            [
                Route(name=f"own_{self._own}_{number}", description=self._text())
                for number in range(ROUTES_EACH)
            ]
        )

    def _text(self) -> str:
        return " ".join(self._draw.choices(WORDS, k=self._draw.randint(6, 14)))


if __name__ == "__main__":
    main()
