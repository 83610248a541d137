"""The measurements, each of one stack; `__main__` takes turns among the stacks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from scripts.bench.gateway.load import Call, Client, Load, LoadFailed, wrk
from scripts.bench.gateway.mock import EVENTS, WORDS, Mock
from scripts.bench.gateway.processes import cpu_seconds, rss_mb
from scripts.bench.gateway.stacks import FAILOVER, KINDS, Stack

WARM_UP_S = 2.0
ENOUGH_A_CONNECTION = 20
"""Answers that a connection should see in a round: the one cut off at the end must not weigh."""
LONGEST = 5
"""Times that a slow stack's rounds are longer, at most, to get there."""
ERRORS_ALLOWED = 0.001
READY_S = 60.0
FAILOVERS = 10
USUAL_BETWEEN = 5
"""Requests without a dead model before each one with it, so that noise hits both."""
SOAK_SEGMENT_S = 10.0


@dataclass(frozen=True, slots=True)
class Task:
    """A kind of answer, asked over so many connections."""

    kind: str
    connections: int


@dataclass(slots=True)
class Row:
    """A stack and what has been measured of it."""

    stack: Stack
    pid: int | None
    """None for the upstream itself."""
    figures: dict[str, list[float]] = field(default_factory=dict)
    trouble: list[str] = field(default_factory=list)
    answers: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Bytes and events of one answer of a kind."""
    longer: dict[Task, float] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        self.figures.setdefault(name, []).append(value)

    def median(self, name: str) -> float | None:
        values = self.figures.get(name)
        return statistics.median(values) if values else None

    def failed(self, what: str, error: Exception) -> None:
        self.trouble.append(f"{what}: {error}")


def warm_up(row: Row, tasks: list[Task], seconds: float, folder: Path) -> None:
    """One checked answer of each kind, then some load; decides how long slow stacks are given."""
    for kind in KINDS:
        try:
            row.answers[kind] = _checked(row.stack.calls[kind], kind)
        except LoadFailed as error:
            row.failed(kind, error)
    if row.pid is not None:
        row.add("rss_idle_mb", rss_mb(row.pid))
    for task in tasks:
        if task.kind not in row.answers:
            continue
        try:
            load = wrk(row.stack.calls[task.kind], task.connections, WARM_UP_S, folder)
        except LoadFailed as error:
            row.failed(f"warm-up, {task.kind}", error)
            continue
        wanted = ENOUGH_A_CONNECTION * task.connections
        expected = load.rps * seconds
        row.longer[task] = min(LONGEST, max(1.0, wanted / expected)) if expected else LONGEST


def measure(row: Row, task: Task, seconds: float, folder: Path) -> None:
    """One round of a task: latency on one connection, else answers and events a second."""
    if task not in row.longer:
        return
    what = f"{task.kind} over {task.connections}"
    before = cpu_seconds(row.pid) if row.pid is not None else 0.0
    call = row.stack.calls[task.kind]
    try:
        load = wrk(call, task.connections, seconds * row.longer[task], folder)
        size, events = row.answers[task.kind]
        _sound(load, size)
    except LoadFailed as error:
        row.failed(what, error)
        return
    if task.connections == 1:
        row.add("p50_ms", load.p50_ms)
        row.add("p99_ms", load.p99_ms)
        return
    row.add(f"{task.kind}_rps", load.rps)
    if events:
        row.add(f"{task.kind}_events_per_s", load.rps * events)
    if row.pid is not None:
        used = cpu_seconds(row.pid) - before
        row.add(f"{task.kind}_cpu_share", used / load.seconds)
        if used:
            row.add(f"{task.kind}_per_cpu_s", load.requests * max(events, 1) / used)


def failover(row: Row, mock: Mock) -> dict[str, object] | None:
    """What ten requests cost, one after the other, whose first model answers 500."""
    if FAILOVER not in row.stack.calls:
        return None
    usual, through = Client(row.stack.calls["chat"]), Client(row.stack.calls[FAILOVER])
    try:
        _answered(usual)  # opens the connection
        without: list[float] = []
        took: list[float] = []
        hits: list[int] = []
        for _ in range(FAILOVERS):
            without += [_answered(usual) for _ in range(USUAL_BETWEEN)]
            before = mock.hits()
            took.append(_answered(through))
            hits.append(mock.hits() - before)
    except LoadFailed as error:
        row.failed(FAILOVER, error)
        return None
    finally:
        usual.close()
        through.close()
    usually = statistics.median(without)
    return {
        "extra_p50_ms": round(statistics.median(took) - usually, 2),
        "extra_max_ms": round(max(took) - usually, 2),
        "primary_hits": sum(hits),
        "primary_hits_by_request": hits,
        "tenth_spares_primary": hits[-1] == 0,
    }


def soak(
    row: Row, requests: int, connections: int, folder: Path, tell: Callable[[str], None]
) -> list[tuple[int, float]]:
    """Requests so far and resident memory, every few seconds until there were so many requests."""
    assert row.pid is not None
    done = 0
    samples = [(0, rss_mb(row.pid))]
    while done < requests:
        call = row.stack.calls["chat"]
        load = wrk(call, connections, SOAK_SEGMENT_S, folder, soak_seed=len(samples))
        _sound(load, row.answers["chat"][0])
        done += load.requests
        samples.append((done, rss_mb(row.pid)))
        tell(f"soak: {done:,} requests, {samples[-1][1]:.1f} MB")
    return samples


def _checked(call: Call, kind: str) -> tuple[int, int]:
    """Bytes and events of an answer that is whole; waits for a stack that is still starting."""
    client = Client(call)
    end = time.monotonic() + READY_S
    try:
        while True:
            status, body = 0, b"no answer"
            with suppress(LoadFailed):
                status, body, _ = client.ask()
            if status == 200 or time.monotonic() > end:
                break
            time.sleep(0.5)
    finally:
        client.close()
    if status != 200:
        raise LoadFailed(f"{status}: {body[:200].decode(errors='replace')}")
    if kind == "chat":
        answer = orjson.loads(body)
        if not answer["choices"][0]["message"]["content"] or not answer["usage"]["total_tokens"]:
            raise LoadFailed("the answer has no content or no usage")
        return len(body), 0
    events = sum(line.startswith(b"data:") for line in body.splitlines())
    # A gateway may fold the last ones into each other, but each word must be there.
    if not WORDS <= events <= EVENTS + 1 or b"[DONE]" not in body[-64:]:
        raise LoadFailed(f"{events} events, of {EVENTS}")
    return len(body), events


def _answered(client: Client) -> float:
    status, body, milliseconds = client.ask()
    if status != 200:
        raise LoadFailed(f"{status}: {body[:200].decode(errors='replace')}")
    return milliseconds


def _sound(load: Load, size: int) -> None:
    """Raise LoadFailed where answers were errors, or shorter than the one that was checked."""
    if not load.requests:
        raise LoadFailed("no answer in time")
    if load.errors > ERRORS_ALLOWED * load.requests:
        raise LoadFailed(f"{load.errors} errors in {load.requests} answers")
    if load.bytes < 0.95 * size * load.requests:
        raise LoadFailed(f"{load.bytes / load.requests:.0f} bytes an answer, not {size}")
