"""What an engine asks of vLLM: final states of tokens, or the chances of a few next tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from serving.engine.base import EngineMetrics

Array = NDArray[Any]
Tokens = Sequence[int]


@dataclass(slots=True)
class TokenCounts:
    """Prompt tokens that requests had, and how many of them came from vLLM's prefix cache."""

    prompt: int = 0
    cached: int = 0


class StateReader(Protocol):
    """Runs a model over token ids. Safe for any number of concurrent calls.

    `affinity` names what a prompt begins with, so that prompts of one router meet the cache that
    already holds it. Every call raises EngineError when it cannot be answered, and may be cancelled
    at any moment, which frees its place.
    """

    counts: TokenCounts
    restarts: int
    """Times that vLLM was started anew, where that is in this reader's hands."""

    @property
    def shares_cores(self) -> bool:
        """Whether the model computes on the cores that this process does."""
        ...

    async def start(self) -> None:
        """Load, or find the endpoints; returns when one prompt has been answered."""
        ...

    async def last_state(self, tokens: Tokens, affinity: bytes) -> Array:
        """Final state [hidden] of the last token, not normalised."""
        ...

    async def states_at(self, tokens: Tokens, positions: Sequence[int], affinity: bytes) -> Array:
        """Final states [len(positions), hidden] within one prompt."""
        ...

    async def next_token(self, tokens: Tokens, candidates: Tokens, affinity: bytes) -> Array:
        """Log-probabilities [len(candidates)] of the next token, over the whole vocabulary."""
        ...

    async def generate(
        self, text: str, schema: dict[str, Any], max_tokens: int
    ) -> tuple[str, float]:
        """The answer to one user message, held to a JSON schema, and its probability."""
        ...

    def trouble(self) -> str | None:
        """Why nothing can be asked now, in words for the owner; None where all is well."""
        ...

    async def close(self) -> None:
        """Give everything back; safe to call twice and before `start`."""
        ...


def reader_metrics(
    reader: StateReader, decisions: int, batched: int, under_way: int
) -> EngineMetrics:
    """Metrics of an engine over a reader."""
    return EngineMetrics(
        decisions=decisions,
        tokens_computed=reader.counts.prompt - reader.counts.cached,
        tokens_cached=reader.counts.cached,
        batched=batched,
        restarts=reader.restarts,
        under_way=under_way,
    )
