"""What is known of one conversation: figures, names and digests, never a word of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

MAX_WARM = 4
"""Models of whose caches a session keeps account."""
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Warmth:
    """What the cache of a model's provider holds of the conversation."""

    tokens: int
    at: float
    """When it was last read, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Session:
    """After a request; money in US dollars."""

    model: str
    """That answered last."""
    route: str | None
    """The task that was decided last."""
    turn: str
    """Digest of the user turn that was answered last."""
    decided: bool
    """Whether the routing model had a say in the choice; if not, the next turn is routed."""
    updated: float
    """In seconds since 1970."""
    warm: Mapping[str, Warmth] = field(default_factory=dict)
    """By model, the longest unused first."""
    requests: int = 0
    switches: int = 0
    spend: float = 0.0
    switch_spend: float = 0.0
    """What of it is due to models that had to read anew what another's cache held."""
    saved: float = 0.0
    """What the models that a ranking without sessions puts first would have cost beyond that."""

    def warm_tokens(self, model: str, since: float) -> int:
        """Tokens of the conversation that the model's cache holds if it keeps what was read after
        `since`."""
        found = self.warm.get(model)
        return found.tokens if found is not None and found.at >= since else 0

    def encoded(self) -> bytes:
        """As it is stored."""
        warm = [(model, each.tokens, each.at) for model, each in self.warm.items()]
        return orjson.dumps(
            (
                *(_VERSION, self.model, self.route, self.turn, self.decided, self.updated, warm),
                *(self.requests, self.switches, self.spend, self.switch_spend, self.saved),
            )
        )


def decoded(stored: bytes) -> Session | None:
    """The session that was stored; None for what this version has not written."""
    try:
        version, model, route, turn, decided, updated, warm, *figures = orjson.loads(stored)
        requests, switches, spend, switch_spend, saved = figures
        if version != _VERSION:
            return None
        return Session(
            model=str(model),
            route=None if route is None else str(route),
            turn=str(turn),
            decided=bool(decided),
            updated=float(updated),
            warm={str(name): Warmth(int(tokens), float(at)) for name, tokens, at in warm},
            requests=int(requests),
            switches=int(switches),
            spend=float(spend),
            switch_spend=float(switch_spend),
            saved=float(saved),
        )
    except (TypeError, ValueError):
        return None
