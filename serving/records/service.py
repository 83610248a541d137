"""Records of a running server: taken in at the end of requests, written, deleted, found."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from serving.api.record import RequestRecord
from serving.config_records import RecordsConfig
from serving.records.query import Whole, whole
from serving.records.queue import RecordQueue
from serving.records.redaction import Redactor
from serving.records.retention import Retention
from serving.records.rows import rows
from serving.records.snapshot import Snapshot, snapshot
from serving.records.writer import FLUSH_S, Writer
from serving.storage.database import Database

log = structlog.get_logger("pointsman")


def open_records(config: RecordsConfig, database: Database | None) -> Records | None:
    """The records of a configuration; None where nothing is to be recorded."""
    return None if database is None or not config.enabled else Records(config, database)


class Records:
    """Nothing of it is on the request path but `ended`, which takes some microseconds."""

    def __init__(self, config: RecordsConfig, database: Database) -> None:
        text = config.text
        self._redactor = Redactor(text.max_characters, text.redact) if text.store else None
        self.queue = RecordQueue(config.queue)
        self.database = database
        self.writer = Writer(self.queue, database, self._redactor)
        self.retention = Retention(config, database)
        self._tasks: list[asyncio.Task[Any]] = []

    def ended(self, record: RequestRecord, path: str, seconds: float) -> None:
        """Take in a request at its end."""
        taken = snapshot(record, path, seconds, text=self._redactor is not None)
        if taken is not None:
            self.queue.put(taken)

    async def start(self) -> None:
        """Begin to write and to delete."""
        self._tasks = [
            asyncio.create_task(self.writer.run()),
            asyncio.create_task(self.retention.run()),
        ]

    async def close(self) -> None:
        """Write what waits, within a limit; what is left then is dropped and counted."""
        if not self._tasks:
            return
        writing, deleting = self._tasks
        deleting.cancel()
        self.writer.close()
        await asyncio.wait({writing}, timeout=FLUSH_S)
        writing.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        for error in results:
            if isinstance(error, Exception):
                log.error("records_failed", error=type(error).__name__)
        if lost := self.queue.drop_all("shutdown"):
            log.error("records_lost", records=lost)
        self._tasks = []

    async def find(self, wanted: str, tenant: str | None = None) -> Whole | None:
        """The decision of an id, or the newest of a trace id, both 32 hexadecimal digits.

        It may still wait to be written. Raises DatabaseDown where it does not, and the database
        cannot be asked.
        """
        waiting = self.queue.find(
            lambda each: (
                wanted in (each.id, each.trace_id)
                and (tenant is None or each.identity.tenant == tenant)
            )
        )
        if waiting is not None:
            return self._waiting(waiting)
        async with self.database.read() as connection:
            return await whole(connection, wanted, tenant)

    def _waiting(self, found: Snapshot) -> Whole:
        made = rows(found, self._redactor)
        return Whole(made.decision, made.attempts, made.text, None)
