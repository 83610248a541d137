"""One database: its pool of connections, and whether it answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from serving.config_storage import StorageConfig
from serving.errors import ConfigError
from serving.storage.migrate import upgrade

DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}
FIRST_RETRY_S, LAST_RETRY_S = 0.5, 15.0

log = structlog.get_logger("pointsman")


class DatabaseDown(RuntimeError):
    """The database does not answer; the message holds no address and no password."""


def database_url(config: StorageConfig, environ: Mapping[str, str]) -> URL:
    """The URL with the async driver of its database; raises ConfigError, never repeating the URL,
    which may hold a password."""
    value = environ.get(config.url_env, "").strip() or config.url
    try:
        url = make_url(value)
    except ArgumentError:
        raise ConfigError(
            "storage.url: must be a URL such as sqlite:///file or postgresql://host/db"
        ) from None
    kind = url.get_backend_name()
    if kind == "postgres":
        kind = "postgresql"
    if kind not in DRIVERS:
        raise ConfigError(f"storage.url: must be sqlite or postgresql, not {kind!r}")
    return url.set(drivername=DRIVERS[kind])


def open_database(config: StorageConfig | None, environ: Mapping[str, str]) -> Database | None:
    """The configured database, not yet connected; None where nothing is to be kept."""
    return None if config is None else Database(database_url(config, environ), config)


class Database:
    """Give it an URL of `database_url`. Nothing is connected before `start`."""

    def __init__(self, url: URL, config: StorageConfig) -> None:
        self.url = url
        self.kind = url.get_backend_name()
        self._engine = _engine(url, config)
        self._answers = False
        self._migrated = asyncio.Event()
        self._starting: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether it has been migrated, and answered when last asked."""
        return self._migrated.is_set() and self._answers

    async def start(self) -> None:
        """Bring the schema up to date; a database that does not answer is tried again in the
        background, and the server starts without it."""
        try:
            await self._migrate()
        except (OSError, TimeoutError, SQLAlchemyError) as error:
            log.error("database_down", error=type(error).__name__)
            self._starting = asyncio.create_task(self._keep_trying())

    async def migrated(self) -> None:
        """Return once the schema is up to date."""
        await self._migrated.wait()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """A transaction, committed at the end of the block.

        Raises DatabaseDown where the database cannot be reached, is locked for too long, or its
        schema is not ready; errors of constraints pass as SQLAlchemy's IntegrityError.
        """
        if not self._migrated.is_set():
            raise DatabaseDown("the database has not answered since the start")
        try:
            async with self._engine.begin() as connection:
                yield connection
        except (OSError, TimeoutError, SQLAlchemyError) as error:
            if _is_answer(error):
                raise
            self._down(error)
            raise DatabaseDown("the database does not answer") from None
        if not self._answers:
            log.info("database_up")
        self._answers = True

    async def ping(self) -> bool:
        """Whether it answers now."""
        try:
            async with self.begin() as connection:
                await connection.execute(text("SELECT 1"))
        except DatabaseDown:
            return False
        return True

    async def close(self) -> None:
        """Close all connections."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        await self._engine.dispose()

    async def _migrate(self) -> None:
        async with self._engine.begin() as connection:
            await connection.run_sync(upgrade)
        self._answers = True
        self._migrated.set()

    async def _keep_trying(self) -> None:
        wait = FIRST_RETRY_S
        while True:
            await asyncio.sleep(wait)
            wait = min(2 * wait, LAST_RETRY_S)
            try:
                await self._migrate()
            except (OSError, TimeoutError, SQLAlchemyError):
                continue
            log.info("database_up")
            return

    def _down(self, error: BaseException) -> None:
        if self._answers:
            log.error("database_down", error=type(error).__name__)
        self._answers = False


def _is_answer(error: BaseException) -> bool:
    """Whether the database is there and has refused: a constraint, a mistake of ours."""
    if isinstance(error, OperationalError | InterfaceError | PoolTimeout):
        return False
    if isinstance(error, DBAPIError):
        # asyncpg tells of a server that stops (57P01, 57P03) and of lost connections (08…).
        state = str(getattr(error.orig, "sqlstate", None) or "")
        return not (error.connection_invalidated or state.startswith(("08", "57P", "53")))
    return isinstance(error, SQLAlchemyError)


def _engine(url: URL, config: StorageConfig) -> AsyncEngine:
    if url.get_backend_name() == "sqlite":
        if url.database and url.database != ":memory:":
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_async_engine(url, connect_args={"timeout": config.timeout_s})
        event.listen(engine.sync_engine, "connect", _sqlite_settings)
        return engine
    return create_async_engine(
        url,
        pool_size=config.connections,
        max_overflow=0,
        pool_timeout=config.timeout_s,
        pool_recycle=1800,
        pool_pre_ping=True,
        connect_args={"timeout": config.timeout_s, "command_timeout": config.timeout_s},
    )


def _sqlite_settings(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    # Readers and the one writer do not wait for each other; a crash loses no committed row.
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
