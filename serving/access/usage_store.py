"""What keys spent, in the database. Every call may raise DatabaseDown."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict, fields

from sqlalchemy import RowMapping, func, select
from sqlalchemy.dialects import postgresql, sqlite

from serving.access.ledger import Unsaved, Usage
from serving.storage.database import Database
from serving.storage.tables.access import key_usage

_SUMS = [func.sum(key_usage.c[field.name]).label(field.name) for field in fields(Usage)]
_PLAIN = {"int": int, "float": float}
_BATCH = 500
"""Rows of one statement: PostgreSQL takes 32,767 values at most."""


class UsageStore:
    """Writes this process's totals under a name of its own, and adds up those of the others."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._writer = uuid.uuid4().hex
        dialect = sqlite if database.kind == "sqlite" else postgresql
        statement = dialect.insert(key_usage)
        self._upsert = statement.on_conflict_do_update(
            index_elements=[key_usage.c.key_id, key_usage.c.month, key_usage.c.writer],
            set_={field.name: statement.excluded[field.name] for field in fields(Usage)},
        )

    async def write(self, rows: Sequence[Unsaved]) -> None:
        """Put totals in the place of those written before."""
        if not rows:
            return
        values = [
            {"key_id": row.key, "month": row.month, "writer": self._writer, **asdict(row.usage)}
            for row in rows
        ]
        async with self._database.begin() as connection:
            await connection.execute(self._upsert, values)

    async def elsewhere(self, month: str, keys: Sequence[str]) -> dict[str, Usage]:
        """What other processes wrote of a month, by key; nothing for a key that only this one
        knows."""
        found: dict[str, Usage] = {}
        async with self._database.read() as connection:
            for start in range(0, len(keys), _BATCH):
                query = (
                    select(key_usage.c.key_id, *_SUMS)
                    .where(
                        key_usage.c.month == month,
                        key_usage.c.writer != self._writer,
                        key_usage.c.key_id.in_(keys[start : start + _BATCH]),
                    )
                    .group_by(key_usage.c.key_id)
                )
                for row in (await connection.execute(query)).mappings():
                    found[row["key_id"]] = _usage(row)
        return found


def _usage(row: RowMapping) -> Usage:
    # PostgreSQL adds whole numbers up to a decimal.
    return Usage(
        **{field.name: _PLAIN[str(field.type)](row[field.name]) for field in fields(Usage)}
    )
