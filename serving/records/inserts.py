"""Many rows in one statement, sent as one JSON text that the database itself takes apart.

Binding each value would cost this process several times as much as all else that a record does.
Rows that are there already stay as they are: a batch may be written twice.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import JSON, Boolean, Column, Float, Integer, Table, Uuid, text
from sqlalchemy.sql.elements import TextClause
from sqlalchemy.types import TypeEngine

from serving.storage.schema import UtcTime

Kinds = tuple[tuple[type[TypeEngine[Any]], str], ...]
_POSTGRESQL: Kinds = (
    (Uuid, "(r.value->>'{}')::uuid"),
    (UtcTime, "to_timestamp((r.value->>'{}')::double precision)"),
    (JSON, "r.value->'{}'"),
    (Boolean, "(r.value->>'{}')::boolean"),
    (Integer, "(r.value->>'{}')::integer"),
    (Float, "(r.value->>'{}')::double precision"),
)
_SQLITE: Kinds = (
    (
        UtcTime,
        "strftime('%Y-%m-%d %H:%M:%f000', json_extract(r.value, '$.{}'), 'unixepoch')",
    ),
)


@cache
def insert_rows(table: Table, database: str) -> TextClause:
    """The statement for `:rows`, a JSON array of objects by column name; times are in seconds since
    1970. `database` is sqlite or postgresql."""
    names = ", ".join(column.name for column in table.columns)
    if database == "postgresql":
        source = "jsonb_array_elements(CAST(CAST(:rows AS text) AS jsonb)) AS r(value)"
        values = [_value(column, _POSTGRESQL, "r.value->>'{}'") for column in table.columns]
    else:
        source = "json_each(:rows) AS r"
        values = [
            _value(column, _SQLITE, "json_extract(r.value, '$.{}')") for column in table.columns
        ]
    # Without WHERE, SQLite would read ON as a join's.
    statement = (
        f"INSERT INTO {table.name} ({names}) SELECT {', '.join(values)} "
        f"FROM {source} WHERE true ON CONFLICT DO NOTHING"
    )
    return text(statement.replace("::", "\\:\\:").replace("%H:%M:%f", "%H\\:%M\\:%f"))


def _value(column: Column[Any], known: Kinds, other: str) -> str:
    for kind, how in known:
        if isinstance(column.type, kind):
            return how.format(column.name)
    return other.format(column.name)
