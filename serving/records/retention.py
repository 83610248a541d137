"""Old rows go, a few at a time. Any replica may do it, and so may all at once."""

from __future__ import annotations

import asyncio
import random
import time

import structlog
from sqlalchemy import Table, delete, select
from sqlalchemy.exc import SQLAlchemyError

from serving.config_records import RecordsConfig
from serving.records.snapshot import first_id_at
from serving.storage.database import Database, DatabaseDown
from serving.storage.tables.records import decision_texts, decisions, feedback

EVERY_S = 600.0
AT_ONCE = 500
"""Rows in one transaction, so that writers never wait long."""
PAUSE_S = 0.05
DAY_S = 86_400

log = structlog.get_logger("pointsman")


class Retention:
    """Deletes what is older than the configuration allows."""

    def __init__(self, config: RecordsConfig, database: Database) -> None:
        self._database = database
        self._days: list[tuple[Table, float]] = [(decision_texts, config.text.retention_days)]
        if config.retention_days is not None:
            # Attempts and texts go with their decisions.
            self._days += [(table, config.retention_days) for table in (decisions, feedback)]

    async def run(self) -> None:
        """Delete now and then, until cancelled."""
        await self._database.migrated()
        while True:
            try:
                await self.delete_old()
            except (DatabaseDown, SQLAlchemyError) as error:
                log.warning("records_not_deleted", error=type(error).__name__)
            # Not at the same moment in every replica.
            await asyncio.sleep(EVERY_S * random.uniform(0.5, 1.5))

    async def delete_old(self) -> int:
        """Delete all that is too old now; how many rows."""
        deleted = 0
        for table, days in self._days:
            before = first_id_at(time.time() - days * DAY_S)
            while (count := await self._some(table, before)) > 0:
                deleted += count
                await asyncio.sleep(PAUSE_S)
        return deleted

    async def _some(self, table: Table, before: str) -> int:
        (key,) = table.primary_key.columns
        old = select(key).where(key < before).order_by(key).limit(AT_ONCE)
        async with self._database.begin() as connection:
            result = await connection.execute(delete(table).where(key.in_(old)))
        return result.rowcount
