"""What is known of one conversation: figures, names and digests, never a word of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

import orjson

from routing.values import value_type

MAX_WARM = 4
"""Models of whose caches a session keeps account."""
_VERSION = 1


@value_type
class Warmth:
    """What the cache of a model's provider holds of the conversation."""

    tokens: int
    at: float
    """When it was last read, in seconds since 1970."""


@value_type
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
    otherwise: Mapping[str, Warmth] = field(default_factory=dict)
    """The same, had each request gone to the model that was ranked first."""
    requests: int = 0
    switches: int = 0
    spend: float = 0.0
    switch_spend: float = 0.0
    """What of it is due to models that had to read anew what another's cache held."""
    saved: float = 0.0
    """What the same requests would have cost beyond that, each at the model ranked first."""

    def warm_tokens(self, model: str, since: float) -> int:
        """Tokens of the conversation that the model's cache holds if it keeps what was read after
        `since`."""
        return held(self.warm, model, since)

    def encoded(self) -> bytes:
        """As it is stored."""
        caches = [
            [(model, each.tokens, each.at) for model, each in warm.items()]
            for warm in (self.warm, self.otherwise)
        ]
        return orjson.dumps(
            (
                *(_VERSION, self.model, self.route, self.turn, self.decided, self.updated),
                *(*caches, self.requests, self.switches),
                *(self.spend, self.switch_spend, self.saved),
            )
        )


def held(caches: Mapping[str, Warmth], model: str, since: float) -> int:
    """Tokens in a model's cache that were read after `since`."""
    found = caches.get(model)
    return found.tokens if found is not None and found.at >= since else 0


def decoded(stored: bytes) -> Session | None:
    """The session that was stored; None for what this version has not written."""
    try:
        version, model, route, turn, decided, updated, *rest = orjson.loads(stored)
        if version != _VERSION:
            return None
        warm, otherwise, requests, switches, spend, switch_spend, saved = rest
        return Session(
            model=str(model),
            route=None if route is None else str(route),
            turn=str(turn),
            decided=bool(decided),
            updated=float(updated),
            warm=_caches(warm),
            otherwise=_caches(otherwise),
            requests=int(requests),
            switches=int(switches),
            spend=float(spend),
            switch_spend=float(switch_spend),
            saved=float(saved),
        )
    except (TypeError, ValueError):
        return None


def _caches(stored: list[tuple[str, int, float]]) -> dict[str, Warmth]:
    return {str(model): Warmth(int(tokens), float(at)) for model, tokens, at in stored}
