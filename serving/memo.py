"""Remembers decisions, so that asking again about the same turn costs no forward pass.

Agents do so all the time: each call of a tool loop, and each retry, brings the conversation that
was decided at its last user turn. Kept are digests and decisions, no text.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from routing.conversation import Conversation
from routing.decision import Decision
from routing.tasks import Route
from serving.digest import digest

Key = bytes


class DecisionMemo:
    """The least recently used goes first beyond `size`; a size of 0 remembers nothing."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[Key, Decision] = OrderedDict()
        self.hits = 0

    def __len__(self) -> int:
        return len(self._kept)

    @staticmethod
    def key(version: str, routes: Sequence[Route], conversation: Conversation) -> Key:
        """A digest of all that a decision depends on: the checkpoint, the routes, what was said."""
        fields = [version]
        for route in routes:
            fields += (route.name, route.description)
        fields.append("")
        for turn in conversation.turns:
            fields += (turn.role, turn.text)
        return digest(fields)

    def get(self, key: Key) -> Decision | None:
        """The decision, if it is still remembered."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
            self.hits += 1
        return found

    def put(self, key: Key, decision: Decision) -> None:
        """Remember a decision."""
        if not self._size:
            return
        self._kept[key] = decision
        self._kept.move_to_end(key)
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)
