"""Observed time to first byte of the server's own traffic, per model."""

from __future__ import annotations

_WEIGHT = 0.2
"""Of the newest observation: about the last ten requests count."""


class Latencies:
    """Exponentially weighted means; streamed and whole answers apart, since a whole answer's first
    byte comes after its last token."""

    def __init__(self) -> None:
        self._means: dict[tuple[str, bool], float] = {}

    def observe(self, model: str, *, streamed: bool, seconds: float) -> None:
        """Take one answer's time to first byte in."""
        key = (model, streamed)
        mean = self._means.get(key)
        self._means[key] = seconds if mean is None else mean + _WEIGHT * (seconds - mean)

    def seconds(self, model: str, *, streamed: bool) -> float | None:
        """The mean, or None for a model without traffic."""
        return self._means.get((model, streamed))
