"""How replicas notice that keys have changed: a number that grows with every change."""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from serving.access.tables import access_version
from serving.storage.database import Database


async def mark_changed(connection: AsyncConnection) -> None:
    """Within the transaction of the change."""
    await connection.execute(update(access_version).values(version=access_version.c.version + 1))


async def version(database: Database) -> int:
    """The number as it is; raises DatabaseDown."""
    async with database.begin() as connection:
        return int((await connection.execute(select(access_version.c.version))).scalar_one())
