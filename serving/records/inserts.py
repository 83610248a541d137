"""Many rows at once, at the least cost to this process.

SQLAlchemy's own way of binding each value costs several times as much as all else that a record
does. PostgreSQL is sent one JSON text, which it takes apart itself; to SQLite, which runs in this
process, binding bare values is a fifth of the work of that. Rows that are there already stay as
they are: a batch may be written twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

import orjson
from sqlalchemy import JSON, Boolean, Column, Float, Integer, Table, Uuid, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.elements import TextClause
from sqlalchemy.types import TypeEngine

from serving.storage.schema import UtcTime

Row = dict[str, Any]
"""Values by column name; times in seconds since 1970, JSON as objects."""
_CASTS: tuple[tuple[type[TypeEngine[Any]], str], ...] = (
    (Uuid, "(r.value->>'{}')::uuid"),
    (UtcTime, "to_timestamp((r.value->>'{}')::double precision)"),
    (JSON, "r.value->'{}'"),
    (Boolean, "(r.value->>'{}')::boolean"),
    (Integer, "(r.value->>'{}')::integer"),
    (Float, "(r.value->>'{}')::double precision"),
)
_NUL = b"\\u0000"
Convert = Callable[[Any], Any] | None


async def insert(connection: AsyncConnection, table: Table, given: Sequence[Row]) -> None:
    """Write rows of one table, those that are not there yet."""
    if connection.dialect.name == "postgresql":
        await connection.execute(_unpacking(table), {"rows": packed(given)})
    else:
        await connection.exec_driver_sql(_binding(table), bare(table, given))


@cache
def _unpacking(table: Table) -> TextClause:
    """The statement for `:rows`, a JSON array of objects by column name, of PostgreSQL."""
    names = ", ".join(column.name for column in table.columns)
    values = ", ".join(map(_value, table.columns))
    statement = (
        f"INSERT INTO {table.name} ({names}) SELECT {values} "
        "FROM jsonb_array_elements(CAST(CAST(:rows AS text) AS jsonb)) AS r(value) "
        "ON CONFLICT DO NOTHING"
    )
    return text(statement.replace("::", "\\:\\:"))


def _value(column: Column[Any]) -> str:
    how = next((how for kind, how in _CASTS if isinstance(column.type, kind)), "r.value->>'{}'")
    return how.format(column.name)


@cache
def _binding(table: Table) -> str:
    """The statement for rows of bare values, of SQLite."""
    names = ", ".join(column.name for column in table.columns)
    marks = ", ".join("?" for _ in table.columns)
    return f"INSERT INTO {table.name} ({names}) VALUES ({marks}) ON CONFLICT DO NOTHING"


@cache
def _conversions(table: Table) -> tuple[tuple[str, Convert], ...]:
    return tuple((column.name, _conversion(column)) for column in table.columns)


def _conversion(column: Column[Any]) -> Convert:
    if isinstance(column.type, UtcTime):
        return _moment
    return _json if isinstance(column.type, JSON) else None


def _moment(seconds: float) -> str:
    # As SQLAlchemy writes and reads it, to the millisecond.
    moment = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
    return f"{moment.isoformat(' ', 'milliseconds')}000"


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def packed(given: Sequence[Row]) -> str:
    """JSON of rows that PostgreSQL takes: no half surrogate pairs, no NUL."""
    try:
        made = orjson.dumps(given)
    except TypeError:
        made = orjson.dumps(_clean(given))
    if _NUL in made:
        made = orjson.dumps(_clean(given))
    return made.decode()


def bare(table: Table, given: Sequence[Row]) -> list[tuple[Any, ...]]:
    """Rows as tuples that SQLite takes, and as clean as PostgreSQL's."""
    try:
        made = _tuples(table, given)
        words = "".join(text for row in made for text in row if type(text) is str).encode()
    except (TypeError, UnicodeEncodeError):
        return _tuples(table, _clean(given))
    if b"\0" in words or _NUL in words:
        return _tuples(table, _clean(given))
    return made


def _tuples(table: Table, given: Sequence[Row]) -> list[tuple[Any, ...]]:
    columns = _conversions(table)
    return [
        tuple(
            value if convert is None or value is None else convert(value)
            for name, convert in columns
            for value in (row.get(name),)
        )
        for row in given
    ]


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
    if isinstance(value, dict):
        return {_clean(key): _clean(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(each) for each in value]
    return value
