"""Keys of providers in the database, encrypted, so that one can be given to a running server.

A key is sealed together with its provider and the origin it was given for: moved to another row, or
where the provider's base URL has changed since, it is not used.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import orjson
import structlog
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from sqlalchemy import delete, insert, select, update

from serving.access.stored_key import StoredProviderKey
from serving.errors import ConfigError
from serving.storage.database import Database
from serving.storage.tables.access import SUBJECT, provider_keys
from serving.storage.tables.changes import next_change

log = structlog.get_logger("pointsman")


@dataclass(frozen=True, slots=True)
class ProviderKeyEntry:
    """What may be told of it."""

    provider: str
    origin: str
    created_at: int


class NoSuchProviderKey(LookupError):
    """No key of the provider is stored."""


def fernet_of(variable: str, environ: Mapping[str, str]) -> MultiFernet | None:
    """By the keys of the environment, first to last; None without any. Raises ConfigError."""
    given = [each.strip() for each in environ.get(variable, "").split(",") if each.strip()]
    try:
        return MultiFernet([Fernet(each) for each in given]) if given else None
    except ValueError:
        raise ConfigError(
            f"environment variable {variable}: must hold Fernet keys, 32 bytes in URL-safe base64"
        ) from None


class ProviderKeyStore:
    """Every call may raise DatabaseDown."""

    def __init__(
        self, database: Database, fernet: MultiFernet, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._fernet = fernet
        self._clock = clock

    async def put(self, stored: StoredProviderKey) -> ProviderKeyEntry:
        """Store a key, in the place of the provider's last."""
        created = int(self._clock())
        row = {
            "provider": stored.provider,
            "origin": stored.origin,
            "created_at": created,
            "ciphertext": self._fernet.encrypt(
                orjson.dumps([stored.provider, stored.origin, stored.key])
            ),
        }
        mine = provider_keys.c.provider == stored.provider
        async with self._database.begin() as connection:
            await next_change(connection, SUBJECT)
            await connection.execute(delete(provider_keys).where(mine))
            await connection.execute(insert(provider_keys).values(row))
        return ProviderKeyEntry(stored.provider, stored.origin, created)

    async def remove(self, provider: str) -> None:
        """Forget a key; raises NoSuchProviderKey."""
        statement = delete(provider_keys).where(provider_keys.c.provider == provider)
        async with self._database.begin() as connection:
            await next_change(connection, SUBJECT)
            if not (await connection.execute(statement)).rowcount:
                raise NoSuchProviderKey(provider)

    async def entries(self) -> list[ProviderKeyEntry]:
        """What is stored, by provider."""
        columns = provider_keys.c
        query = select(columns.provider, columns.origin, columns.created_at)
        async with self._database.read() as connection:
            rows = await connection.execute(query.order_by(columns.provider))
            return [ProviderKeyEntry(*row) for row in rows]

    async def load(self) -> dict[str, StoredProviderKey]:
        """All keys that can be decrypted and are in their own row, by provider."""
        async with self._database.read() as connection:
            query = select(provider_keys.c.provider, provider_keys.c.ciphertext)
            rows = (await connection.execute(query)).all()
        opened = [self._open(provider, bytes(ciphertext)) for provider, ciphertext in rows]
        return {stored.provider: stored for stored in opened if stored is not None}

    async def renew(self) -> None:
        """Encrypt all anew under the first key, so that the others can go."""
        async with self._database.begin() as connection:
            query = select(provider_keys.c.provider, provider_keys.c.ciphertext)
            for provider, ciphertext in (await connection.execute(query)).all():
                if self._open(provider, bytes(ciphertext)) is None:
                    continue
                await connection.execute(
                    update(provider_keys)
                    .where(
                        provider_keys.c.provider == provider,
                        provider_keys.c.ciphertext == ciphertext,
                    )
                    .values(ciphertext=self._fernet.rotate(bytes(ciphertext)))
                )

    def _open(self, provider: str, ciphertext: bytes) -> StoredProviderKey | None:
        try:
            sealed, origin, key = orjson.loads(self._fernet.decrypt(ciphertext))
        except (InvalidToken, ValueError):
            sealed = None
        if sealed != provider:
            log.error("provider_key_unreadable", provider=provider)
            return None
        return StoredProviderKey(provider, origin, key)
