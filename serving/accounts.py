"""What answers used and cost, model by model: exact where the upstream tells it.

An answer that broke off counts what its upstream had told until then. Failed attempts are counted
apart: nobody tells what they used.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from routing.values import value_type
from serving.catalogue import Target
from serving.needs import Need
from serving.upstream import Answer
from serving.usage import Usage

MAX_MODELS = 200
"""Model names that are counted apart: any `provider/model` is served, so clients choose them."""
OTHER = "other"

Cost = Callable[[str, Usage], float | None]
"""US dollars of a usage of a model; None where the price is unknown."""


@value_type
class Settled:
    """One answer at its end."""

    target: Target
    route: str | None
    """The task that was decided for."""
    need: Need
    usage: Usage | None
    cost: float | None
    """US dollars; None where usage or price is unknown."""
    first_byte_s: float
    seconds: float
    """From its first byte to its end."""
    streamed: bool
    broken: str | None


@dataclass(frozen=True, slots=True)
class Failed:
    """One attempt that ended without an answer."""

    target: Target
    label: str
    seconds: float
    streamed: bool


class Hold(Protocol):
    """What a request has reserved of its key's budget and limits."""

    def settle(self, settled: Settled) -> None:
        """The answer has ended."""

    def release(self, *, asked: bool) -> None:
        """There is no answer; `asked` says that a model was being asked when the client left."""


class Accounts:
    """Totals since the start. All counts are read when somebody asks for the metrics."""

    def __init__(self, cost: Cost) -> None:
        self._cost = cost
        self._names: set[str] = set()
        self.listeners: list[Callable[[Settled], None]] = []
        """Told of every answer at its end."""
        self.failures: list[Callable[[Failed], None]] = []
        """Told of every failed attempt."""
        self.attempts: Counter[tuple[str, str]] = Counter()
        """By model and result."""
        self.tokens: Counter[tuple[str, str]] = Counter()
        """By model and kind: input, cached, cache_write, output."""
        self.dollars: dict[str, float] = {}
        self.unknown: Counter[tuple[str, str]] = Counter()
        """Answers by model and what was not told: usage, price."""
        self.broken: Counter[str] = Counter()
        """Answers by why they broke off."""

    def name(self, model: str) -> str:
        """A model's name as a label of bounded cardinality."""
        if model in self._names:
            return model
        if len(self._names) >= MAX_MODELS:
            return OTHER
        self._names.add(model)
        return model

    def cost(self, model: str, usage: Usage | None) -> float | None:
        """US dollars; None where usage or price is unknown."""
        return None if usage is None else self._cost(model, usage)

    def failed(self, failed: Failed) -> None:
        """An attempt ended without an answer."""
        self.attempts[self.name(failed.target.name), failed.label] += 1
        for tell in self.failures:
            tell(failed)

    def settle(self, settled: Settled) -> None:
        """An answer has ended."""
        model = self.name(settled.target.name)
        self.attempts[model, "200"] += 1
        if settled.broken:
            self.broken[settled.broken] += 1
        usage = settled.usage
        if usage is None:
            self.unknown[model, "usage"] += 1
        else:
            plain = usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens
            for kind, count in (
                ("input", plain),
                ("cached", usage.cached_tokens),
                ("cache_write", usage.cache_write_tokens),
                ("output", usage.output_tokens),
            ):
                if count > 0:
                    self.tokens[model, kind] += count
            if settled.cost is None:
                self.unknown[model, "price"] += 1
            else:
                self.dollars[model] = self.dollars.get(model, 0.0) + settled.cost
        for tell in self.listeners:
            tell(settled)


@dataclass(slots=True)
class Exchange:
    """The answer of one request, from its first byte to its last."""

    accounts: Accounts
    need: Need = field(default_factory=Need)
    route: str | None = None
    settled: Settled | None = None
    ended: Callable[[Settled], None] | None = None
    """Told when the answer has ended, after the accounts."""
    hold: Hold | None = None
    _target: Target | None = None
    _answer: Answer | None = field(default=None, repr=False)
    _first_byte_s: float = 0.0
    _begun_at: float = 0.0

    @property
    def model(self) -> str | None:
        """The model that answers, once one has begun to."""
        return self._target.name if self._target is not None else None

    def begun(self, target: Target, answer: Answer, *, first_byte_s: float) -> None:
        """A model has begun to answer."""
        self._target, self._answer = target, answer
        self._first_byte_s = first_byte_s
        self._begun_at = time.perf_counter()
        if answer.rest is None:
            self.end()

    def failed(self, target: Target, label: str, seconds: float) -> None:
        """A model was asked and did not answer."""
        self.accounts.failed(Failed(target, label, seconds, self.need.stream))

    def end(self, broken: str | None = None) -> None:
        """The answer has ended, or broke off; later calls change nothing."""
        if self._target is None or self._answer is None or self.settled is not None:
            return
        usage = self._answer.usage
        self.settled = Settled(
            target=self._target,
            route=self.route,
            need=self.need,
            usage=usage,
            cost=self.accounts.cost(self._target.name, usage),
            first_byte_s=self._first_byte_s,
            seconds=time.perf_counter() - self._begun_at,
            streamed=self._answer.rest is not None,
            broken=broken,
        )
        self.accounts.settle(self.settled)
        if self.ended is not None:
            self.ended(self.settled)
        if self.hold is not None:
            self.hold.settle(self.settled)

    def leave(self, *, asked: bool) -> None:
        """The request is over; without an answer, what it held is let go."""
        if self.hold is not None and self.settled is None:
            self.hold.release(asked=asked)
