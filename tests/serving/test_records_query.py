"""Filters and cursors find what they should, whatever is stored and whatever comes in between."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recorded import DECISIONS, a_snapshot, listed, recording, written
from serving_fakes import FakeUpstream, Running

from routing.decision import Decision
from serving.decider import Outcome
from serving.records.query import cursor_of, id_of_cursor
from serving.records.snapshot import Identity, Session, Snapshot, time_ordered_id

START = 1_800_000_000.0


def decided(route: str | None, confidence: float) -> Outcome:
    """A decision for a route, or for none."""
    shares = {"coding": 0.0, "writing": 0.0, "none": 0.0} | {route or "none": confidence}
    routes = [route] if route else []
    reason = None if route else "no_task_matches"
    return Outcome(Decision(shares, route, routes, confidence), reason, 1.0)


def stored(number: int) -> Snapshot:
    """One of a mixed lot of requests, a second apart."""
    outcomes = [
        decided("coding", 0.9),
        decided("writing", 0.6),
        decided(None, 0.7),
        Outcome(None, "engine_error", 1.0),
    ]
    return a_snapshot(
        created=START + number,
        trace_id=f"{number // 2:032x}",
        router=("work", "home", None)[number % 3],
        outcome=outcomes[number % 4],
        model=("p/a", "p/b")[number % 2],
        status=(200, 200, 503)[number % 3],
        identity=Identity(("acme", "other", None)[number % 3], f"key-{number % 2}"),
        session=Session("s1", False, False) if number % 5 == 0 else None,
    )


LOT = [stored(number) for number in range(60)]


def route_of(each: Snapshot) -> str | None:
    return each.outcome.route if each.outcome else None


def confidence_of(each: Snapshot) -> float:
    made = each.outcome.decision if each.outcome else None
    return made.confidence if made else -1.0


def at(number: int) -> str:
    """A moment as a query spells it."""
    return datetime.fromtimestamp(START + number, UTC).isoformat()


CHOICES: dict[str, tuple[list[Any], Callable[[Snapshot, Any], bool]]] = {
    "router": (["work", "home", "none such"], lambda each, v: each.router == v),
    "route": (
        ["coding", "writing", "none"],
        lambda each, v: (
            each.outcome is not None
            and (each.outcome.reason == "no_task_matches" if v == "none" else route_of(each) == v)
        ),
    ),
    "model": (["p/a", "p/b"], lambda each, v: each.model == v),
    "status": ([200, 503], lambda each, v: each.status == v),
    "reason": (
        ["engine_error", "no_task_matches"],
        lambda each, v: each.outcome is not None and each.outcome.reason == v,
    ),
    "min_confidence": ([0.0, 0.65, 0.95], lambda each, v: confidence_of(each) >= v),
    "max_confidence": ([0.65, 1.0], lambda each, v: 0 <= confidence_of(each) <= v),
    "since": ([0, 10, 30], lambda each, v: each.created >= START + v),
    "until": ([20, 45, 100], lambda each, v: each.created < START + v),
    "tenant": (["acme", "other"], lambda each, v: each.identity.tenant == v),
    "key_id": (["key-0"], lambda each, v: each.identity.key_id == v),
    "session_id": (["s1"], lambda each, v: each.session is not None and each.session.id == v),
    "trace_id": ([f"{3:032x}"], lambda each, v: each.trace_id == v),
}


@st.composite
def queries(draw: st.DrawFn) -> dict[str, Any]:
    """Some filters with values, and a page's length."""
    names = draw(st.lists(st.sampled_from(sorted(CHOICES)), max_size=3, unique=True))
    chosen = {name: draw(st.sampled_from(CHOICES[name][0])) for name in names}
    return chosen | {"limit": draw(st.sampled_from([1, 7, 200]))}


async def test_filters_find_exactly_what_meets_them(upstream: FakeUpstream, database: str):
    async with recording(upstream, database) as server:
        for each in LOT:
            server.app.state.records.queue.put(each)
        await written(server)
        for query in _examples():
            wanted = {name: value for name, value in query.items() if name != "limit"}
            spelt = {k: at(v) if k in ("since", "until") else v for k, v in wanted.items()}
            found = await listed(server, **spelt, limit=query["limit"])
            expected = [
                each
                for each in reversed(LOT)
                if all(CHOICES[name][1](each, value) for name, value in wanted.items())
            ]
            assert [row["id"].replace("-", "") for row in found] == [e.id for e in expected], query


def _examples() -> list[dict[str, Any]]:
    """Queries that hypothesis makes up, and each filter by itself."""
    made: list[dict[str, Any]] = [
        {name: value, "limit": 200} for name, (values, _) in CHOICES.items() for value in values
    ]

    @settings(max_examples=15, deadline=None, derandomize=True, database=None)
    @given(queries())
    def collect(query: dict[str, Any]) -> None:
        made.append(query)

    collect()
    return made


async def test_pages_stay_put_while_newer_records_come(recorder: Running):
    queue = recorder.app.state.records.queue
    for each in LOT[:20]:
        queue.put(each)
    await written(recorder)
    first = (await recorder.http.get(DECISIONS, params={"limit": 8})).json()
    for each in LOT[20:40]:
        queue.put(each)
    await written(recorder)
    rest = await listed(recorder, limit=8, cursor=first["next_cursor"])
    found = [row["id"].replace("-", "") for row in first["data"] + rest]
    assert found == [each.id for each in reversed(LOT[:20])]


async def test_a_tenant_finds_its_own_alone(recorder: Running):
    records = recorder.app.state.records
    mine, theirs = LOT[0], LOT[1]
    for _ in ("waiting", "written"):
        for each in (mine, theirs):
            records.queue.put(each)
        assert await records.find(mine.id, "acme") is not None
        assert await records.find(theirs.id, "acme") is None
        assert await records.find(theirs.id, "other") is not None
        # They share a trace, and each tenant finds its own part of it.
        assert mine.trace_id == theirs.trace_id
        for tenant, own in (("acme", mine), ("other", theirs)):
            found = await records.find(mine.trace_id, tenant)
            assert found is not None
            assert found.decision["id"].replace("-", "") == own.id
        await written(recorder)


@settings(suppress_health_check=list(HealthCheck))
@given(st.floats(0, 10**11), st.floats(0, 10**11))
def test_ids_are_in_the_order_of_time(earlier: float, later: float):
    if round(earlier, 3) > round(later, 3):
        earlier, later = later, earlier
    first, second = time_ordered_id(earlier), time_ordered_id(later)
    assert first[:12] <= second[:12]
    assert first[12] == second[12] == "7"
    assert id_of_cursor(cursor_of(first)) == first


@pytest.mark.parametrize("cursor", ["", "AAAA", "ü", "A" * 23, "!" * 22])
def test_another_word_is_no_cursor(cursor: str):
    with pytest.raises(ValueError, match="no cursor"):
        id_of_cursor(cursor)
