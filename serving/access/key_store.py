"""Keys in the database. Every call may raise DatabaseDown."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import RowMapping, and_, delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from serving.access.keys import SHOWN, ApiKey, Hasher, KeySecret, new_key
from serving.access.principal import KeyLimits, Role
from serving.storage.database import Database
from serving.storage.tables.access import SUBJECT, api_key_secrets, api_keys
from serving.storage.tables.changes import next_change

_LIMITS = ("requests_per_minute", "tokens_per_minute", "monthly_budget")


class NoSuchKey(LookupError):
    """No stored key has the id."""


class KeyRevoked(RuntimeError):
    """A key that was revoked stays so."""


@dataclass(frozen=True, slots=True)
class Made:
    """A key that was just made: the one time that it can be shown."""

    key: ApiKey
    plaintext: str


class KeyStore:
    """Reads and writes keys; each change moves the version that replicas watch."""

    def __init__(
        self, database: Database, hasher: Hasher, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._hasher = hasher
        self._clock = clock

    async def create(
        self,
        name: str,
        *,
        role: Role = Role.CALLER,
        tenant: str | None = None,
        limits: KeyLimits | None = None,
        expires_at: int | None = None,
    ) -> Made:
        """A new key; its tenant is its own id where none is given."""
        identifier = str(uuid.uuid4())
        limits = limits or KeyLimits()
        row = {
            "id": identifier,
            "name": name,
            "tenant": tenant or identifier,
            "role": role.value,
            "created_at": self._now(),
            "expires_at": expires_at,
            **{column: getattr(limits, column) for column in _LIMITS},
        }
        plaintext, secret = self._secret()
        async with self._changing() as connection:
            await connection.execute(insert(api_keys).values(row))
            await _add_secret(connection, identifier, secret)
        return Made(_key({**row, "revoked_at": None}, [secret]), plaintext)

    async def get(self, identifier: str) -> ApiKey:
        """One key; raises NoSuchKey."""
        async with self._database.read() as connection:
            return await _get(connection, identifier)

    async def page(self, count: int, after: str | None = None) -> list[ApiKey]:
        """Keys in the order they were made, behind the one called `after`; raises NoSuchKey."""
        query = select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id).limit(count)
        async with self._database.read() as connection:
            if after is not None:
                last = await _get(connection, after)
                created = api_keys.c.created_at
                query = query.where(
                    or_(
                        created > last.created_at,
                        and_(created == last.created_at, api_keys.c.id > last.id),
                    )
                )
            rows = (await connection.execute(query)).mappings().all()
            return await _with_secrets(connection, rows)

    async def load(self) -> list[ApiKey]:
        """All keys that may be used now or later."""
        now = self._now()
        usable = and_(
            api_keys.c.revoked_at.is_(None),
            or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > now),
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(select(api_keys).where(usable))).mappings().all()
            return await _with_secrets(connection, rows, every=True)

    async def change(self, identifier: str, values: Mapping[str, Any]) -> ApiKey:
        """Give columns new values; raises NoSuchKey, and KeyRevoked."""
        async with self._changing() as connection:
            await _get_unrevoked(connection, identifier)
            if values:
                await connection.execute(
                    update(api_keys).where(api_keys.c.id == identifier).values(dict(values))
                )
                key = await _get(connection, identifier)
        return key

    async def revoke(self, identifier: str) -> ApiKey:
        """Refuse a key from now on; raises NoSuchKey."""
        async with self._changing() as connection:
            key = await _get(connection, identifier)
            if key.revoked_at is None:
                key = replace(key, revoked_at=self._now())
                await connection.execute(
                    update(api_keys)
                    .where(api_keys.c.id == identifier)
                    .values(revoked_at=key.revoked_at)
                )
            return key

    async def rotate(self, identifier: str, grace_s: int) -> Made:
        """Another secret for a key; the older ones hold for the grace, in seconds.

        Raises NoSuchKey, and KeyRevoked.
        """
        plaintext, secret = self._secret()
        end = self._now() + grace_s
        older = api_key_secrets.c
        async with self._changing() as connection:
            await _get_unrevoked(connection, identifier)
            await connection.execute(
                delete(api_key_secrets).where(
                    older.key_id == identifier, older.expires_at <= self._now()
                )
            )
            await connection.execute(
                update(api_key_secrets)
                .where(
                    older.key_id == identifier,
                    or_(older.expires_at.is_(None), older.expires_at > end),
                )
                .values(expires_at=end)
            )
            await _add_secret(connection, identifier, secret)
            key = await _get(connection, identifier)
        return Made(key, plaintext)

    async def rehash(self, old: bytes, new: bytes) -> None:
        """Take the hash under the first secret for one under another, of the same key."""
        async with self._changing() as connection:
            await connection.execute(
                update(api_key_secrets)
                .where(api_key_secrets.c.digest == old)
                .values(digest=new, hashed_with=self._hasher.mark)
            )

    def _changing(self) -> AbstractAsyncContextManager[AsyncConnection]:
        return _change(self._database)

    def _secret(self) -> tuple[str, KeySecret]:
        plaintext = new_key()
        digest = self._hasher.digest(plaintext.encode())
        mark = self._hasher.mark
        return plaintext, KeySecret(digest, mark, plaintext[-SHOWN:], self._now(), None)

    def _now(self) -> int:
        return int(self._clock())


@asynccontextmanager
async def _change(database: Database) -> AsyncIterator[AsyncConnection]:
    async with database.begin() as connection:
        await next_change(connection, SUBJECT)
        yield connection


async def _add_secret(connection: AsyncConnection, identifier: str, secret: KeySecret) -> None:
    await connection.execute(
        insert(api_key_secrets).values(
            digest=secret.digest,
            key_id=identifier,
            hashed_with=secret.hashed_with,
            last_characters=secret.last_characters,
            created_at=secret.created_at,
            expires_at=secret.expires_at,
        )
    )


async def _get(connection: AsyncConnection, identifier: str) -> ApiKey:
    query = select(api_keys).where(api_keys.c.id == identifier)
    row = (await connection.execute(query)).mappings().one_or_none()
    if row is None:
        raise NoSuchKey(identifier)
    [key] = await _with_secrets(connection, [row])
    return key


async def _get_unrevoked(connection: AsyncConnection, identifier: str) -> None:
    if (await _get(connection, identifier)).revoked_at is not None:
        raise KeyRevoked(identifier)


async def _with_secrets(
    connection: AsyncConnection, rows: Sequence[RowMapping], *, every: bool = False
) -> list[ApiKey]:
    """Keys of rows with their secrets; `every` reads all secrets instead of naming the keys."""
    query = select(api_key_secrets)
    if not every:
        query = query.where(api_key_secrets.c.key_id.in_([row["id"] for row in rows]))
    secrets: dict[str, list[KeySecret]] = {}
    for row in (await connection.execute(query)).mappings():
        secret = KeySecret(
            digest=bytes(row["digest"]),
            hashed_with=row["hashed_with"],
            last_characters=row["last_characters"],
            created_at=row["created_at"],
            expires_at=row["expires_at"],
        )
        secrets.setdefault(row["key_id"], []).append(secret)
    return [_key(row, secrets.get(row["id"], ())) for row in rows]


def _key(row: Mapping[Any, Any], secrets: Iterable[KeySecret]) -> ApiKey:
    newest_first = sorted(
        secrets, key=lambda each: (each.expires_at is None, each.created_at), reverse=True
    )
    return ApiKey(
        id=row["id"],
        name=row["name"],
        tenant=row["tenant"],
        role=Role(row["role"]),
        limits=KeyLimits(**{column: row[column] for column in _LIMITS}),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        secrets=tuple(newest_first),
    )
