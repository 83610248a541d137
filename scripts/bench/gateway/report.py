"""The measurements as a table to read, and as the JSON object of the last line."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from scripts.bench.gateway import stacks
from scripts.bench.gateway.measure import Row

WARM_AFTER = 0.3
"""Share of a soak after which memory should not grow any more."""

COLUMNS = (
    ("stack", None, 0),
    ("p50, ms", "p50_ms", 2),
    ("p99, ms", "p99_ms", 2),
    ("answers/s", "chat_rps", 0),
    ("answers/CPU s", "chat_per_cpu_s", 0),
    ("events/s", "stream_events_per_s", 0),
    ("events/CPU s", "stream_per_cpu_s", 0),
    ("bulk events/s", "bulk_events_per_s", 0),
    ("RSS before, MB", "rss_idle_mb", 0),
    ("after, MB", "rss_mb", 0),
)


def table(rows: Mapping[str, Row], absent: Mapping[str, str], detail: Mapping[str, Any]) -> str:
    """Markdown: one row a stack, then failover, soak and what went wrong."""
    lines = [
        f"| {' | '.join(title for title, _, _ in COLUMNS)} |",
        f"|{' --- |' * len(COLUMNS)}",
    ]
    for name, row in rows.items():
        cells = [f"{name} {row.stack.version}".strip()]
        cells += [_cell(row.median(key), digits) for _, key, digits in COLUMNS if key is not None]
        lines.append(f"| {' | '.join(cells)} |")
    for name, why in absent.items():
        lines.append(f"| {name} | not measured: {why} |{' |' * (len(COLUMNS) - 2)}")
    if detail["failover"]:
        lines += ["", "| one dead model before | extra p50, ms | extra max, ms | hits in 10 |"]
        lines.append(f"|{' --- |' * 4}")
    for name, found in detail["failover"].items():
        extra = f"{found['extra_p50_ms']:,.1f} | {found['extra_max_ms']:,.1f}"
        lines.append(f"| {name} | {extra} | {found['primary_hits']} |")
    if detail["soak"]:
        first, last, most = _soak(detail["soak"])
        requests = detail["soak"][-1][0]
        lines += [
            "",
            f"Soak, {requests:,} requests: {first:.1f} MB warm, {last:.1f} MB at the end, "
            f"{most:.1f} MB at most.",
        ]
    trouble = [f"{name}: {what}" for name, row in rows.items() for what in row.trouble]
    if trouble:
        lines += ["", "Went wrong:", *(f"- {what}" for what in trouble)]
    return "\n".join(lines)


def result(rows: Mapping[str, Row], detail: Mapping[str, Any]) -> dict[str, Any]:
    """The figures that are promised, then all."""
    ours, direct = rows["pointsman"], rows["direct"]
    added = None
    p50, bare = ours.median("p50_ms"), direct.median("p50_ms")
    if p50 is not None and bare is not None:
        added = round(p50 - bare, 3)
    memory = [*ours.figures.get("rss_idle_mb", ()), *ours.figures.get("rss_mb", ())]
    figures: dict[str, Any] = {
        "added_p50_ms": added,
        "rps": _rounded(ours.median("chat_rps"), 0),
        "rps_over_litellm": _over(rows, "chat_rps", "litellm"),
        "rps_over_portkey": _over(rows, "chat_rps", "portkey"),
        "events_per_s": _rounded(ours.median("stream_events_per_s"), 0),
        "events_over_litellm": _over(rows, "stream_events_per_s", "litellm"),
        "rss_mb": _rounded(max(memory), 1),
        "ceiling_rps": _rounded(rows["ceiling"].median("chat_rps"), 0),
    }
    if detail["soak"]:
        first, last, most = _soak(detail["soak"])
        figures["rss_soak_mb"] = {"warm": first, "end": last, "most": most}
    everything = {
        name: {
            "version": row.stack.version or None,
            **{key: _rounded(row.median(key), 3) for key in row.figures},
            "trouble": row.trouble,
        }
        for name, row in rows.items()
    }
    everything_on = {
        name: _beside(rows, name, stacks.TWO_WORKERS if "workers" in name else "pointsman")
        for name in rows
        if "all on" in name
    }
    ratios = {
        f"bulk_events_over_{peer}": _over(rows, "bulk_events_per_s", peer)
        for peer in ("litellm", "portkey")
    }
    return figures | {
        "all_on": everything_on,
        "detail": {**detail, **ratios, "stacks": everything},
    }


def _beside(rows: Mapping[str, Row], name: str, plain: str) -> dict[str, float | None]:
    """A row's figures, each over that of the row without keys and records; and its added time."""
    p50, bare = rows[name].median("p50_ms"), rows["direct"].median("p50_ms")
    added = None if p50 is None or bare is None else round(p50 - bare, 3)
    keys = {"rps": "chat_rps", "rps_a_cpu_s": "chat_per_cpu_s", "events": "stream_events_per_s"}
    return {"added_p50_ms": added} | {
        f"{shown}_over_plain": _ratio(rows[name], rows[plain], key) for shown, key in keys.items()
    }


def _soak(samples: list[tuple[int, float]]) -> tuple[float, float, float]:
    """MB once warm, at the end, and at most from then on."""
    total = samples[-1][0]
    warm = [memory for done, memory in samples if done >= WARM_AFTER * total]
    return round(warm[0], 1), round(warm[-1], 1), round(max(warm), 1)


def _over(rows: Mapping[str, Row], key: str, peer: str) -> float | None:
    return _ratio(rows["pointsman"], rows[peer], key) if peer in rows else None


def _ratio(ours: Row, theirs: Row, key: str) -> float | None:
    """The median over rounds: a machine that is slow for a while slows both. Of the medians where
    a round is missing."""
    mine, others = ours.figures.get(key, []), theirs.figures.get(key, [])
    if not mine or not all(others) or not others:
        return None
    if len(mine) != len(others):
        return round(statistics.median(mine) / statistics.median(others), 2)
    rounds: list[float] = [own / other for own, other in zip(mine, others, strict=True)]
    return round(statistics.median(rounds), 2)


def _rounded(value: float | None, digits: int) -> float | None:
    if value is None:
        return None
    return round(value, digits) if digits else round(value)


def _cell(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"
