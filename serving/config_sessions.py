"""How requests of one conversation keep their model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, FiniteFloat

from serving.config_base import EnvName, Seconds, Strict
from serving.errors import ConfigError

SCHEMES = ("redis", "rediss", "unix")


def check_redis_url(value: str) -> str:
    """A URL such as ``redis://host:6379/0``; raises ValueError, which does not repeat the value."""
    try:
        parts = urlsplit(value.strip())
        _ = parts.port  # raises ValueError for one that is no number
    except ValueError:
        raise ValueError("must be a URL such as redis://host:6379/0") from None
    if parts.scheme not in SCHEMES or not (parts.path if parts.scheme == "unix" else parts.netloc):
        raise ValueError("must be a URL such as redis://host:6379/0")
    return value.strip()


EnvelopeTag = Annotated[
    str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$", max_length=64), AfterValidator(str.lower)
]


class SwitchingConfig(Strict):
    """When a session leaves its model, whose provider holds its prompt in a cache."""

    min_confidence: Annotated[FiniteFloat, Field(ge=0, le=1)] = 0.5
    """Of a decision for another task that its model can do too: below, the model stays."""
    max_switch_spend_pct: Annotated[FiniteFloat, Field(ge=0)] | None = 100
    """What switching may cost a session, in per cent of what it has spent; null for no limit."""
    cache_s: Seconds = 300
    """Providers keep a prompt so long: what a model read longer ago is not cached any more."""


class SessionsConfig(Strict):
    """Sessions: by the header `X-Model-Affinity`, or recognised by how a conversation begins."""

    implicit: bool = True
    """Whether requests without the header have a session too."""
    route_on_user_only: bool = True
    """Whether only a new turn of the user is routed, and a tool loop keeps its model; a router may
    say otherwise."""
    envelopes: tuple[EnvelopeTag, ...] = ()
    """Further tags that agents put around what no user has said, beside those known to routing."""
    ttl_s: Annotated[int, Field(ge=1)] = 600
    """A session that is not used for so long is forgotten."""
    max_sessions: Annotated[int, Field(ge=1)] = 50_000
    """In the memory of each process, about a kilobyte each; the least recently used goes first."""
    redis_url: Annotated[str, AfterValidator(check_redis_url)] | None = None
    """Where replicas share sessions; left out, each process has its own."""
    redis_url_env: EnvName = "POINTSMAN_REDIS_URL"
    """Variable whose value replaces `redis_url`; a password belongs there."""
    redis_timeout_ms: Annotated[FiniteFloat, Field(gt=0)] = 50
    """Redis may keep a request waiting so long; then the process's own copy answers."""
    switching: SwitchingConfig = SwitchingConfig()
    """What makes a session leave its model."""

    def redis(self, environ: Mapping[str, str]) -> str | None:
        """The URL in force; raises ConfigError for a variable whose value is none."""
        value = environ.get(self.redis_url_env, "").strip()
        if not value:
            return self.redis_url
        try:
            return check_redis_url(value)
        except ValueError as error:
            raise ConfigError(f"environment variable {self.redis_url_env}: {error}") from None
