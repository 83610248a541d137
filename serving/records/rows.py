"""A snapshot as rows: objects by column name that orjson can write.

Columns of JSON are left out where they are null: JSON has a null of its own.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from routing.decision import Calibration
from routing.tasks import SelectionPolicy
from serving.ranking import Ranked
from serving.records.inserts import Row
from serving.records.redaction import Redactor
from serving.records.snapshot import Snapshot

_PLACES = 6


class Rows(NamedTuple):
    """One request, by table."""

    decision: Row
    attempts: list[Row]
    text: Row | None


def rows(snapshot: Snapshot, redactor: Redactor | None = None) -> Rows:
    """All rows of a snapshot; its text only with a redactor."""
    text = None
    if redactor is not None and snapshot.turns is not None:
        text = {"decision_id": snapshot.id, **redactor.kept(snapshot.turns)}
    return Rows(decision_row(snapshot), attempt_rows(snapshot), text)


def decision_row(snapshot: Snapshot) -> Row:
    """The row of `decisions`."""
    row: Row = {
        "id": snapshot.id,
        "created_at": snapshot.created,
        "trace_id": snapshot.trace_id,
        "endpoint": snapshot.endpoint,
        "tenant": snapshot.identity.tenant,
        "key_id": snapshot.identity.key_id,
        "router": snapshot.router,
        "router_revision": snapshot.router_revision,
        "stream": snapshot.stream,
        "prompt_tokens": snapshot.need.prompt_tokens,
        "status": snapshot.status,
        "model": snapshot.model,
        "total_ms": _ms(snapshot.seconds),
        "broken": snapshot.broken,
    }
    _add_outcome(row, snapshot)
    settled = snapshot.settled
    if settled is not None:
        row["first_byte_ms"] = _ms(settled.first_byte_s)
        row |= _used(snapshot)
    session = snapshot.session
    if session is not None:
        row["session_id"] = session.id
        row["pinned"] = session.pinned
        row["switched"] = session.switched
        row["session_reason"] = session.reason
        row["saved_dollars"] = session.saved_dollars
    return row


def _add_outcome(row: Row, snapshot: Snapshot) -> None:
    if snapshot.pools:
        row["offered"] = [pool.route.name for pool in snapshot.pools]
    if snapshot.ranked:
        row["ranking"] = [_ranked(each) for each in snapshot.ranked]
    outcome = snapshot.outcome
    if outcome is None:
        return
    row["route"] = outcome.route
    row["reason"] = outcome.reason
    row["decision_ms"] = round(outcome.milliseconds, 3)
    row["remembered"] = outcome.remembered
    decision, facts = outcome.decision, outcome.facts
    if decision is not None:
        row["routes"] = decision.routes
        row["confidence"] = round(decision.confidence, _PLACES)
        row["distribution"] = {
            name: round(share, _PLACES) for name, share in decision.distribution.items()
        }
    policy = next(
        (p.selection_policy for p in snapshot.pools if p.route.name == outcome.route), None
    )
    if policy is not None:
        row["policy"] = _policy(policy)
    if facts is not None:
        row["engine"] = facts.engine
        row["checkpoint"] = facts.version
        row["layout_version"] = facts.layout_version
        if facts.calibration is not None:
            row["calibration"] = _calibration(facts.calibration)


def attempt_rows(snapshot: Snapshot) -> list[Row]:
    """The rows of `attempts`, in order; the one that answered has its tokens and cost."""
    made: list[Row] = [
        {
            "decision_id": snapshot.id,
            "number": number,
            "model": attempt.model,
            "result": attempt.result,
            "asked": attempt.asked,
            "latency_ms": round(attempt.milliseconds, 3) if attempt.asked else None,
        }
        for number, attempt in enumerate(snapshot.attempts)
    ]
    if snapshot.settled is not None:
        answered = next(row for row in reversed(made) if row["asked"])
        answered |= _used(snapshot)
    return made


def _used(snapshot: Snapshot) -> Row:
    settled = snapshot.settled
    assert settled is not None
    usage = settled.usage
    if usage is None:
        return {}
    return {
        "input_tokens": usage.input_tokens,
        "cached_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
        "cost": settled.cost,
    }


def _ranked(each: Ranked) -> Row:
    row: Row = {"model": each.name, "score": round(each.score, _PLACES)}
    if each.expected_cost is not None:
        row["expected_cost"] = each.expected_cost
    if each.expected_seconds is not None:
        row["expected_seconds"] = round(each.expected_seconds, 4)
    if each.excluded is not None:
        row["excluded"] = each.excluded
    if each.explored:
        row["explored"] = True
    return row


@lru_cache(maxsize=64)
def _calibration(calibration: Calibration) -> Row:
    return calibration.model_dump()


def _policy(policy: SelectionPolicy) -> Row:
    if policy.weights is not None:
        return {"weights": policy.weights.model_dump()}
    return {} if policy.prefer is None else {"prefer": policy.prefer}


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
