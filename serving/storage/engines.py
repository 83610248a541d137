"""SQLAlchemy engines: what each kind of database needs so that nothing waits without end."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import Connection, NullPool, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from serving.config_storage import StorageConfig
from serving.errors import ConfigError

DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}
PostgresError: type[Exception] = asyncpg.PostgresError
READ_ONLY = "pointsman_read_only"
"""Execution option of a transaction that changes nothing."""


def database_url(config: StorageConfig, environ: Mapping[str, str]) -> URL:
    """The URL with the async driver of its database; raises ConfigError, never repeating the URL,
    which may hold a password."""
    value = environ.get(config.url_env, "").strip() or config.url
    try:
        url = make_url(value)
    except ArgumentError:
        raise ConfigError(
            "storage.url: must be a URL such as sqlite:///file or postgresql://host/database"
        ) from None
    kind = url.get_backend_name()
    if kind == "postgres":
        kind = "postgresql"
    if kind not in DRIVERS:
        raise ConfigError(f"storage.url: must be sqlite or postgresql, not {kind!r}")
    if kind == "sqlite" and url.database in (None, "", ":memory:"):
        raise ConfigError("storage.url: SQLite needs a file, as in sqlite:///file")
    return url.set(drivername=DRIVERS[kind])


def serving_engine(url: URL, config: StorageConfig) -> AsyncEngine:
    """The engine of requests: a pool of connections, every wait bounded by `timeout_s`."""
    limit = config.timeout_s
    if url.get_backend_name() == "sqlite":
        engine = create_async_engine(
            url, pool_timeout=limit, max_overflow=0, connect_args={"timeout": limit}
        )
        _set_up_sqlite(engine, foreign_keys=True)
        return engine
    engine = create_async_engine(
        url,
        async_creator=partial(asyncpg.connect, _dsn(url), timeout=limit, command_timeout=limit),
        pool_size=config.connections,
        max_overflow=0,
        pool_timeout=limit,
        pool_recycle=1800,
        pool_pre_ping=True,
    )
    idle_ms = round(4000 * limit)

    @event.listens_for(engine.sync_engine, "connect")
    def release_locks(connection: Any, _: Any) -> None:
        # Of a replica that vanished from the network in the midst of a transaction.
        cursor = connection.cursor()
        cursor.execute(f"SET idle_in_transaction_session_timeout = {idle_ms}")
        cursor.close()
        connection.commit()

    return engine


def migration_engine(url: URL, config: StorageConfig) -> AsyncEngine:
    """The engine of schema changes, which may take as long as they need once they have begun."""
    limit = config.timeout_s
    if url.get_backend_name() == "sqlite":
        engine = create_async_engine(url, poolclass=NullPool, connect_args={"timeout": limit})
        # Copying a table, SQLite's way to change one, would delete what refers to it.
        _set_up_sqlite(engine, foreign_keys=False)
        return engine
    return create_async_engine(
        url, poolclass=NullPool, async_creator=partial(asyncpg.connect, _dsn(url), timeout=limit)
    )


def make_folder(url: URL) -> None:
    """Make the folder of SQLite's file; raises OSError."""
    if url.get_backend_name() == "sqlite":
        assert url.database is not None
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)


def _dsn(url: URL) -> str:
    # asyncpg reads it as libpq does: sslmode, a socket's folder, several hosts, a password file.
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def _set_up_sqlite(engine: AsyncEngine, *, foreign_keys: bool) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def settings(connection: Any, _: Any) -> None:
        # The driver would begin transactions at the first change only, and end them before DDL.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")  # readers and the writer do not wait
        cursor.execute(f"PRAGMA foreign_keys = {int(foreign_keys)}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        # A reader that turns writer fails at once if another wrote meanwhile; a writer waits.
        reads = connection.get_execution_options().get(READ_ONLY)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
