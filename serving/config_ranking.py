"""Sections of the configuration that say what models can do, cost, and how long they take."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, FiniteFloat

from routing.tasks import Tag
from serving.config_base import BaseUrl, EnvName, ProviderName, Seconds, Strict

Dollars = Annotated[FiniteFloat, Field(ge=0)]
Tokens = Annotated[int, Field(gt=0)]


class Price(Strict):
    """US dollars per million tokens."""

    input: Dollars
    """Of input that no cache held."""
    output: Dollars
    """Of output, reasoning included."""
    cached_input: Dollars | None = None
    """Of input that the provider's prompt cache held; left out, as other input."""
    cache_write: Dollars | None = None
    """Of input that is written to that cache; left out, as other input."""


class ModelConfig(Strict):
    """A public model name that is not simply `provider/model`, or of which the owner says more.

    What is left out is not known, and keeps no request away.
    """

    provider: ProviderName
    """One of `providers`."""
    model: Annotated[str, Field(min_length=1, max_length=255)]
    """The upstream's own name for it."""
    price: Price | None = None
    """Left out, what genai-prices knows."""
    context_tokens: Tokens | None = None
    """Prompt and answer together; left out, what genai-prices knows."""
    max_output_tokens: Tokens | None = None
    """Of one answer."""
    vision: bool | None = None
    """Whether it takes images."""
    audio: bool | None = None
    """Whether it takes sound."""
    files: bool | None = None
    """Whether it takes documents such as PDF."""
    tools: bool | None = None
    """Whether it can call tools."""
    structured_output: bool | None = None
    """Whether it can be held to JSON or a JSON schema."""
    tags: dict[Tag, Tag] = Field(default_factory=dict)
    """Beside those of its provider."""


class PricesConfig(Strict):
    """Public prices come with the genai-prices package; over the network only if asked for."""

    refresh_hours: Annotated[FiniteFloat, Field(gt=0)] | None = None
    """Left out, the package's own data stays."""
    url: BaseUrl | None = None
    """A file in the form of genai-prices' data; left out, where that project publishes it."""


class PrometheusConfig(Strict):
    """Seconds by model from an instant query, whose series are labelled `model_name`."""

    url: BaseUrl
    """Prometheus' own base URL, without /api/v1."""
    query: Annotated[str, Field(min_length=1, max_length=4000)]
    """In PromQL."""
    refresh_s: Seconds = 30
    """How often it is asked."""
    token_env: EnvName | None = None
    """Variable that holds a bearer token, where Prometheus wants one."""


class LatencyConfig(Strict):
    """How expected seconds are known: from this server's own traffic, or from Prometheus."""

    half_life_s: Seconds = 600
    """After so long an observation counts half."""
    explore_every: Annotated[int, Field(ge=0)] = 50
    """Where latency ranks, a model of stale latency goes first once in so many requests that could
    have gone to it; 0 never."""
    stale_after_s: Seconds = 900
    """Latency is stale that was not observed for so long, or never."""
    prometheus: PrometheusConfig | None = None
    """Instead of own traffic."""
