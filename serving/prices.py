"""What is publicly known of models: prices and context windows, from the genai-prices package."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

from genai_prices import Usage, types
from genai_prices.data_snapshot import DataSnapshot, find_provider_by_id, get_snapshot
from genai_prices.update_prices import DEFAULT_UPDATE_URL, UpdatePrices

from serving.config_ranking import Price, PricesConfig
from serving.refresh import Refresher

_PER = 1_000_000
_MEMO_S = 900
"""Prices may change at a date or a time of the day: they are looked up anew each quarter hour."""
_REMEMBERED = 4096
_PRICES_OF_TEXT = ("input_mtok", "output_mtok")


@dataclass(frozen=True, slots=True)
class Rates:
    """US dollars per million tokens, of prompts of one size, and per request."""

    input: float
    output: float
    cached_input: float
    cache_write: float
    cache_write_1h: float
    request: float = 0.0

    @staticmethod
    def of(price: Price) -> Rates:
        """An owner's price, which holds for every size."""
        write = price.input if price.cache_write is None else price.cache_write
        return Rates(
            input=price.input,
            output=price.output,
            cached_input=price.input if price.cached_input is None else price.cached_input,
            cache_write=write,
            cache_write_1h=write,
        )

    def price(self) -> Price:
        """The same in the form of the configuration."""
        return Price(
            input=self.input,
            output=self.output,
            cached_input=self.cached_input,
            cache_write=self.cache_write,
        )


class Place(NamedTuple):
    """A model as the public data can be asked for it.

    The base URL tells whose prices hold; where the data knows none, the provider's name must be its
    own.
    """

    model: str
    provider: str
    base_url: str | None


class PublicPrices:
    """The package's data, or newer data once `refresher` has fetched some.

    `clock` is the time of the day in seconds since 1970.
    """

    def __init__(
        self, config: PricesConfig | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        config = config or PricesConfig()
        self._clock = clock
        self._snapshot: DataSnapshot = get_snapshot()
        self._update = UpdatePrices(url=config.url or DEFAULT_UPDATE_URL)
        self.refresher = (
            Refresher("prices", self._fetch, config.refresh_hours * 3600)
            if config.refresh_hours is not None
            else None
        )
        self._forget()

    def rates(self, place: Place, input_tokens: int) -> Rates | None:
        """What such a prompt costs, or None where nobody knows: an unknown price is never 0.

        Long prompts may be in a dearer tier, which then holds for all of the request's tokens.
        """
        quarter = int(self._clock() // _MEMO_S)
        starts = self._tiers(place, quarter)
        if starts is None:
            return None
        return self._rates(place, quarter, starts, bisect_left(starts, input_tokens))

    def context_window(self, place: Place) -> int | None:
        """Tokens of prompt and answer, or None where nobody knows."""
        return self._window(place)

    def _forget(self) -> None:
        self._found = lru_cache(maxsize=_REMEMBERED)(self._look_up)
        self._tiers = lru_cache(maxsize=_REMEMBERED)(self._look_up_tiers)
        self._rates = lru_cache(maxsize=_REMEMBERED)(self._look_up_rates)
        self._window = lru_cache(maxsize=_REMEMBERED)(self._look_up_window)

    def _look_up(self, place: Place) -> tuple[Any, Any] | None:
        """Provider and model of the data."""
        # The package's own look-up by name remembers all it was asked, and clients choose names.
        by_name = find_provider_by_id(self._snapshot.providers, place.provider)
        for provider in (self._at(place.base_url), by_name):
            if provider is not None:
                model = provider.find_model(place.model, all_providers=self._snapshot.providers)
                if model is not None:
                    return provider, model
        return None

    def _at(self, base_url: str | None) -> Any:
        if base_url is None:
            return None
        try:
            return self._snapshot.find_provider(None, None, base_url)
        except LookupError:
            return None

    def _look_up_window(self, place: Place) -> int | None:
        found = self._found(place)
        window = found[1].context_window if found else None
        return window if isinstance(window, int) and window > 0 else None

    def _look_up_tiers(self, place: Place, quarter: int) -> tuple[int, ...] | None:
        """Prompt tokens above which another tier begins; None for a model without a price."""
        found = self._found(place)
        if found is None or found[1].prices == []:
            return None
        prices = found[1].get_prices(_moment(quarter))
        if any(getattr(prices, key) is None for key in _PRICES_OF_TEXT):
            return None  # billed by the hour, by the character or not for text at all
        return tuple(
            sorted(
                {
                    tier.start
                    for price in vars(prices).values()
                    if isinstance(price, types.TieredPrices)
                    for tier in price.tiers
                }
            )
        )

    def _look_up_rates(
        self, place: Place, quarter: int, starts: tuple[int, ...], size: int
    ) -> Rates | None:
        found = self._found(place)
        assert found is not None
        # The largest prompt of its class; of the last, which has no end, any beyond its start.
        tokens = max(1, starts[size]) if size < len(starts) else max(starts, default=0) + _PER

        def cost(**usage: int) -> types.PriceCalculation:
            return found[1].calc_price(
                Usage(**usage), found[0], genai_request_timestamp=_moment(quarter)
            )

        try:
            whole = cost(input_tokens=tokens, output_tokens=tokens)
            request = whole.total_price - whole.input_price - whole.output_price
            parts = (
                whole.input_price,
                whole.output_price,
                cost(input_tokens=tokens, cache_read_tokens=tokens).input_price,
                cost(input_tokens=tokens, cache_write_tokens=tokens).input_price,
                cost(
                    input_tokens=tokens, cache_write_tokens=tokens, cache_write_1h_tokens=tokens
                ).input_price,
            )
        except ValueError:
            return None  # negative or no number: the package refuses to reckon with it
        entry, output, cached, write, write_1h = (float(part * _PER / tokens) for part in parts)
        return Rates(entry, output, cached, write, write_1h, float(request))

    async def _fetch(self) -> None:
        snapshot: DataSnapshot | None = await asyncio.to_thread(self._update.fetch)
        if snapshot is None or not await asyncio.to_thread(_sound, snapshot):
            raise ValueError("the data has a price that is none")
        self._snapshot = snapshot
        self._forget()


def _moment(quarter: int) -> datetime:
    return datetime.fromtimestamp(quarter * _MEMO_S, tz=UTC)


def _sound(snapshot: DataSnapshot) -> bool:
    """Whether there are prices, and every one of them is a number of at least 0."""
    numbers = list(_numbers(snapshot))
    return bool(numbers) and all(number.is_finite() and number >= 0 for number in numbers)


def _numbers(snapshot: DataSnapshot) -> Iterator[Decimal]:
    for provider in snapshot.providers:
        for model in provider.models:
            sets = model.prices if isinstance(model.prices, list) else [model.prices]
            for prices in sets:
                for price in vars(getattr(prices, "prices", prices)).values():
                    if isinstance(price, types.TieredPrices):
                        yield price.base
                        yield from (tier.price for tier in price.tiers)
                    elif price is not None:
                        yield price
