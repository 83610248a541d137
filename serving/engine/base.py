"""What the request path asks of an engine.

EngineError        an engine could not load or decide
└── EngineBusy     too many decisions are waiting already; ask again later
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, Self

from routing.conversation import Conversation, Turn
from routing.decision import Calibration, Decision
from routing.manifest import GeneratedReadOut, Manifest
from routing.tasks import Route


class EngineError(Exception):
    """An engine could not load its model or make a decision."""


class EngineBusy(EngineError):
    """The engine's queue is full: waiting would outlast the decision's time limit."""


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """What an engine has done since it started, and what it holds now.

    Token counts are of tokens that decisions needed.
    """

    decisions: int = 0
    tokens_computed: int = 0
    tokens_cached: int = 0
    queue_seconds: float = 0.0
    """That decisions waited for the model to be free; of vLLM its own metrics tell."""
    batched: int = 0
    """Sum, over all decisions, of how many were under way when they began."""
    restarts: int = 0
    cache_evictions: int = 0
    shortlisted: int = 0
    """Decisions with more routes than the model reads."""
    waiting: int = 0
    under_way: int = 0
    cache_bytes: int = 0
    cache_entries: int = 0

    TOTALS: ClassVar[tuple[str, ...]] = (
        "decisions",
        "tokens_computed",
        "tokens_cached",
        "queue_seconds",
        "batched",
        "restarts",
        "cache_evictions",
        "shortlisted",
    )
    """What only grows; the rest is of now."""

    def after(self, earlier: EngineMetrics) -> EngineMetrics:
        """With the totals of an engine that decided before this one."""
        sums = {name: getattr(self, name) + getattr(earlier, name) for name in self.TOTALS}
        return replace(self, **sums)


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What explains an engine's decisions beside their distribution."""

    engine: str
    """Its name."""
    version: str
    """Of the checkpoint."""
    layout_version: int | None = None
    """None where no layout is read, but text."""
    calibration: Calibration | None = None
    """How scores become a choice; None where the model chooses by itself."""

    @classmethod
    def of(cls, engine: str, manifest: Manifest) -> Self:
        """Those of a checkpoint."""
        if isinstance(manifest.read_out, GeneratedReadOut):
            return cls(engine, manifest.version)
        return cls(engine, manifest.version, manifest.layout_version, manifest.calibration)


WARM_UP_ROUTES = (
    Route(name="code", description="Write, review or explain source code."),
    Route(name="prose", description="Write or edit a letter, an essay or a story."),
)
WARM_UP = Conversation((Turn("user", "Write a function that reverses a list.", 0),))
"""What an engine decides once before it is ready."""


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

    def facts(self) -> EngineFacts:
        """Of the checkpoint that decides now; cheap."""
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

    def metrics(self) -> EngineMetrics:
        """Counts so far; cheap, and safe at any moment."""
        ...

    async def close(self) -> None:
        """Give back threads and memory; safe to call twice and before `start`."""
        ...


EngineFactory = Callable[[], Engine]
