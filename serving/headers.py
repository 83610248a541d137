"""Headers that say what was decided. Nothing reaches one unescaped."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import quote

from serving.decider import Outcome
from serving.failover import Attempt
from serving.sessions.visit import SessionFacts

ROUTE = "x-model-router-selected-route"
ROUTER = "x-pointsman-router"
CONFIDENCE = "x-pointsman-confidence"
DECISION_MS = "x-pointsman-decision-ms"
REASON = "x-pointsman-fallback-reason"
MODEL = "x-pointsman-model"
ATTEMPTS = "x-pointsman-attempts"
COST = "x-pointsman-cost"
"""US dollars of the answer, where it is whole and its usage and price are known."""
TRACE_ID = "x-pointsman-trace-id"
SESSION = "x-pointsman-session"
PINNED = "x-pointsman-pinned"
SWITCHED = "x-pointsman-switched"
SESSION_REASON = "x-pointsman-session-reason"
SESSION_SAVED = "x-pointsman-session-saved"
"""US dollars that the session's models saved it by keeping their caches; of a stream, before it."""

NO_ROUTE = "none"
"""Value of the route header where no task was chosen; tasks cannot be called so."""

# Printable ASCII but the escape itself, so that unquoting gives the name back exactly.
_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_IN_LIST = _PLAIN.translate(str.maketrans("", "", ",= "))
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


@lru_cache(maxsize=1024)
def escaped(text: str, *, plain: str = _PLAIN) -> str:
    """Percent-encoded UTF-8 wherever it is not printable ASCII."""
    return quote(text, safe=plain, errors="replace")


def decision_headers(router: str | None, outcome: Outcome) -> dict[str, str]:
    """What was decided; confidence only where the engine decided, else the reason."""
    headers = {
        ROUTE: escaped(outcome.route) if outcome.route is not None else NO_ROUTE,
        DECISION_MS: f"{outcome.milliseconds:.1f}",
    }
    if router is not None:
        headers[ROUTER] = escaped(router)
    if outcome.decision is not None:
        headers[CONFIDENCE] = f"{outcome.decision.confidence:.4f}"
    if outcome.reason is not None:
        headers[REASON] = outcome.reason
    return headers


def attempt_headers(attempts: Sequence[Attempt]) -> dict[str, str]:
    """``model=result`` of every attempt in order, and the model asked last, if any was."""
    if not attempts:
        return {}
    tried = ", ".join(f"{escaped(a.model, plain=_IN_LIST)}={a.result}" for a in attempts)
    asked = next((a.model for a in reversed(attempts) if a.asked), None)
    return {**({MODEL: escaped(asked)} if asked else {}), ATTEMPTS: tried}


def session_headers(facts: SessionFacts) -> dict[str, str]:
    """Which session the request belongs to, and what became of its model."""
    return {
        SESSION: facts.session_id,
        PINNED: "true" if facts.pinned else "false",
        SWITCHED: "true" if facts.switched else "false",
        SESSION_REASON: facts.reason,
        SESSION_SAVED: f"{facts.saved:.8f}",
    }


def trace_id(traceparent: str | None) -> str:
    """32 hexadecimal digits: the client's W3C trace id if it sent a valid one, else a new one."""
    match = _TRACEPARENT.fullmatch(traceparent or "")
    if match and match[1] != "0" * 32:
        return match[1]
    return f"{random.getrandbits(128) or 1:032x}"  # an id, no secret: the system's entropy is slow
