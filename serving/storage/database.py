"""One database: its pool of connections, and whether it answers."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress

import structlog
from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from serving.config_storage import StorageConfig
from serving.storage.engines import (
    READ_ONLY,
    PostgresError,
    database_url,
    make_folder,
    migration_engine,
    serving_engine,
)

FIRST_RETRY_S, LAST_RETRY_S = 0.5, 15.0
_LOST = (OSError, TimeoutError, SQLAlchemyError, PostgresError)
"""What connections and statements raise; asyncpg's own where SQLAlchemy does not wrap them."""
_STATES = ("08", "57P", "53")
"""PostgreSQL's codes of lost connections, of a server that stops or starts, of one that is full."""

log = structlog.get_logger("pointsman")


class DatabaseDown(RuntimeError):
    """The database does not answer; the message holds no address and no password."""


def open_database(config: StorageConfig | None, environ: Mapping[str, str]) -> Database | None:
    """The configured database, not yet connected; None where nothing is to be kept."""
    return None if config is None else Database(database_url(config, environ), config)


class Database:
    """Give it a URL of `database_url`. Nothing is connected before `start`."""

    def __init__(self, url: URL, config: StorageConfig) -> None:
        self.url = url
        self.kind = url.get_backend_name()
        self._config = config
        self._writing = serving_engine(url, config)
        self._reading = self._writing.execution_options(**{READ_ONLY: True})
        self._answers = False
        self._tried, self._migrated = asyncio.Event(), asyncio.Event()
        self._starting: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether it has been migrated, and answered when last asked."""
        return self._migrated.is_set() and self._answers

    async def start(self) -> None:
        """Bring the schema up to date; a database that does not answer, or takes its time, is
        waited for in the background, and the server starts without it."""
        self._starting = asyncio.create_task(self._keep_trying())
        tried = asyncio.create_task(self._tried.wait())
        await asyncio.wait(
            {self._starting, tried},
            timeout=self._config.timeout_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        tried.cancel()
        if self._starting.done():
            self._starting.result()

    async def migrated(self) -> None:
        """Return once the schema is up to date."""
        await self._migrated.wait()

    def begin(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction that may write, committed at the end of the block.

        Raises DatabaseDown where the database cannot be reached, is locked for too long, or its
        schema is not ready; errors of constraints pass as SQLAlchemy's IntegrityError. A database
        that hangs is given up after about twice `timeout_s`.
        """
        return self._transaction(self._writing)

    def read(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction that only reads; on SQLite it waits for no writer. Raises as `begin`."""
        return self._transaction(self._reading)

    async def ping(self) -> bool:
        """Whether it answers now."""
        try:
            async with self.read() as connection:
                await connection.execute(text("SELECT 1"))
        except DatabaseDown:
            return False
        return True

    async def close(self) -> None:
        """Close all connections; those of a database that hangs are dropped."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._writing.dispose(), self._config.timeout_s)

    @asynccontextmanager
    async def _transaction(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        if not self._migrated.is_set():
            raise DatabaseDown("the database has not answered since the start")
        try:
            connection = await engine.connect()
        except _LOST as error:
            raise self._down(error) from None
        try:
            async with aclosing(connection), connection.begin():
                yield connection
        except _LOST as error:
            if _is_answer(error):
                raise
            raise self._down(error) from None
        self._up()

    async def _keep_trying(self) -> None:
        wait = FIRST_RETRY_S
        while True:
            try:
                await self._migrate()
            except _LOST as error:
                if not self._tried.is_set():
                    log.error("database_down", **_told(error))
                self._tried.set()
            else:
                self._migrated.set()
                self._up()
                return
            await asyncio.sleep(wait)
            wait = min(2 * wait, LAST_RETRY_S)

    async def _migrate(self) -> None:
        # Alembic is needed here alone.
        from serving.storage.migrate import is_current, upgrade

        make_folder(self.url)
        async with self._reading.connect() as connection:
            if await connection.run_sync(is_current):
                return
        engine = migration_engine(self.url, self._config)
        try:
            async with engine.begin() as connection:
                await connection.run_sync(upgrade)
        finally:
            await engine.dispose()
        log.info("database_migrated")

    def _up(self) -> None:
        if not self._answers:
            log.info("database_up", kind=self.kind)
        self._answers = True

    def _down(self, error: BaseException) -> DatabaseDown:
        if self._answers:
            log.error("database_down", **_told(error))
        self._answers = False
        return DatabaseDown("the database does not answer")


def _is_answer(error: BaseException) -> bool:
    """Whether the database is there and has refused: a constraint, a mistake of ours."""
    if isinstance(error, InterfaceError | PoolTimeout):
        return False
    if isinstance(error, DBAPIError):
        code = getattr(error.orig, "sqlite_errorcode", None)
        if isinstance(error, OperationalError) and code != sqlite3.SQLITE_ERROR:
            return False  # SQLite calls a wrong statement so, too
        return not (error.connection_invalidated or _state(error).startswith(_STATES))
    return isinstance(error, SQLAlchemyError)


def _state(error: BaseException) -> str:
    return str(getattr(getattr(error, "orig", error), "sqlstate", None) or "")


def _told(error: BaseException) -> dict[str, str]:
    """What may be logged of an error: its type and code; a message may hold an address."""
    cause = getattr(getattr(error, "orig", None), "__cause__", None) or error
    state = _state(error)
    return {"error": type(cause).__name__, **({"sqlstate": state} if state else {})}
