"""Who makes a request."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a key is good for."""

    CALLER = "caller"
    """Asking models and routers, and looking at what is the key's own."""
    ADMIN = "admin"
    """Everything."""


MOST_A_MINUTE, MOST_DOLLARS = 2**31 - 1, 1e12
"""What a key's limits may be at most: the database holds no more."""


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What a key may use; None for as much as it likes."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Of prompts and answers."""
    monthly_budget: float | None = None
    """US dollars in a calendar month of UTC."""


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller of a request, as far as its key tells."""

    key_id: str | None
    """None for a caller without a key."""
    tenant: str
    """Whose sessions, records and usage these are. Keys of one tenant share them."""
    role: Role
    name: str = ""
    limits: KeyLimits = KeyLimits()

    @property
    def is_admin(self) -> bool:
        """Whether it may do what only the owner may."""
        return self.role is Role.ADMIN


# Tenants of stored keys hold no colon, so none can be one of these.
ANONYMOUS = Principal(None, ":anonymous", Role.CALLER, "anonymous")
LOCAL_OWNER = Principal(None, ":anonymous", Role.ADMIN, "anonymous")
"""A caller on the machine of a server that has no admin key."""
ENVIRONMENT_ADMIN = Principal("environment", ":environment", Role.ADMIN, "environment")
"""The bearer of the key that the environment gives."""
