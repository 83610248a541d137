"""All usable keys in memory, by their full hash: what a request's key is looked up in."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hmac import compare_digest

from serving.access.keys import MAX_KEY_BYTES, ApiKey, Hasher
from serving.access.principal import ENVIRONMENT_ADMIN, Principal


@dataclass(frozen=True, slots=True)
class _Entry:
    digest: bytes = field(repr=False)
    principal: Principal
    expires_at: float


class Keyring:
    """The key of the environment, and the stored ones as they were last read.

    `clock` is the time of the day in seconds since 1970.
    """

    def __init__(
        self,
        hasher: Hasher,
        admin_key: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._hasher = hasher
        self._clock = clock
        self._fixed: dict[bytes, _Entry] = {}
        if admin_key:
            digest = hasher.digest(admin_key.encode())
            self._fixed[digest] = _Entry(digest, ENVIRONMENT_ADMIN, float("inf"))
        self._entries = dict(self._fixed)
        self.outdated: dict[bytes, bytes] = {}
        """Hashes under an older secret that keys were found by, and those to take their place."""

    def replace(self, keys: Iterable[ApiKey]) -> int:
        """Take stored keys over; the number of secrets that no known secret has hashed."""
        entries = dict(self._fixed)
        lost = 0
        for key in keys:
            principal = key.principal()
            for secret in key.secrets:
                if secret.hashed_with not in self._hasher.marks:
                    lost += 1
                    continue
                ends = [each for each in (key.expires_at, secret.expires_at) if each is not None]
                entries[secret.digest] = _Entry(
                    secret.digest, principal, min(ends, default=float("inf"))
                )
        self._entries = entries
        return lost

    def find(self, key: bytes) -> Principal | None:
        """Whose a presented key is; None for nobody's."""
        if len(key) > MAX_KEY_BYTES or not self._entries:
            return None
        for number, digest in enumerate(self._hasher.digests(key)):
            entry = self._entries.get(digest)
            if entry is None or not compare_digest(entry.digest, digest):
                continue
            if self._clock() >= entry.expires_at:
                return None
            if number and digest not in self._fixed:
                self.outdated[digest] = self._hasher.digest(key)
            return entry.principal
        return None

    def any_usable(self, *, admin: bool = False) -> bool:
        """Whether there is any key that may be used now, an admin's if asked so."""
        if not self._entries:
            return False
        now = self._clock()
        return any(
            now < entry.expires_at and (entry.principal.is_admin or not admin)
            for entry in self._entries.values()
        )
