"""Order flips: whether a decision stands when the routes are listed in another order.

The order of a router's routes means nothing, but a model that reads them as a list may be swayed
by it. Each conversation is decided again with its routes in further orders; a decision has
*flipped* where the chosen route, or none, is not the same in all of them. The more orders, the more
flips: flip rates compare only over equal numbers of orders. Pairwise disagreement does not grow so.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from routing.decision import Decision
from routing.records import ConversationRecord
from training.evaluation.deciders import Decider, checked
from training.evaluation.statistics import Estimate, bootstrap_ratios

SEED = 0


@dataclass(frozen=True, slots=True)
class OrderFlips:
    """Flips of one decider on one benchmark; intervals are by conversation."""

    orders: int
    """Orders of each conversation, the declared one included; fewer where there are no more."""
    conversations: int
    """Those with at least two routes: one route has one order."""
    flip_rate: Estimate
    """Share of decisions that are not the same in all orders."""
    disagreement: Estimate
    """Mean over decisions of the share of pairs of orders that decide differently."""


def orders_of(routes: int, orders: int, seed: str) -> list[tuple[int, ...]]:
    """Different orders of so many routes, the declared one first; all there are if too few."""
    rng = random.Random(seed)
    # Beyond 20 there are more orders than anybody asks for, and the factorial gets unwieldy.
    wanted = min(orders, math.factorial(min(routes, 20)))
    found = [tuple(range(routes))]
    while len(found) < wanted:
        drawn = list(range(routes))
        rng.shuffle(drawn)
        if tuple(drawn) not in found:
            found.append(tuple(drawn))
    return found


def measure_orders(
    decider: Decider,
    conversations: Sequence[ConversationRecord],
    declared: Sequence[Sequence[Decision]],
    orders: int,
    advance: Callable[[int], None] = lambda decisions: None,
) -> OrderFlips | None:
    """Decide the conversations in `orders - 1` further orders; None if all have a single route.

    `declared` holds their decisions in the declared order; `advance` is told of decisions made.
    Raises EvaluationError as `checked` does.
    """
    if orders < 2:
        raise ValueError("order flips need at least two orders")
    plans = {
        index: orders_of(len(record.routes), orders, f"{SEED}/{index}/{record.id}")
        for index, record in enumerate(conversations)
        if len(record.routes) > 1
    }
    chosen = {index: [_routes(declared[index])] for index in plans}
    for number in range(1, orders):
        having = [index for index, plan in plans.items() if number < len(plan)]
        given = [reordered(conversations[index], plans[index][number]) for index in having]
        for index, decisions in zip(having, checked(decider, given), strict=True):
            chosen[index].append(_routes(decisions))
            advance(len(decisions))
    return _flips(orders, {index: conversations[index].id for index in plans}, chosen)


def reordered(record: ConversationRecord, order: Sequence[int]) -> ConversationRecord:
    """The same conversation with its routes in another order."""
    return record.model_copy(update={"routes": [record.routes[place] for place in order]})


def disagreement(choices: Sequence[str | None]) -> float:
    """Share of pairs that differ, of at least two choices."""
    pairs = len(choices) * (len(choices) - 1)
    return 1 - sum(n * (n - 1) for n in Counter(choices).values()) / pairs


def _routes(decisions: Sequence[Decision]) -> list[str | None]:
    return [decision.route for decision in decisions]


def _flips(
    orders: int, names: dict[int, str], chosen: dict[int, list[list[str | None]]]
) -> OrderFlips | None:
    if not chosen:
        return None
    # Two parts of a conversation whose lines do not extend each other share its name.
    tallies: dict[str, list[float]] = {}
    for index, by_order in chosen.items():
        tally = tallies.setdefault(names[index], [0.0, 0.0, 0.0])
        for choices in zip(*by_order, strict=True):
            tally[0] += len(set(choices)) > 1
            tally[1] += disagreement(choices)
            tally[2] += 1
    flips, disagreements = bootstrap_ratios(
        [[flipped, apart] for flipped, apart, _ in tallies.values()],
        [[decisions, decisions] for _, _, decisions in tallies.values()],
    )
    return OrderFlips(orders, len(tallies), flips, disagreements)
