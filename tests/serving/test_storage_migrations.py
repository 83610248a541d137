"""The schema grows revision by revision, on both databases, and loses no row."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, MetaData, Table, insert, inspect, select, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.types import DateTime, Uuid
from stored_rows import ROWS

from serving.config_storage import StorageConfig
from serving.storage.database import Database, open_database
from serving.storage.engines import database_url, migration_engine
from serving.storage.migrate import downgrade, is_current, revisions, upgrade
from serving.storage.schema import load_tables


def test_every_revision_is_tried_with_data():
    assert list(ROWS) == revisions()


async def test_step_by_step_with_data_inside(database: str):
    config = StorageConfig(url=database)
    engine = migration_engine(database_url(config, {}), config)
    for revision in revisions():
        async with engine.begin() as connection:
            await connection.run_sync(upgrade, revision)
        async with engine.begin() as connection:
            await connection.run_sync(fill, revision)
    async with engine.connect() as connection:
        await connection.run_sync(check_all)
        assert await connection.run_sync(differences) == []
        assert await connection.run_sync(is_current)
    # All the way back leaves nothing that would be in the way of coming again.
    async with engine.begin() as connection:
        await connection.run_sync(downgrade, "base")
    async with engine.begin() as connection:
        await connection.run_sync(upgrade)
        assert await connection.run_sync(differences) == []
    await engine.dispose()


def differences(connection: Connection) -> list[Any]:
    """What alembic would still have to change."""
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return list(compare_metadata(context, load_tables()))


def reflected(connection: Connection, name: str) -> Table:
    return Table(name, MetaData(), autoload_with=connection)


def fill(connection: Connection, revision: str) -> None:
    for name, rows in ROWS[revision].items():
        table = reflected(connection, name)
        given = [{c: stored(table, c, value) for c, value in row.items()} for row in rows]
        connection.execute(insert(table), given)


def check_all(connection: Connection) -> None:
    for tables in ROWS.values():
        for name, rows in tables.items():
            table = reflected(connection, name)
            found = [dict(row) for row in connection.execute(select(table)).mappings()]
            for row in rows:
                expected = {c: stored(table, c, v) for c, v in row.items() if c in table.c}
                kept = [{c: each[c] for c in expected} for each in found]
                assert expected in kept, name


def stored(table: Table, column: str, value: Any) -> Any:
    """A value as the reflected column takes it and gives it back."""
    kind = table.c[column].type
    if value is None:
        return None
    if isinstance(kind, Uuid):
        return UUID(value)
    if isinstance(kind, DateTime):
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=UTC) if kind.timezone else moment
    return value


async def upgrade_and_fail(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(upgrade)
        raise ZeroDivisionError


async def test_an_upgrade_that_fails_leaves_nothing(database: str):
    config = StorageConfig(url=database)
    engine = migration_engine(database_url(config, {}), config)
    with pytest.raises(ZeroDivisionError):
        await upgrade_and_fail(engine)
    async with engine.begin() as connection:
        assert await connection.run_sync(lambda c: inspect(c).get_table_names()) == []
        assert not await connection.run_sync(is_current)
        await connection.run_sync(upgrade)
    await engine.dispose()


async def test_a_newer_schema_is_left_alone(database: str):
    first = open_database(StorageConfig(url=database), {})
    assert first is not None
    await first.start()
    async with first.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    await first.close()
    second = Database(first.url, StorageConfig(url=database))
    await second.start()
    assert second.ready
    async with second.read() as connection:
        found = await connection.execute(text("SELECT version_num FROM alembic_version"))
        assert found.scalar_one() == "9999"
    await second.close()


async def test_replicas_that_start_at_once_migrate_once(database: str):
    config = StorageConfig(url=database, timeout_s=30)
    replicas = [Database(database_url(config, {}), config) for _ in range(4)]
    await asyncio.gather(*(replica.start() for replica in replicas))
    assert all(replica.ready for replica in replicas)
    async with replicas[0].read() as connection:
        version = await connection.execute(text("SELECT version_num FROM alembic_version"))
        assert version.scalars().all() == [revisions()[-1]]
    await asyncio.gather(*(replica.close() for replica in replicas))
