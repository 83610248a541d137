"""One decision, told in numbers and in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from routing.tasks import NONE
from serving.errors import clipped
from serving.records.inserts import Row
from serving.records.query import Whole

_FAILED = {
    "no_text": "The last user turn holds no text to decide by",
    "engine_not_ready": "The routing model was not ready",
    "engine_busy": "Too many decisions were waiting for the routing model",
    "engine_error": "The routing model failed",
    "decision_timeout": "The routing model took longer than a decision may",
}
_PASSED_OVER = {
    "open": "it had failed too often in a row",
    "cooling": "it had asked to be left alone for a while",
    "untranslatable": "its provider's protocol has no words for the request",
    "tags": "it lacks a tag that the request or its router asks for",
    "vision": "it reads no images",
    "audio": "it takes no audio",
    "files": "it takes no files",
    "tools": "it calls no tools",
    "structured_output": "it keeps to no schema",
}
_ASKED = {
    "timeout": "did not answer in time",
    "connection": "could not be reached",
    "cut": "broke its answer off before it had begun",
    "invalid": "sent what is no answer",
    "error": "answered with an error inside an answer",
    "context_length": "found the prompt too long",
    "content_policy": "refused the prompt by its content filter",
    "pending": "had not answered yet when the client left",
}
_TOO_SMALL = {
    "context": "its context seems too small",
    "output": "its output limit seems too small",
}


def summary(row: Row) -> dict[str, Any]:
    """A decision as it stands in a list."""
    return {**row, "id": _uuid(row["id"]), "created_at": _time(row["created_at"])}


def explained(found: Whole) -> dict[str, Any]:
    """All that is known of a decision, and why it came out so."""
    row = found.decision
    return {
        "id": _uuid(row["id"]),
        **_pick(row, "trace_id"),
        "created_at": _time(row["created_at"]),
        "explanation": list(_words(found)),
        "asked": _pick(
            row, "endpoint", "router", "router_revision", "stream", "prompt_tokens", "offered"
        ),
        "by": _pick(row, "tenant", "key_id"),
        "decision": _decision(row),
        "ranking": {"policy": row.get("policy"), "models": row.get("ranking") or []},
        "session": _session(row),
        "attempts": [_attempt(each) for each in found.attempts],
        "outcome": _pick(
            row,
            *("status", "model", "broken", "total_ms", "first_byte_ms"),
            *("input_tokens", "cached_tokens", "output_tokens", "cost"),
        ),
        "feedback": _feedback(found.feedback),
        "text": None if found.text is None else _pick(found.text, "messages", "redacted"),
    }


def _decision(row: Row) -> dict[str, Any] | None:
    if row.get("decision_ms") is None:
        return None
    shares: Mapping[str, float] | None = row.get("distribution")
    # Of equals the one declared first: PostgreSQL's JSON keeps no order.
    places = [*(row.get("offered") or []), NONE]
    ranked = sorted(shares.items(), key=lambda e: (-e[1], places.index(e[0]))) if shares else []
    return {
        **_pick(row, "route", "routes", "reason", "confidence"),
        "distribution": [{"route": name, "probability": share} for name, share in ranked],
        **_pick(row, "calibration", "engine", "checkpoint", "layout_version"),
        **_pick(row, "decision_ms", "remembered"),
    }


def _session(row: Row) -> dict[str, Any] | None:
    if row.get("session_id") is None:
        return None
    return {
        "id": row["session_id"],
        "reason": row.get("session_reason"),
        **_pick(row, "pinned", "switched", "saved_dollars"),
    }


def _attempt(row: Row) -> dict[str, Any]:
    return _pick(
        row,
        *("number", "model", "result", "asked", "latency_ms"),
        *("input_tokens", "cached_tokens", "output_tokens", "cost"),
    )


def _feedback(row: Row | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {**_pick(row, "route", "key_id"), "created_at": _time(row["created_at"])}


def _words(found: Whole) -> Iterator[str]:
    row = found.decision
    if row.get("decision_ms") is None:
        yield "The request named its model, so nothing was decided."
    else:
        yield from _choice(row)
        yield from _order(row)
    for attempt in found.attempts:
        yield _tried(attempt)
    if row.get("session_id") is not None:
        yield _kept(row)
    yield _ended(row, found.attempts)


def _choice(row: Row) -> Iterator[str]:
    router = row.get("router")
    offered = row.get("offered") or []
    whose = f"Router {router!r}" if router else "The request's own routing_preferences"
    yield f"{whose} offered {_count(len(offered), 'task')}: {', '.join(offered)}."
    shares: Mapping[str, float] | None = row.get("distribution")
    if not shares and row.get("reason") is None:
        yield "The request's session went on with its model, so nothing was decided anew."
        return
    if not shares:
        why = _FAILED.get(row.get("reason") or "", "Nothing was decided")
        yield f"{why}, so the fallback models were asked."
        return
    calibration = row.get("calibration") or {}
    likeliest = sorted(offered, key=lambda name: -shares.get(name, 0.0))
    given = ", ".join(f"{name} {shares[name]:.3f}" for name in likeliest[:3])
    more = ", …" if len(likeliest) > 3 else ""
    none, needs = shares.get(NONE, 0.0), calibration.get("none_threshold")
    yield f"The routing model gave {given}{more}, and {none:.3f} to none of them."
    limit = "" if needs is None else f", which needs {needs:.2f}"
    if row.get("route") is None:
        yield f'"none" was chosen{limit}: no task fits, so the fallback models were asked.'
    else:
        yield f'{row["route"]!r} was chosen: the likeliest, and "none"{limit}, was not.'
        further = (row.get("routes") or [])[1:]
        if further:
            least = calibration.get("several_threshold")
            above = "" if least is None else f" with at least {least:.2f}"
            yield f"The turn needs further tasks too{above}: {', '.join(further)}."
    if row.get("remembered"):
        yield "The decision was remembered from an earlier request about the same turn."


def _order(row: Row) -> Iterator[str]:
    ranking: Sequence[Row] = row.get("ranking") or []
    if not ranking:
        return
    policy: Mapping[str, Any] = row.get("policy") or {}
    prefer, weights = policy.get("prefer"), policy.get("weights")
    by = f"by {prefer!r}" if prefer else "by its weights" if weights else "in the declared order"
    if row.get("route") is None:
        by = "in the declared order"
    yield f"Models were ranked {by}: {'; '.join(map(_ranked, ranking))}."


def _ranked(each: Row) -> str:
    facts: list[str] = []
    if each.get("expected_cost") is not None:
        facts.append(f"${each['expected_cost']:.6f} expected")
    if each.get("expected_seconds") is not None:
        facts.append(f"{each['expected_seconds']:.2f} s expected")
    if each.get("excluded"):
        facts.append(f"last because {_TOO_SMALL.get(each['excluded'], each['excluded'])}")
    if each.get("explored"):
        facts.append("first because its latency was to be learnt")
    return str(each["model"]) + (f" ({', '.join(facts)})" if facts else "")


def _tried(attempt: Row) -> str:
    model, result = clipped(attempt["model"]), attempt["result"]
    if not attempt["asked"]:
        return f"{model} was passed over: {_PASSED_OVER.get(result, result)}."
    came = _ASKED.get(result, f"answered {result}")
    return f"{model} was asked and {came} ({_seconds(attempt.get('latency_ms') or 0.0)})."


def _kept(row: Row) -> str:
    did = "switched its model" if row.get("switched") else "was new or kept its choice open"
    if row.get("pinned"):
        did = "kept its model"
    why = f" ({row['session_reason']})" if row.get("session_reason") else ""
    saved = row.get("saved_dollars")
    return f"The session {did}{why}{f'; it has saved ${saved:.6f} so far' if saved else ''}."


def _ended(row: Row, attempts: Sequence[Row]) -> str:
    took = _seconds(row["total_ms"])
    if not attempts and row["status"] == 200:
        return f"Only the decision was asked for; it took {took}."
    told = f"The client got {row['status']} after {took}"
    if row.get("broken"):
        told += f", and the answer broke off ({row['broken']})"
    if row.get("input_tokens") is not None:
        cached = row.get("cached_tokens") or 0
        told += f"; {row['input_tokens']} tokens in" + (f" ({cached} cached)" if cached else "")
        told += f", {row.get('output_tokens', 0)} out"
    cost = row.get("cost")
    return f"{told}, for ${cost:.6f}." if cost is not None else f"{told}."


def _pick(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: row.get(name) for name in names}


def _uuid(value: str) -> str:
    return str(UUID(value))


def _time(value: datetime | float) -> str:
    """ISO 8601 in UTC; SQLite keeps no zone, and what waits is in seconds since 1970."""
    if isinstance(value, float):
        value = datetime.fromtimestamp(value, UTC)
    value = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _seconds(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.2f} s" if milliseconds >= 1000 else f"{milliseconds:.1f} ms"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
