"""The one MetaData that all stored tables belong to, and the types they share.

A table is defined in a module of `serving.storage.tables`, and made by a migration.
"""

from __future__ import annotations

import pkgutil
from datetime import UTC, datetime
from importlib import import_module

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Integer, MetaData, TypeDecorator
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(
    # Constraints have names, or alembic could not change them on SQLite.
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Json = JSON().with_variant(JSONB(), "postgresql")
"""JSON to search in. PostgreSQL's keeps no order of keys, and takes no NUL character."""
BigId = BigInteger().with_variant(Integer(), "sqlite")
"""A key that counts up; SQLite counts INTEGER keys alone."""


class UtcTime(TypeDecorator[datetime]):
    """A moment with its time zone; SQLite keeps none, so all are stored in UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None or value.tzinfo is not None:
            return value
        return value.replace(tzinfo=UTC)


def load_tables() -> MetaData:
    """The metadata with every table of `serving.storage.tables`."""
    from serving.storage import tables

    for module in pkgutil.iter_modules(tables.__path__):
        import_module(f"{tables.__name__}.{module.name}")
    return metadata
