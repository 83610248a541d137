"""Which models the server serves: names, the providers behind them, and whether those are on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from serving.config import Price, ProviderConfig, ServerConfig, check_base_url
from serving.errors import ConfigError
from serving.protocols.base import Protocol
from serving.prices import catalogue_price


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider whose base URL and key are known."""

    name: str
    base_url: str
    key: str | None = field(repr=False)
    protocols: tuple[Protocol, ...] = (Protocol.CHAT,)
    """What it speaks; the first is what a request of any other protocol is translated to."""
    stream_usage: bool = True


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

    def __init__(self, config: ServerConfig, environ: Mapping[str, str]) -> None:
        self._models = config.models
        self._configs = config.providers
        self._providers = {
            name: provider
            for name, entry in config.providers.items()
            if (provider := _switched_on(name, entry, environ)) is not None
        }

    @property
    def providers(self) -> list[str]:
        """Names of the providers that are on."""
        return list(self._providers)

    def known(self, name: str) -> bool:
        """Whether the name belongs to a configured provider, on or off."""
        return self._locate(name) is not None

    def target(self, name: str) -> Target | None:
        """The model behind a name; None for an unknown name and while its provider is off."""
        located = self._locate(name)
        provider = self._providers.get(located[0]) if located else None
        if located is None or provider is None:
            return None
        return Target(name, located[1], provider)

    def price(self, name: str) -> Price | None:
        """The owner's price, else the public one, of a model that need not be served here."""
        listed = self._models.get(name)
        if listed is not None and listed.price is not None:
            return listed.price
        provider, model = self._locate(name) or _split(name)
        entry = self._configs.get(provider)
        return catalogue_price(model, provider, entry.base_url if entry else None)

    def why_off(self, name: str) -> str:
        """For an owner: which variable would switch a known name on; empty for an unknown one."""
        located = self._locate(name)
        if located is None or located[0] in self._providers:
            return ""
        entry = self._configs[located[0]]
        wanted = [entry.base_url_env, entry.api_key_env if entry.api_key_required else None]
        variables = " and ".join(variable for variable in wanted if variable)
        return f"Its provider {located[0]!r} is off: the server needs {variables} set."

    def listed(self) -> list[str]:
        """Names under `models` whose provider is on."""
        return [name for name in self._models if self.target(name)]

    def _locate(self, name: str) -> tuple[str, str] | None:
        listed = self._models.get(name)
        if listed is not None:
            return listed.provider, listed.model
        provider, model = _split(name)
        return (provider, model) if model and provider in self._configs else None


def _split(name: str) -> tuple[str, str]:
    provider, _, model = name.partition("/")
    return provider, model


def _switched_on(name: str, entry: ProviderConfig, environ: Mapping[str, str]) -> Provider | None:
    base_url = entry.base_url
    if entry.base_url_env is not None:
        value = environ.get(entry.base_url_env, "").strip()
        if not value:
            return None
        try:
            base_url = check_base_url(value)
        except ValueError as error:
            raise ConfigError(f"environment variable {entry.base_url_env}: {error}") from None
    assert base_url is not None
    key = environ.get(entry.api_key_env, "").strip() if entry.api_key_env else ""
    if entry.api_key_env and entry.api_key_required and not key:
        return None
    if not key.isascii() or not key.isprintable():
        raise ConfigError(f"environment variable {entry.api_key_env}: must be printable ASCII")
    return Provider(name, base_url, key or None, _protocols(entry), entry.stream_usage)


def _protocols(entry: ProviderConfig) -> tuple[Protocol, ...]:
    if entry.protocol == "anthropic":
        return (Protocol.MESSAGES,)
    return (Protocol.CHAT, Protocol.RESPONSES) if entry.responses else (Protocol.CHAT,)
