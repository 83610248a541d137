"""A circuit breaker for each upstream model: one that keeps failing is left alone for a while.

Closed, a model is asked. After `failures` in a row it opens: it is asked only where nothing else is
left. When its time is up one request probes it (half-open); a success closes it, a failure opens it
again for twice as long, up to a limit. Open times are jittered, so that replicas do not probe all
at once. `Retry-After` of a 429 or 503 opens it at once, for as long as the upstream asked, and then
it is not asked at all. The pattern: https://learn.microsoft.com/azure/architecture/patterns/circuit-breaker
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from serving.config import BreakerConfig

State = Literal["closed", "open", "cooling", "half_open"]
"""`cooling`: the upstream itself said when it may be asked again."""


@dataclass(slots=True)
class _Circuit:
    failures: int = 0
    openings: int = 0
    """Times in a row that it opened without a success between."""
    until: float = 0.0
    told: bool = False
    """Whether `until` is the upstream's own word."""
    probing: float | None = None
    """Since when a probe is under way."""


class Breakers:
    """The circuits of all models, by public name; used by one event loop alone.

    `clock` gives seconds, `uniform` a number between 0 and 1.
    """

    def __init__(
        self,
        config: BreakerConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._config = config
        self._clock = clock
        self._uniform = uniform
        self._circuits: dict[str, _Circuit] = {}

    def state(self, model: str) -> State:
        """What a request that comes now would find."""
        circuit = self._circuits.get(model)
        if circuit is None or not circuit.openings:
            return "closed"
        now = self._clock()
        if now < circuit.until:
            return "cooling" if circuit.told else "open"
        if circuit.probing is not None and now - circuit.probing < self._config.probe_s:
            return "open"
        return "half_open"

    def wait_s(self, model: str) -> float:
        """Seconds until a model that is open or cooling may be asked; 0 for any other."""
        circuit = self._circuits.get(model)
        return max(0.0, circuit.until - self._clock()) if circuit and circuit.openings else 0.0

    def asked(self, model: str) -> None:
        """A request goes to the model; if it was due for a probe, this is the probe."""
        circuit = self._circuits.get(model)
        if circuit is not None and circuit.openings and self._clock() >= circuit.until:
            circuit.probing = self._clock()

    def succeeded(self, model: str) -> None:
        """The model answered; also with an error that is the client's own."""
        self._circuits.pop(model, None)

    def abandoned(self, model: str) -> None:
        """A request ended without a verdict: its client left."""
        circuit = self._circuits.get(model)
        if circuit is not None:
            circuit.probing = None

    def failed(self, model: str, *, retry_after_s: float | None = None) -> None:
        """The model failed; `retry_after_s` is how long it asked to be left alone."""
        circuit = self._circuits.setdefault(model, _Circuit())
        circuit.failures += 1
        circuit.probing = None
        now = self._clock()
        if retry_after_s is not None:
            until = now + min(retry_after_s, self._config.retry_after_max_s)
            if until > circuit.until:
                circuit.until, circuit.told = until, True
            circuit.openings = max(circuit.openings, 1)
            return
        if now < circuit.until:
            return  # open already: a last resort that failed once more tells nothing new
        if circuit.openings or circuit.failures >= self._config.failures:
            bound = min(self._config.open_s * 2**circuit.openings, self._config.open_max_s)
            circuit.openings = min(circuit.openings + 1, 32)
            circuit.until = now + bound * (0.5 + 0.5 * self._uniform())
            circuit.told = False

    def snapshot(self) -> dict[str, State]:
        """The state of every model that is not simply closed."""
        states = {model: self.state(model) for model in self._circuits}
        return {model: state for model, state in states.items() if state != "closed"}
