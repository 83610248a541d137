"""Counters of changes, by which replicas learn cheaply that another has written."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, String, Table, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from serving.storage.schema import metadata

counters = Table(
    "change_counters",
    metadata,
    Column("subject", String(64), primary_key=True),
    Column("value", BigInteger, nullable=False),
)


async def next_change(connection: AsyncConnection, subject: str) -> int:
    """The number of a change of `subject`, whose migration made its counter.

    Writers of a subject take turns from here to their commit, so that whoever has seen a number
    has seen all below it. Call it first: on no database can waiting for it then be a deadlock.
    """
    bump = (
        update(counters)
        .where(counters.c.subject == subject)
        .values(value=counters.c.value + 1)
        .returning(counters.c.value)
    )
    return int((await connection.execute(bump)).scalar_one())


async def last_change(connection: AsyncConnection, subject: str) -> int:
    """The number of the last change that was committed; 0 before the first."""
    found = select(counters.c.value).where(counters.c.subject == subject)
    return int((await connection.execute(found)).scalar_one())
