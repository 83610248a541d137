"""A provider's key that is not of the environment."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StoredProviderKey:
    """The key, and the origin it may be sent to."""

    provider: str
    origin: str
    key: str = field(repr=False)
