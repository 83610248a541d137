"""How long a model's answers take, by this server's own traffic.

Observations are kept by model, by size of the prompt, and streamed and whole answers apart: a whole
answer's first byte comes after its last token. Every mean is exponentially weighted, over about the
last twenty observations, each of which counts half after every half-life.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from serving.bounded import Bounded
from serving.needs import Need

SIZE_BOUNDS = (1_000, 8_000, 32_000, 128_000)
"""Prompt tokens: a class ends with its bound, the last has none."""
MEAN_OVER = 20
"""Observations that a mean is over, where they come faster than they age."""
ASSUMED_TOKENS_PER_SECOND = 50.0
"""Of a stream whose model has not yet told how many tokens it wrote."""
FAILURE_SECONDS = 30.0
"""What a failed attempt is taken to cost a request, at least: time, and another model's answer."""
MAX_MODELS = 4096


class LatencySource(Protocol):
    """What the ranking asks."""

    def expected_seconds(self, model: str, need: Need, expected_output: float) -> float | None:
        """Seconds until the last token of an answer of so many tokens; None where nobody knows."""

    def seconds_since(self, model: str, *, streamed: bool) -> float | None:
        """Age of the newest observation, a failure included; None for none."""


@dataclass(slots=True)
class _Mean:
    """A mean whose past fades; a ratio of two of them is a mean weighted by the lower one."""

    value: float = 0.0
    weight: float = 0.0
    at: float = 0.0

    def take(self, value: float, now: float, half_life: float) -> None:
        self.weight = self.faded(now, half_life) + 1
        self.value += (value - self.value) / min(self.weight, MEAN_OVER)
        self.weight = min(self.weight, MEAN_OVER)
        self.at = now

    def faded(self, now: float, half_life: float) -> float:
        return float(self.weight * 0.5 ** (max(0.0, now - self.at) / half_life))


class _Cell:
    """One model, one size of prompt, streamed or whole."""

    __slots__ = ("first", "seconds", "tokens")

    def __init__(self) -> None:
        self.first = _Mean()
        self.tokens = _Mean()
        self.seconds = _Mean()

    @property
    def rate(self) -> float | None:
        """Tokens a second, all tokens over all seconds: a short answer counts little."""
        return self.tokens.value / self.seconds.value if self.seconds.value > 0 else None


class _Model:
    """What is known of one model's streamed or whole answers."""

    __slots__ = ("cells", "failed", "seen")

    def __init__(self) -> None:
        self.cells = [_Cell() for _ in range(len(SIZE_BOUNDS) + 1)]
        self.failed = _Mean()
        """1 for an attempt that failed, 0 for one that did not."""
        self.seen: float | None = None


class Latencies:
    """Takes observations in and says what to expect. Time is on `clock`, in seconds."""

    def __init__(
        self, half_life_s: float = 600.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._half_life = half_life_s
        self._clock = clock
        self._models: Bounded[tuple[str, bool], _Model] = Bounded(MAX_MODELS)

    def observe(
        self, model: str, *, streamed: bool, seconds: float, prompt_tokens: int = 0
    ) -> None:
        """Take one answer's time to its first event in, or to the end of one that came whole."""
        entry, now = self._entry(model, streamed), self._clock()
        entry.cells[size_class(prompt_tokens)].first.take(max(0.0, seconds), now, self._half_life)
        entry.failed.take(0.0, now, self._half_life)
        entry.seen = now

    def observe_speed(
        self, model: str, *, streamed: bool, tokens: int, seconds: float, prompt_tokens: int = 0
    ) -> None:
        """Take in that an answer had so many output tokens, and how long they took.

        Of a stream the seconds count from its first event, of a whole answer from the request.
        """
        if tokens <= 0 or seconds <= 0:
            return
        now = self._clock()
        cell = self._entry(model, streamed).cells[size_class(prompt_tokens)]
        cell.tokens.take(tokens, now, self._half_life)
        cell.seconds.take(seconds, now, self._half_life)

    def observe_failure(self, model: str, *, streamed: bool, seconds: float = 0.0) -> None:
        """Take in an attempt without an answer (a timeout, a 5xx, no connection), after so long."""
        entry, now = self._entry(model, streamed), self._clock()
        entry.failed.take(max(seconds, FAILURE_SECONDS) / FAILURE_SECONDS, now, self._half_life)
        entry.seen = now

    def expected_seconds(self, model: str, need: Need, expected_output: float) -> float | None:
        """Seconds until the last token of an answer of so many tokens.

        Of a stream, the time to its first event and then the tokens at their rate; of a whole
        answer the tokens at its rate, or, where no answer has told how many it had, the mean time
        of one. Where a size of prompt has not been seen, the nearest that has speaks for it.
        Failures add their share of FAILURE_SECONDS, which fades by the half-life. None for a model
        that has neither answered nor lately failed.
        """
        entry = self._models.get((model, need.stream))
        if entry is None:
            return None
        near = _nearest(size_class(need.prompt_tokens))
        rate = next((r for i in near if (r := entry.cells[i].rate) is not None), None)
        first = next((c.first.value for i in near if (c := entry.cells[i]).first.weight), None)
        penalty = self._penalty(entry)
        if not need.stream:
            answer = first if rate is None else expected_output / rate
        elif first is None:
            answer = None
        else:
            answer = first + expected_output / (rate or ASSUMED_TOKENS_PER_SECOND)
        if answer is None:
            return penalty or None
        return answer + penalty

    def penalty_seconds(self, model: str, *, streamed: bool) -> float:
        """Seconds that a model's recent failures add to what is expected of it."""
        entry = self._models.get((model, streamed))
        return 0.0 if entry is None else self._penalty(entry)

    def seconds(self, model: str, *, streamed: bool) -> float | None:
        """The mean time to a first event over all sizes; None for a model without answers."""
        entry = self._models.get((model, streamed))
        firsts = [cell.first for cell in entry.cells if cell.first.weight] if entry else []
        if not firsts:
            return None
        weights = sum(first.weight for first in firsts)
        return sum(first.value * first.weight for first in firsts) / weights

    def seconds_since(self, model: str, *, streamed: bool) -> float | None:
        """Age of the newest observation, a failure included; None for none."""
        entry = self._models.get((model, streamed))
        return None if entry is None or entry.seen is None else self._clock() - entry.seen

    def _penalty(self, entry: _Model) -> float:
        failed = entry.failed
        age = max(0.0, self._clock() - failed.at)
        return FAILURE_SECONDS * failed.value * float(0.5 ** (age / self._half_life))

    def _entry(self, model: str, streamed: bool) -> _Model:
        entry = self._models.get((model, streamed))
        if entry is None:
            entry = self._models[model, streamed] = _Model()
        else:
            self._models.move_to_end((model, streamed))
        return entry


def size_class(prompt_tokens: int) -> int:
    """Index of the class of a prompt's size."""
    return bisect_left(SIZE_BOUNDS, prompt_tokens)


def _nearest(own: int) -> list[int]:
    """Classes from a prompt's own outwards, the smaller of two equally near first."""
    return sorted(range(len(SIZE_BOUNDS) + 1), key=lambda other: (abs(other - own), other))
