"""What requests cost: exactly once they are answered, and as expected before they are asked."""

from __future__ import annotations

from serving.bounded import Bounded
from serving.catalogue import Catalogue
from serving.needs import Need
from serving.prices import Rates
from serving.usage import Usage

PRIOR_OUTPUT_TOKENS = 500.0
"""Expected of an answer while none of its task has been seen."""
MEAN_OVER = 50
"""Answers that the mean of a task's output tokens is over."""
MAX_OBSERVED = 8192
_PER = 1_000_000


class Costs:
    """US dollars, by the catalogue's prices."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def cost_of(self, model: str, usage: Usage) -> float | None:
        """What an answered request cost, tiers and cache included; None where no price is known.

        More cached or written tokens than there are counts as all of them.
        """
        rates = self._catalogue.rates(model, usage.input_tokens)
        if rates is None:
            return None
        return _cost(rates, usage)

    def expected_cost(
        self, model: str, need: Need, expected_output: float, cached_tokens: int = 0
    ) -> float | None:
        """What a request would cost at a model whose cache holds so much of its prompt."""
        rates = self._catalogue.rates(model, need.prompt_tokens)
        if rates is None:
            return None
        cached = min(cached_tokens, need.prompt_tokens)
        fresh = need.prompt_tokens - cached
        tokens = fresh * rates.input + cached * rates.cached_input
        return (tokens + expected_output * rates.output) / _PER + rates.request


def _cost(rates: Rates, usage: Usage) -> float:
    cached = min(usage.cached_tokens, usage.input_tokens)
    written = min(usage.cache_write_tokens, usage.input_tokens - cached)
    hour = min(usage.cache_write_1h_tokens, written)
    tokens = (
        (usage.input_tokens - cached - written) * rates.input
        + cached * rates.cached_input
        + (written - hour) * rates.cache_write
        + hour * rates.cache_write_1h
        + usage.output_tokens * rates.output
    )
    return tokens / _PER + rates.request


class OutputLengths:
    """Exponentially weighted means of output tokens, by model and task."""

    def __init__(self) -> None:
        self._means: Bounded[tuple[str | None, str | None], tuple[float, int]] = Bounded(
            MAX_OBSERVED
        )

    def observe_output(self, model: str, route: str | None, tokens: int) -> None:
        """Take in how long an answer to a request of a task was; `route` None for no task."""
        if tokens < 0:
            return
        # The task's mean over all models speaks for a model that has not answered it yet.
        for key in ((model, route), (None, route)):
            mean, seen = self._means.get(key, (0.0, 0))
            seen = min(seen + 1, MEAN_OVER)
            self._means[key] = mean + (tokens - mean) / seen, seen

    def expected_output(self, model: str, route: str | None, need: Need) -> float:
        """Tokens that the answer is expected to have, never more than the client's cap.

        The mean of the model's answers to the task, else of all models' answers to it, else
        PRIOR_OUTPUT_TOKENS.
        """
        known = self._means.get((model, route)) or self._means.get((None, route))
        expected = known[0] if known else PRIOR_OUTPUT_TOKENS
        cap = need.max_output_tokens
        return expected if cap is None else min(expected, cap)
