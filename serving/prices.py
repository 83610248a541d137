"""Public prices of models, offline, from the genai-prices package."""

from __future__ import annotations

from functools import lru_cache

from genai_prices import Usage, calc_price

from serving.config import Price

_SAMPLE_TOKENS = 1000
"""Far below any tier at which long prompts become dearer."""


@lru_cache(maxsize=1024)
def catalogue_price(model: str, provider: str, base_url: str | None) -> Price | None:
    """US dollars per million tokens, or None where nobody knows: an unknown price is never 0.

    The base URL tells the catalogue whose prices hold; where it knows none, the provider's name
    must be the catalogue's own.
    """
    places = [{"provider_id": provider}]
    if base_url is not None:
        places.insert(0, {"provider_api_url": base_url})
    usage = Usage(input_tokens=_SAMPLE_TOKENS, output_tokens=_SAMPLE_TOKENS)
    scale = 1_000_000 / _SAMPLE_TOKENS
    for place in places:
        try:
            price = calc_price(usage, model_ref=model, **place)
        except LookupError:
            continue
        return Price(
            input=float(price.input_price) * scale, output=float(price.output_price) * scale
        )
    return None
