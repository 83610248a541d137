"""What is asked for, and among what it is to be decided."""

from __future__ import annotations

from collections.abc import Iterator

from routing.conversation import Conversation
from routing.tasks import Pool
from routing.values import value_type
from serving.needs import Need
from serving.sessions.visit import Visit


@value_type
class Plan:
    """A request that is to be routed."""

    router: str | None
    """Name of the router; None where the request brings its own pools only."""
    router_label: str | None
    """With its revision, if it has any: `name@3`."""
    pools: tuple[Pool, ...]
    fallbacks: tuple[str, ...]
    inline: bool
    """Whether the pools are the request's own."""
    conversation: Conversation
    need: Need
    decision_only: bool
    """Whether nothing is forwarded."""
    visit: Visit | None
    """Its part in its session; None where it belongs to none."""

    def pool(self, route: str) -> Pool:
        """The pool of a task of this plan."""
        return next(pool for pool in self.pools if pool.route.name == route)

    def has(self, route: str | None) -> bool:
        """Whether this plan has such a task."""
        return any(pool.route.name == route for pool in self.pools)

    def models(self) -> Iterator[str]:
        """All that it may go to, some more than once."""
        for pool in self.pools:
            yield from pool.models
        yield from self.fallbacks
