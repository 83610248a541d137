"""The bench of the gateway: its engine is one that the server accepts, its figures are honest."""

from __future__ import annotations

import json

import pytest

from routing.conversation import Conversation, Turn
from routing.tasks import Route
from scripts.bench.gateway.engine_server import FirstRoute
from scripts.bench.gateway.full import STORAGES, full_name
from scripts.bench.gateway.measure import Row
from scripts.bench.gateway.report import result, table
from scripts.bench.gateway.stacks import TWO_WORKERS, Stack
from serving.decider import Decider

PROMISED = {
    "added_p50_ms",
    "rps",
    "rps_over_litellm",
    "rps_over_portkey",
    "events_per_s",
    "events_over_litellm",
    "rss_mb",
    "ceiling_rps",
}


def row(name: str, **figures: list[float]) -> Row:
    return Row(Stack(name, {}), None if name == "direct" else 1, dict(figures))


def own_rows() -> dict[str, Row]:
    return {
        "direct": row("direct", p50_ms=[0.1, 0.5, 0.2]),
        "ceiling": row("ceiling", chat_rps=[3000.0]),
        "pointsman": row(
            "pointsman",
            p50_ms=[1.0, 1.2, 9.0],
            chat_rps=[900.0, 1000.0, 1100.0],
            stream_events_per_s=[20000.0],
            rss_idle_mb=[90.0],
            rss_mb=[70.0],
        ),
    }


def detail(**more: object) -> dict[str, object]:
    return {"failover": {}, "soak": None, **more}


@pytest.mark.parametrize("tasks", [1, 8, 64])
async def test_engine_makes_decisions_that_the_server_accepts(tasks: int) -> None:
    routes = [Route(name=f"task_{i}", description="Something.") for i in range(tasks)]
    decider = Decider(FirstRoute(), timeout_ms=1000)
    await decider.start()
    outcome = await decider.decide(routes, Conversation((Turn("user", "Hello", 0),)))
    assert (outcome.route, outcome.reason) == ("task_0", None)


def test_figures_are_medians_and_memory_is_the_most() -> None:
    figures = result(own_rows(), detail())
    assert figures["added_p50_ms"] == 1.0
    assert figures["rps"] == 1000
    assert figures["ceiling_rps"] == 3000
    assert figures["rss_mb"] == 90.0


def test_peers_that_were_not_measured_are_null() -> None:
    rows = own_rows() | {"litellm": row("litellm", chat_rps=[50.0])}
    rows["litellm"].failed("stream over 16", ValueError("no answer in time"))
    figures = result(rows, detail())
    assert figures.keys() >= PROMISED
    assert figures["rps_over_litellm"] == 20.0
    assert figures["events_over_litellm"] is None
    assert figures["rps_over_portkey"] is None
    json.dumps(figures)
    shown = table(rows, {"portkey": "npm is not installed"}, detail())
    assert "not measured: npm is not installed" in shown
    assert "litellm: stream over 16: no answer in time" in shown


def test_soak_leaves_the_warm_up_out() -> None:
    samples = [(0, 50.0), (15_000, 70.0), (35_000, 80.0), (60_000, 84.0), (100_000, 81.0)]
    figures = result(own_rows(), detail(soak=samples))
    assert figures["rss_soak_mb"] == {"warm": 80.0, "end": 81.0, "most": 84.0}


def test_ratios_are_of_rounds_and_everything_on_is_set_beside_as_many_workers() -> None:
    full = [full_name(storage, workers) for storage in STORAGES for workers in (1, 2)]
    rows = own_rows() | {TWO_WORKERS: row(TWO_WORKERS, chat_rps=[100.0])}
    rows |= {name: row(name, chat_rps=[450.0, 900.0, 1100.0], p50_ms=[1.2]) for name in full}
    found = result(rows, detail())["all_on"]
    assert list(found) == full
    assert found["pointsman, all on, SQLite"]["rps_over_plain"] == 0.9
    assert found["pointsman, all on, SQLite"]["added_p50_ms"] == 1.0
    assert found["pointsman, all on, PostgreSQL, 2 workers"]["rps_over_plain"] == 9.0
    assert found["pointsman, all on, SQLite"]["events_over_plain"] is None
