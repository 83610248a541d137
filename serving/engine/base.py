"""What the request path asks of an engine.

EngineError        an engine could not load or decide
└── EngineBusy     too many decisions are waiting already; ask again later
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from routing.conversation import Conversation
from routing.decision import Decision
from routing.tasks import Route


class EngineError(Exception):
    """An engine could not load its model or make a decision."""


class EngineBusy(EngineError):
    """The engine's queue is full: waiting would outlast the decision's time limit."""


class Engine(Protocol):
    """Decides which route a conversation's last user turn is in.

    The caller bounds `decide` by a time limit, cancels it when that passes, and takes any exception
    or nonsensical decision for "routing failed": an engine need not defend the request itself.
    """

    @property
    def name(self) -> str:
        """Kind of engine, such as "embedded"."""
        ...

    @property
    def version(self) -> str:
        """Short id of the checkpoint."""
        ...

    def check_routes(self, routes: Sequence[Route]) -> None:
        """Raise routing.errors.InvalidRequest if these routes cannot be laid out."""
        ...

    async def start(self) -> None:
        """Load; returns when the engine has answered once."""
        ...

    async def decide(self, routes: Sequence[Route], conversation: Conversation) -> Decision:
        """The decision at the end of the conversation's last user turn; may raise anything."""
        ...

    def trouble(self) -> str | None:
        """Why a started engine cannot decide now, in words for the owner; None if it can."""
        ...

    async def close(self) -> None:
        """Give back threads and memory; safe to call twice and before `start`."""
        ...
