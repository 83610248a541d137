"""Which models the server serves: names, the providers behind them, whether those are on, and what
is known of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from serving.access.stored_key import StoredProviderKey
from serving.config import ProviderConfig, ServerConfig
from serving.config_base import check_base_url, origin_of
from serving.config_ranking import Price
from serving.eligibility import Capabilities
from serving.errors import ConfigError
from serving.prices import Place, PublicPrices, Rates
from serving.protocols.base import Protocol
from serving.protocols.translations import Dialect

_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider whose base URL and key are known."""

    name: str
    base_url: str
    key: str | None = field(repr=False)
    protocols: tuple[Protocol, ...] = (Protocol.CHAT,)
    """What it speaks; the first is what a request of any other protocol is translated to."""
    stream_usage: bool = True
    dialect: Dialect = field(default_factory=Dialect)


@dataclass(frozen=True, slots=True)
class Target:
    """A model that can be asked now."""

    name: str
    """The public name."""
    model: str
    """The upstream's name."""
    provider: Provider


class Catalogue:
    """Names to targets. A name is a key of `models`, or `provider/<the upstream's name>`."""

    def __init__(
        self,
        config: ServerConfig,
        environ: Mapping[str, str],
        prices: PublicPrices | None = None,
    ) -> None:
        self._prices = prices or PublicPrices(config.prices)
        self._place = lru_cache(maxsize=_REMEMBERED)(self._find_place)
        self._target = lru_cache(maxsize=_REMEMBERED)(self._find_target)
        self._capable = lru_cache(maxsize=_REMEMBERED)(self._find_capabilities)
        self._models = config.models
        self._owners_rates = {
            name: Rates.of(model.price)
            for name, model in config.models.items()
            if model.price is not None
        }
        self._configs = config.providers
        self._environ = environ
        self._elsewhere: dict[str, str] = {}
        """Providers whose stored key is for another origin, and that origin."""
        self._providers = self._switched_on({})

    def use_stored_keys(self, stored: Mapping[str, StoredProviderKey]) -> None:
        """Take over the providers' keys that are stored; one of the environment goes before.

        A key is used at the origin alone that it was stored for.
        """
        fit: dict[str, str] = {}
        self._elsewhere = {}
        for name, each in stored.items():
            if each.origin == self.origin(name):
                fit[name] = each.key
            else:
                self._elsewhere[name] = each.origin
        self._providers = self._switched_on(fit)
        for remembered in (self._place, self._target, self._capable):
            remembered.cache_clear()

    def origin(self, provider: str) -> str | None:
        """Scheme, host and port of a provider; None for one that is unknown or has no base URL."""
        entry = self._configs.get(provider)
        base_url = _base_url(entry, self._environ) if entry else None
        return origin_of(base_url) if base_url else None

    def _switched_on(self, stored: Mapping[str, str]) -> dict[str, Provider]:
        return {
            name: provider
            for name, entry in self._configs.items()
            if (provider := _switched_on(name, entry, self._environ, stored.get(name))) is not None
        }

    @property
    def providers(self) -> list[str]:
        """Names of the providers that are on."""
        return list(self._providers)

    @property
    def all_providers(self) -> list[str]:
        """Names of the configured providers, on or off."""
        return list(self._configs)

    def known(self, name: str) -> bool:
        """Whether the name belongs to a configured provider, on or off."""
        return self._locate(name) is not None

    def target(self, name: str) -> Target | None:
        """The model behind a name; None for an unknown name and while its provider is off."""
        return self._target(name)

    def upstream_name(self, name: str) -> str | None:
        """The upstream's own name of a known model, its provider on or off."""
        located = self._locate(name)
        return located[1] if located else None

    def rates(self, name: str, input_tokens: int) -> Rates | None:
        """What a prompt of that size costs: the owner's price, else the public one, of a model that
        need not be served here."""
        rates = self._owners_rates.get(name)
        return rates or self._prices.rates(self._place(name), input_tokens)

    def price(self, name: str) -> Price | None:
        """The price of short prompts."""
        rates = self.rates(name, 1)
        return rates.price() if rates else None

    def capabilities(self, name: str) -> Capabilities:
        """What a model can do, as far as the owner says; its context as far as anyone does."""
        return self._capable(name, self._prices.context_window(self._place(name)))

    def why_off(self, name: str) -> str:
        """For an owner: which variable would switch a known name on; empty for an unknown one."""
        located = self._locate(name)
        if located is None or located[0] in self._providers:
            return ""
        entry = self._configs[located[0]]
        wanted = [entry.base_url_env, entry.api_key_env if entry.api_key_required else None]
        variables = " and ".join(variable for variable in wanted if variable)
        if located[0] in self._elsewhere and variables:
            return (
                f"Its provider {located[0]!r} is off: its stored key is for another origin than its"
                " base URL now has; store it anew."
            )
        return f"Its provider {located[0]!r} is off: the server needs {variables} set."

    def listed(self) -> list[str]:
        """Names under `models` whose provider is on."""
        return [name for name in self._models if self.target(name)]

    def _find_target(self, name: str) -> Target | None:
        located = self._locate(name)
        provider = self._providers.get(located[0]) if located else None
        if located is None or provider is None:
            return None
        return Target(name, located[1], provider)

    def _find_capabilities(self, name: str, window: int | None) -> Capabilities:
        listed = self._models.get(name)
        provider = self._configs.get(self._place(name).provider)
        tags = provider.tags if provider else {}
        if listed is None:
            return Capabilities(window, tags=tags)
        return Capabilities(
            context_tokens=listed.context_tokens or window,
            max_output_tokens=listed.max_output_tokens,
            vision=listed.vision,
            audio=listed.audio,
            files=listed.files,
            tools=listed.tools,
            structured_output=listed.structured_output,
            tags={**tags, **listed.tags} if listed.tags else tags,
        )

    def _find_place(self, name: str) -> Place:
        provider, model = self._locate(name) or _split(name)
        entry, on = self._configs.get(provider), self._providers.get(provider)
        base_url = on.base_url if on else entry.base_url if entry else None
        return Place(model, provider, base_url)

    def _locate(self, name: str) -> tuple[str, str] | None:
        listed = self._models.get(name)
        if listed is not None:
            return listed.provider, listed.model
        provider, model = _split(name)
        return (provider, model) if model and provider in self._configs else None


def _split(name: str) -> tuple[str, str]:
    provider, _, model = name.partition("/")
    return provider, model


def _base_url(entry: ProviderConfig, environ: Mapping[str, str]) -> str | None:
    if entry.base_url_env is None:
        return entry.base_url
    value = environ.get(entry.base_url_env, "").strip()
    if not value:
        return None
    try:
        return check_base_url(value)
    except ValueError as error:
        raise ConfigError(f"environment variable {entry.base_url_env}: {error}") from None


def _switched_on(
    name: str, entry: ProviderConfig, environ: Mapping[str, str], stored: str | None
) -> Provider | None:
    base_url = _base_url(entry, environ)
    if base_url is None:
        return None
    key = environ.get(entry.api_key_env, "").strip() if entry.api_key_env else ""
    if not key.isascii() or not key.isprintable():
        raise ConfigError(f"environment variable {entry.api_key_env}: must be printable ASCII")
    key = key or stored or ""
    if entry.api_key_env and entry.api_key_required and not key:
        return None
    return Provider(
        name, base_url, key or None, _protocols(entry), entry.stream_usage, _dialect(entry)
    )


def _dialect(entry: ProviderConfig) -> Dialect:
    return Dialect(**entry.dialect.model_dump())


def _protocols(entry: ProviderConfig) -> tuple[Protocol, ...]:
    if entry.protocol == "anthropic":
        return (Protocol.MESSAGES,)
    return (Protocol.CHAT, Protocol.RESPONSES) if entry.responses else (Protocol.CHAT,)
