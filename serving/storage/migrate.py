"""Alembic from code: the schema is brought up to date when the server starts."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK = 0x706F696E74  # "point": replicas that start at once upgrade one after the other


def alembic_config() -> Config:
    """Alembic's configuration, for the server and for tests."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    return config


def revisions() -> list[str]:
    """Every revision, first to last."""
    script = ScriptDirectory.from_config(alembic_config())
    return [each.revision for each in reversed(list(script.walk_revisions()))]


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Upgrade within the transaction of `connection`, alone among all replicas."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
