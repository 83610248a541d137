"""Whether a session's next turn stays with its model, and why.

Leaving a model costs what its provider's prompt cache holds of the conversation. So:

1. A model that may not answer, or that its router no longer has, is left.
2. Where the routing model gave no answer, the session stays.
3. Where the new task's pool is ranked by cost alone, the session moves to the model at which it is
   expected to go on for the least, what must be read anew included.
4. Else, a model that is in the pool of the new task stays for the same task, and for another
   where the decision is not sure enough; a model that is not in the pool is left.
5. None of 3 and 4 may spend more on switching than the owner's share of the session's spend.

What needs a price that nobody knows is left out of account.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from routing.values import value_type
from serving.config_sessions import SwitchingConfig
from serving.needs import Need
from serving.sessions.money import CacheMoney
from serving.sessions.session import Session

Reason = Literal[
    "new",
    "affinity",
    "same_turn",
    "first_choice",
    "same_task",
    "unsure",
    "undecided",
    "not_worth",
    "spend_cap",
    "cheaper",
    "other_task",
    "unfit",
    "failover",
]
"""Why a request has its model: no session so far; the client's header; no new turn of the user; the
ranking's own first; stays at a new turn, by rule 4, 2, 3 and 5; switched, by rule 3, 4 and 1; the
model that was chosen failed."""


@value_type
class Verdict:
    """The model that a session goes on with."""

    model: str
    reason: Reason


@value_type
class NewTurn:
    """What is known of a turn that was routed."""

    pool: Sequence[str]
    """Models of the decided task that may answer, best first; never empty."""
    route: str | None
    confidence: float | None
    """None where the routing model gave no answer."""
    by_cost: bool
    """Whether the pool is ranked by cost alone."""
    need: Need


def weigh(
    session: Session,
    turn: NewTurn,
    *,
    may_stay: bool,
    money: CacheMoney,
    config: SwitchingConfig,
    now: float,
) -> Verdict:
    """The model for a session's new turn; `may_stay` says whether its model can answer it."""
    since = now - config.cache_s
    current, first = session.model, turn.pool[0]
    if not may_stay:
        return Verdict(first, "unfit")
    if turn.confidence is None:
        return Verdict(current, "undecided")
    if turn.by_cost and current in turn.pool:
        move = Verdict(_cheapest(session, turn, money, since), "cheaper")
        if move.model == current:
            return Verdict(current, "first_choice" if current == first else "not_worth")
    else:
        move = Verdict(first, "other_task")
        if move.model == current:
            return Verdict(current, "first_choice")
        if current in turn.pool and turn.route == session.route:
            return Verdict(current, "same_task")
        if current in turn.pool and turn.confidence < config.min_confidence:
            return Verdict(current, "unsure")
    cost = money.switch_cost(session, move.model, since)
    return move if _affordable(session, cost, config) else Verdict(current, "spend_cap")


def _cheapest(session: Session, turn: NewTurn, money: CacheMoney, since: float) -> str:
    """Among equals the session's own; that too where its cost is not known."""
    best = session.model
    least = money.going_on(session, best, turn.route, turn.need, since)
    for model in turn.pool:
        cost = money.going_on(session, model, turn.route, turn.need, since)
        if cost is not None and least is not None and cost < least:
            best, least = model, cost
    return best


def _affordable(session: Session, cost: float | None, config: SwitchingConfig) -> bool:
    if cost is None or cost <= 0 or config.max_switch_spend_pct is None:
        return True
    limit = session.spend * config.max_switch_spend_pct / 100
    return session.switch_spend + cost <= limit
