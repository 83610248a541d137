"""API keys: made, hashed, and read from a request. A key itself is never kept."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from sqlalchemy.engine import URL

from serving.access.principal import KeyLimits, Principal, Role
from serving.errors import ConfigError

PREFIX = "pm_"
MAX_KEY_BYTES = 512
"""Of a presented key; longer ones are nobody's."""
MIN_SECRET = 16
"""Characters of a secret that keys are hashed with."""
SHOWN = 4
_BEARER = b"bearer "
_BLOCK = 64
"""Bytes that SHA-256 takes at once."""


@dataclass(frozen=True, slots=True)
class KeySecret:
    """One key that its owner may present; two while a rotation's grace lasts."""

    digest: bytes = field(repr=False)
    hashed_with: str
    """Mark of the secret that it was hashed with."""
    last_characters: str
    created_at: int
    expires_at: int | None
    """The end of its grace, after another took its place."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A stored key. Times are in seconds since 1970."""

    id: str
    name: str
    tenant: str
    role: Role
    limits: KeyLimits
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None
    secrets: tuple[KeySecret, ...] = ()
    """Newest first."""

    def usable(self, now: float) -> bool:
        """Whether it may be used, by any of its secrets."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def principal(self) -> Principal:
        """Who presents it."""
        return Principal(self.id, self.tenant, self.role, self.name, self.limits)


def new_key() -> str:
    """A key: 32 random bytes behind a prefix that scanners of leaked secrets can look for."""
    return PREFIX + secrets.token_urlsafe(32)


class _Mac:
    """HMAC-SHA256 (RFC 2104) under one secret, which is hashed once and not with each key.

    With cold caches, as between requests, a third of what `hmac.digest` takes.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) > _BLOCK:
            secret = sha256(secret).digest()
        secret = secret.ljust(_BLOCK, b"\0")
        self._inner = sha256(bytes(byte ^ 0x36 for byte in secret))
        self._outer = sha256(bytes(byte ^ 0x5C for byte in secret))

    def digest(self, message: bytes) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.digest()


class Hasher:
    """Keyed hashes of keys: without a secret, a copy of the database tells nobody whose they are.

    The first secret hashes new keys; keys that were hashed with another are still found.
    """

    def __init__(self, all_secrets: Sequence[str]) -> None:
        self._macs = [_Mac(secret.encode()) for secret in all_secrets]
        self.marks = [mac.digest(b"mark").hex()[:8] for mac in self._macs]

    @property
    def mark(self) -> str:
        """Of the secret that hashes new keys; tells nothing of it."""
        return self.marks[0]

    def digest(self, key: bytes) -> bytes:
        """The hash under the first secret."""
        return self._macs[0].digest(key)

    def digests(self, key: bytes) -> Iterable[bytes]:
        """The hashes under all secrets, first to last."""
        for mac in self._macs:
            yield mac.digest(key)


def presented(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The key that a request bears: `authorization: Bearer`, else `x-api-key`; None without one."""
    other: bytes | None = None
    for name, value in headers:
        if name == b"authorization":
            if value[:7].lower() == _BEARER and (key := value[7:].strip()):
                return key
        elif name == b"x-api-key" and other is None:
            other = value.strip() or None
    return other


def hasher_of(variable: str, environ: Mapping[str, str], database: URL | None) -> Hasher | None:
    """By the secrets of the environment, else by one kept beside a SQLite file, made on first use.

    None where there is neither: then no key can be stored. Raises ConfigError for a secret that is
    too short.
    """
    given = [each.strip() for each in environ.get(variable, "").split(",") if each.strip()]
    if any(len(each) < MIN_SECRET for each in given):
        raise ConfigError(
            f"environment variable {variable}: a secret has at least {MIN_SECRET} characters"
        )
    if given:
        return Hasher(given)
    if database is None or database.get_backend_name() != "sqlite":
        return None
    if not database.database or database.database == ":memory:":
        return Hasher([secrets.token_urlsafe(32)])
    return Hasher([_kept_secret(Path(f"{database.database}.key-secret"))])


def _kept_secret(file: Path) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    # Written elsewhere and linked: of two processes that start at once, both read the same.
    draft = file.with_name(f"{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    if not file.exists():
        with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as new:
            new.write(secrets.token_urlsafe(32))
        with suppress(FileExistsError):
            os.link(draft, file)
        draft.unlink()
    secret = file.read_text(encoding="utf-8").strip()
    if len(secret) < MIN_SECRET:
        raise ConfigError(f"{file}: holds no secret; without the old one, stored keys are lost")
    return secret
