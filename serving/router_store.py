"""Stored routers: each change is a revision, and no change overwrites one that it has not seen.

StoreError
├── NameTaken      another stored router has the name
├── NotStored      there is no such router or revision, or it was deleted
└── Changed        the router is at another revision than the caller has seen
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import RowMapping, Select, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from routing.tasks import Router
from serving.storage.database import Database
from serving.storage.tables.changes import last_change, next_change
from serving.storage.tables.routers import revisions, routers

SUBJECT = "routers"


class StoreError(Exception):
    """A change or a look-up that is refused; nothing has changed."""


class NameTaken(StoreError):
    """A name belongs to one router at a time."""


class NotStored(StoreError):
    """No such router, or no such revision of it."""


class Changed(StoreError):
    """Somebody else was first; `revision` is the current one."""

    def __init__(self, revision: int) -> None:
        super().__init__(revision)
        self.revision = revision


@dataclass(frozen=True, slots=True)
class StoredRouter:
    """A router at one of its revisions."""

    id: UUID
    name: str
    revision: int
    definition: dict[str, Any]
    """JSON of a `routing.tasks.Router`."""
    created_at: datetime
    updated_at: datetime
    """When this revision was made."""
    author: str | None
    note: str | None
    deleted: bool


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened since a change."""

    last: int
    """Number of the last change."""
    whole: bool
    """Whether these are all live routers, and what was known before is void."""
    routers: Sequence[StoredRouter]
    """At their current revisions, deleted ones too unless `whole`."""


class RouterStore:
    """Raises DatabaseDown from each of its calls where the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def answers(self) -> bool:
        """Whether the database did when last asked."""
        return self._database.ready

    async def create(self, router: Router, author: str | None) -> StoredRouter:
        """Store a new router; raises NameTaken.

        Numbers go on where a deleted router of that name had ended, so that `name@3` never comes
        to mean something else.
        """
        async with self._database.begin() as connection:
            change = await next_change(connection, SUBJECT)
            named = select(routers.c.revision, routers.c.deleted_at)
            earlier = await connection.execute(named.where(routers.c.name == router.name))
            last = 0
            for revision, deleted_at in earlier:
                if deleted_at is None:
                    raise NameTaken(router.name)
                last = max(last, revision)
            id, now, number = uuid4(), datetime.now(UTC), last + 1
            values = {"id": id, "name": router.name, "revision": number, "change": change}
            await connection.execute(
                insert(routers).values(**values, created_at=now, updated_at=now)
            )
            return await self._add_revision(connection, id, number, router, author, None, now)

    async def replace(
        self,
        id: UUID,
        router: Router,
        seen: frozenset[int] | None,
        author: str | None,
        note: str | None = None,
    ) -> StoredRouter:
        """Make `router` the next revision, if the current one is among those `seen`, or is any
        where that is None. What is current already makes none. Raises NotStored and Changed."""
        async with self._database.begin() as connection:
            # Until the commit nobody else changes a router, so what is read here stays true.
            change = await next_change(connection, SUBJECT)
            current = await _current(connection, id, seen)
            if current.definition == _dumped(router):
                return current
            now, number = datetime.now(UTC), current.revision + 1
            await connection.execute(
                update(routers)
                .where(routers.c.id == id)
                .values(revision=number, change=change, updated_at=now)
            )
            return await self._add_revision(connection, id, number, router, author, note, now)

    async def delete(self, id: UUID, seen: frozenset[int] | None) -> StoredRouter:
        """Delete a router; its name is free, its revisions stay. Raises as `replace`."""
        async with self._database.begin() as connection:
            change = await next_change(connection, SUBJECT)
            current = await _current(connection, id, seen)
            await connection.execute(
                update(routers)
                .where(routers.c.id == id)
                .values(change=change, deleted_at=datetime.now(UTC))
            )
            return current

    async def get(self, id: UUID) -> StoredRouter:
        """A router at its current revision; raises NotStored."""
        async with self._database.read() as connection:
            return await _current(connection, id, None)

    async def page(self, offset: int, limit: int) -> tuple[list[StoredRouter], int]:
        """Live routers by name, and how many there are."""
        live = routers.c.deleted_at.is_(None)
        async with self._database.read() as connection:
            count = select(func.count()).select_from(routers).where(live)
            total = (await connection.execute(count)).scalar_one()
            query = _at_current().where(live).order_by(routers.c.name)
            return await _rows(connection, query.offset(offset).limit(limit)), total

    async def revision(self, id: UUID, number: int) -> StoredRouter:
        """A live router at one of its revisions; raises NotStored."""
        async with self._database.read() as connection:
            query = _at_any().where(routers.c.id == id, routers.c.deleted_at.is_(None))
            found = await _rows(connection, query.where(revisions.c.number == number))
        if not found:
            raise NotStored(f"{id} has no revision {number}")
        return found[0]

    async def revisions(self, id: UUID, offset: int, limit: int) -> tuple[list[StoredRouter], int]:
        """A live router at its revisions, newest first, and how many it has; raises NotStored."""
        async with self._database.read() as connection:
            await _current(connection, id, None)
            count = select(func.count()).select_from(revisions).where(revisions.c.router_id == id)
            total = (await connection.execute(count)).scalar_one()
            query = _at_any().where(routers.c.id == id).order_by(revisions.c.number.desc())
            return await _rows(connection, query.offset(offset).limit(limit)), total

    async def changes(self, since: int) -> Changes:
        """What was changed after change number `since`; everything live where that is 0, or where
        the database knows of fewer changes, as after a backup was restored."""
        async with self._database.read() as connection:
            last = await last_change(connection, SUBJECT)
            if last == since:
                return Changes(last, since == 0, [])
            whole = since == 0 or last < since
            query = _at_current()
            if whole:
                query = query.where(routers.c.deleted_at.is_(None))
            else:
                query = query.where(routers.c.change > since)
            return Changes(last, whole, await _rows(connection, query.order_by(routers.c.name)))

    @staticmethod
    async def _add_revision(
        connection: AsyncConnection,
        id: UUID,
        number: int,
        router: Router,
        author: str | None,
        note: str | None,
        now: datetime,
    ) -> StoredRouter:
        await connection.execute(
            insert(revisions).values(
                router_id=id,
                number=number,
                definition=_dumped(router),
                created_at=now,
                author=author,
                note=note,
            )
        )
        return await _current(connection, id, None)


_COLUMNS = (
    routers.c.id,
    routers.c.name,
    routers.c.created_at,
    routers.c.deleted_at,
    revisions.c.number.label("revision"),
    revisions.c.definition,
    revisions.c.created_at.label("updated_at"),
    revisions.c.author,
    revisions.c.note,
)


def _dumped(router: Router) -> dict[str, Any]:
    return router.model_dump(mode="json", exclude_none=True)


def _at_any() -> Select[Any]:
    return select(*_COLUMNS).join_from(routers, revisions)


def _at_current() -> Select[Any]:
    return _at_any().where(revisions.c.number == routers.c.revision)


async def _rows(connection: AsyncConnection, query: Select[Any]) -> list[StoredRouter]:
    return [_stored(row) for row in (await connection.execute(query)).mappings()]


def _stored(row: RowMapping) -> StoredRouter:
    values = dict(row)
    deleted = values.pop("deleted_at") is not None
    return StoredRouter(**values, deleted=deleted)


async def _current(
    connection: AsyncConnection, id: UUID, seen: frozenset[int] | None
) -> StoredRouter:
    query = _at_current().where(routers.c.id == id, routers.c.deleted_at.is_(None))
    found = await _rows(connection, query)
    if not found:
        raise NotStored(str(id))
    if seen is not None and found[0].revision not in seen:
        raise Changed(found[0].revision)
    return found[0]
