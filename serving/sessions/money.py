"""What a prompt cache is worth: of switching models, of going on with one, of having stayed."""

from __future__ import annotations

from serving.catalogue import Catalogue
from serving.costs import Costs, OutputLengths
from serving.needs import Need
from serving.sessions.session import Session, held
from serving.usage import Usage

_PER = 1_000_000


class CacheMoney:
    """US dollars; None where a price is not known."""

    def __init__(self, catalogue: Catalogue, costs: Costs, outputs: OutputLengths) -> None:
        self._catalogue = catalogue
        self._costs = costs
        self._outputs = outputs

    def switch_cost(self, session: Session, model: str, since: float) -> float | None:
        """What it costs to have another model read what the session's model has in its cache.

        Negative where the other reads for less than that one's cache does. Caches hold what was
        read after `since`.
        """
        context = session.warm_tokens(session.model, since)
        if not context or model == session.model:
            return 0.0
        current = self._catalogue.rates(session.model, context)
        other = self._catalogue.rates(model, context)
        if current is None or other is None:
            return None
        warm = min(session.warm_tokens(model, since), context)
        fresh = context - warm
        read = fresh * other.input + warm * other.cached_input
        return (read - context * current.cached_input) / _PER

    def going_on(
        self, session: Session, model: str, route: str | None, need: Need, since: float
    ) -> float | None:
        """What this request and those after it are expected to cost at a model.

        A session that has made n requests is expected to make n more, none of them shorter.
        """
        output = self._outputs.expected_output(model, route, need)
        context = session.warm_tokens(session.model, since)
        own = session.warm_tokens(model, since)
        first = self._costs.expected_cost(model, need, output, own)
        later = self._costs.expected_cost(model, need, output, context)
        if first is None or later is None:
            return None
        return first + max(0, session.requests - 1) * later

    def expected(
        self, session: Session | None, model: str, route: str | None, need: Need, since: float
    ) -> float | None:
        """What a request is expected to cost."""
        output = self._outputs.expected_output(model, route, need)
        warm = session.warm_tokens(model, since) if session is not None else 0
        return self._costs.expected_cost(model, need, output, warm)

    def otherwise(self, session: Session, model: str, usage: Usage, since: float) -> float | None:
        """What a request that was answered would have cost at the model that was ranked first, had
        all of its session gone to those."""
        cached = min(held(session.otherwise, model, since), usage.input_tokens)
        tokens = Usage(usage.input_tokens, usage.output_tokens, cached_tokens=cached)
        return self._costs.cost_of(model, tokens)
