"""Alembic from code: the schema is brought up to date when the server starts."""

from __future__ import annotations

from pathlib import Path

import structlog
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK = 0x706F696E74  # "point": replicas that start at once upgrade one after the other

log = structlog.get_logger("pointsman")


def alembic_config() -> Config:
    """Alembic's configuration, for the server and for tests."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def revisions() -> list[str]:
    """Every revision, first to last."""
    script = ScriptDirectory.from_config(alembic_config())
    return [each.revision for each in reversed(list(script.walk_revisions()))]


def is_current(connection: Connection) -> bool:
    """Whether nothing is to be upgraded.

    A newer server's schema is current too: while replicas are replaced one by one, old ones go on.
    """
    found = set(MigrationContext.configure(connection).get_current_heads())
    known = revisions()
    if found - set(known):
        log.warning("database_schema_is_newer", revision=sorted(found), known=known[-1])
        return True
    return found == {known[-1]}


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Upgrade within the transaction of `connection`, alone among all replicas."""
    _run(connection, command.upgrade, revision)
    if connection.dialect.name == "sqlite":
        broken = connection.execute(text("PRAGMA foreign_key_check")).first()
        if broken is not None:
            raise RuntimeError(f"the upgrade left rows of {broken[0]!r} that refer to nothing")


def downgrade(connection: Connection, revision: str) -> None:
    """The way back, for who must run an older server on the same database."""
    _run(connection, command.downgrade, revision)


def _run(connection: Connection, what: object, revision: str) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
    config = alembic_config()
    config.attributes["connection"] = connection
    what(config, revision)  # type: ignore[operator]
