"""The order in which a pool's models are asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from routing.tasks import SelectionPolicy
from serving.catalogue import Catalogue
from serving.latency import Latencies


class Ranking:
    """Ranks names by what the catalogue and the server's own traffic know about them."""

    def __init__(self, catalogue: Catalogue, latencies: Latencies) -> None:
        self._catalogue = catalogue
        self._latencies = latencies

    def order(self, models: Sequence[str], policy: SelectionPolicy, *, streamed: bool) -> list[str]:
        """Names best first.

        Without a preference the declared order stands. `cheapest` ascends by input plus output
        rate, `fastest` by the observed time to first byte. Models without data come last, in
        declared order.
        """
        if policy.prefer == "cheapest":
            return _ascending(models, self._cost)
        if policy.prefer == "fastest":
            return _ascending(models, lambda m: self._latencies.seconds(m, streamed=streamed))
        return list(models)

    def _cost(self, model: str) -> float | None:
        price = self._catalogue.price(model)
        return None if price is None else price.input + price.output


def _ascending(models: Sequence[str], measure: Callable[[str], float | None]) -> list[str]:
    known: list[tuple[float, str]] = []
    unknown: list[str] = []
    for model in models:
        value = measure(model)
        if value is None:
            unknown.append(model)
        else:
            known.append((value, model))
    # The sort is stable: equals keep the declared order.
    return [model for _, model in sorted(known, key=lambda pair: pair[0])] + unknown
