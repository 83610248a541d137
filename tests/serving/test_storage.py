"""A database that goes away, hangs, and comes back: nobody waits without end."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from scripts.postgres_server import Postgres
from serving.config import load_config
from serving.config_storage import StorageConfig
from serving.errors import ConfigError
from serving.storage.database import Database, DatabaseDown, open_database
from serving.storage.tables.changes import last_change, next_change

LIMIT_S = 1.0
HANGS_S = 20
"""Far more than a hanging database may cost, and no measure of speed."""


@asynccontextmanager
async def opened(url: str, *, wait: bool = True, **update: object) -> AsyncIterator[Database]:
    """A started database, closed at the end; a busy machine may take its time to migrate it."""
    config = StorageConfig.model_validate({"url": url, "timeout_s": LIMIT_S, **update})
    database = open_database(config, {})
    assert database is not None
    await database.start()
    if wait:
        await asyncio.wait_for(database.migrated(), HANGS_S)
    try:
        yield database
    finally:
        await asyncio.wait_for(database.close(), HANGS_S)


async def until_up(database: Database) -> None:
    async with asyncio.timeout(HANGS_S):
        while not await database.ping():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def write(db: Database, then: Callable[[], None], *, statement: bool = True) -> None:
    """A transaction in the midst of which something happens."""
    async with db.begin() as connection:
        await next_change(connection, "routers")
        then()
        if statement:
            await connection.execute(text("SELECT 1"))


def fail() -> None:
    raise ZeroDivisionError


async def refused(db: Database, statement: str) -> None:
    async with db.begin() as connection:
        await connection.execute(text(statement))


async def test_what_was_written_is_read_and_what_failed_is_not(database: str):
    async with opened(database) as db:
        assert db.ready
        async with db.begin() as connection:
            assert await next_change(connection, "routers") == 1
        with pytest.raises(ZeroDivisionError):
            await write(db, fail)
        async with db.read() as connection:
            assert await last_change(connection, "routers") == 1
        # A refusal is an answer.
        for statement, error in (
            ("INSERT INTO change_counters VALUES ('routers', 1)", IntegrityError),
            ("SELECT nonsense FROM change_counters", DBAPIError),
        ):
            with pytest.raises(error) as caught:
                await refused(db, statement)
            assert not isinstance(caught.value, DatabaseDown)
        assert db.ready


async def test_writers_take_turns(database: str):
    async with opened(database, timeout_s=30) as one, opened(database, timeout_s=30) as other:

        async def take(db: Database) -> int:
            async with db.begin() as connection:
                number = await next_change(connection, "routers")
                await asyncio.sleep(0)
                return number

        numbers = await asyncio.gather(*(take(db) for db in (one, other) for _ in range(10)))
        assert sorted(numbers) == list(range(1, 21))


@pytest.mark.parametrize("moment", ["idle", "in a transaction", "at the commit"])
async def test_postgresql_that_hangs_is_given_up_and_comes_back(postgres: Postgres, moment: str):
    async with opened(await postgres.new_database()) as db:
        await until_up(db)
        try:
            async with asyncio.timeout(HANGS_S):
                if moment == "idle":
                    postgres.stall()
                    assert not await db.ping()
                else:
                    within = moment == "in a transaction"
                    with pytest.raises(DatabaseDown):
                        await write(db, postgres.stall, statement=within)
                assert not db.ready
                # All of the pool, and those who wait for it.
                assert not any(await asyncio.gather(*(db.ping() for _ in range(12))))
        finally:
            postgres.resume()
        await until_up(db)
        assert db.ready


async def test_a_caller_that_leaves_a_hanging_database_leaves(postgres: Postgres):
    async with opened(await postgres.new_database(), timeout_s=30, connections=1) as db:
        assert await db.ping()
        try:
            postgres.stall()
            waiting = asyncio.create_task(db.ping())
            await asyncio.sleep(0.1)
            waiting.cancel()
            async with asyncio.timeout(HANGS_S):
                await asyncio.gather(waiting, return_exceptions=True)
            assert waiting.cancelled()
        finally:
            postgres.resume()
        await until_up(db)


async def test_a_server_stops_though_its_database_hangs(postgres: Postgres):
    try:
        async with opened(await postgres.new_database()) as db:
            await asyncio.gather(*(db.ping() for _ in range(5)))
            postgres.stall()
    finally:
        postgres.resume()


async def test_postgresql_that_dies_and_returns(postgres: Postgres):
    async with opened(await postgres.new_database()) as db:
        try:
            async with asyncio.timeout(HANGS_S):
                with pytest.raises(DatabaseDown):
                    await write(db, postgres.kill)
                assert not await db.ping()
        finally:
            if not postgres.running:
                postgres.start()
        await until_up(db)
        async with db.read() as connection:
            assert await last_change(connection, "routers") == 0


@pytest.mark.parametrize("state", ["dead", "hanging"])
async def test_the_server_starts_without_and_migrates_later(postgres: Postgres, state: str):
    url = await postgres.new_database()
    config = StorageConfig(url=url, timeout_s=LIMIT_S)
    db = open_database(config, {})
    assert db is not None
    try:
        postgres.kill() if state == "dead" else postgres.stall()
        async with asyncio.timeout(HANGS_S):
            await db.start()
        assert not db.ready
        with pytest.raises(DatabaseDown):
            await refused(db, "SELECT 1")
    finally:
        postgres.start() if state == "dead" else postgres.resume()
    async with asyncio.timeout(HANGS_S):
        await db.migrated()
    assert db.ready
    await db.close()


async def test_a_password_that_is_wrong_is_no_crash_and_not_told(
    postgres: Postgres, capsys: pytest.CaptureFixture[str]
):
    url = (await postgres.new_database()).replace("owner@", "nobody:hunter2@")
    async with opened(url, wait=False) as db:
        assert not db.ready
    told = "".join(capsys.readouterr())
    assert "database_down" in told
    assert "28000" in told  # no such role
    assert "hunter2" not in told


async def test_postgresql_takes_what_libpq_takes(postgres: Postgres):
    url = await postgres.new_database()
    for given in (f"{url}?sslmode=prefer&application_name=gate", url.replace("sql:", "s:", 1)):
        async with opened(given) as db:
            assert await db.ping()
            async with db.read() as connection:
                found = (await connection.execute(text("SHOW application_name"))).scalar_one()
            assert found == "gate" or "gate" not in given


async def test_a_locked_file_is_a_database_that_is_down(tmp_path: Path):
    async with opened(f"sqlite:///{tmp_path}/a.db") as db:
        other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseDown):
            await refused(db, "SELECT 1")
        async with db.read() as connection:  # a writer is in nobody's way
            assert await last_change(connection, "routers") == 0
        other.execute("ROLLBACK")
        other.close()
        assert await db.ping()


async def test_a_folder_that_cannot_be_made_is_a_database_that_is_down(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    async with opened(f"sqlite:///{tmp_path}/file/a.db", wait=False) as db:
        assert not db.ready
        assert not await db.ping()


def test_a_file_is_relative_to_the_configuration(tmp_path: Path):
    path = tmp_path / "serve.yaml"
    path.write_text("storage: {url: 'sqlite:///state/kept.db'}")
    storage = load_config(path).storage
    assert storage is not None
    database = open_database(storage, {})
    assert database is not None
    assert database.url.database == str(tmp_path / "state" / "kept.db")
    # Nothing is made before the server starts.
    assert not (tmp_path / "state").exists()
    replaced = open_database(storage, {"POINTSMAN_DATABASE_URL": "postgresql://u:p@h/d"})
    assert replaced is not None
    assert replaced.kind == "postgresql"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("no url with s3cret", "must be a URL"),
        ("mysql://u:s3cret@h/d", "not 'mysql'"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_and_not_told(url: str, reason: str):
    with pytest.raises(ConfigError, match=f"^storage.url: .*{reason}") as caught:
        open_database(StorageConfig(), {"POINTSMAN_DATABASE_URL": url})
    assert "s3cret" not in str(caught.value)
