"""How long one decision takes when it is asked alone and nothing of it is known.

The mean over a run is no latency: a run decides in batches, and all turns of a conversation at
once. Here the last labelled turn of a conversation is decided by itself, with everything before it,
routes included, read anew. A server's own caches cannot be cleared from here, so of a server this
is what its client waits, with whatever the server still knows of these routes and conversations.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from routing.records import ConversationRecord
from training.evaluation.deciders import Caching, Decider, checked


@dataclass(frozen=True, slots=True)
class Latency:
    """Wall time of single decisions, in milliseconds; quantiles are interpolated linearly."""

    n: int
    median_ms: float
    p95_ms: float


def measure_latency(
    decider: Decider,
    conversations: Sequence[ConversationRecord],
    count: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Latency:
    """Time one decision in each of `count` conversations, one after the other.

    The first conversation is decided before, untimed, since a first call also sets things up; it
    is timed only where there is no other. Raises EvaluationError as `checked` does.
    """
    if count < 1 or not conversations:
        raise ValueError("latency needs at least one conversation")
    _decide(decider, last_decision(conversations[0]))
    seconds: list[float] = []
    for record in map(last_decision, conversations[1 : count + 1] or conversations[:1]):
        if isinstance(decider, Caching):
            decider.clear_cache()
        start = clock()
        _decide(decider, record)
        seconds.append(clock() - start)
    median, p95 = np.quantile(1000 * np.asarray(seconds), [0.5, 0.95])
    return Latency(len(seconds), float(median), float(p95))


def last_decision(record: ConversationRecord) -> ConversationRecord:
    """The conversation up to its last labelled turn, with that decision alone."""
    label = record.decisions[-1]
    return record.model_copy(
        update={"messages": record.messages[: label.message + 1], "decisions": [label]}
    )


def _decide(decider: Decider, record: ConversationRecord) -> None:
    for _ in checked(decider, [record]):
        pass
