"""Writes what waits, a batch in one transaction, and tries again for as long as it takes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress

import structlog
from sqlalchemy.exc import DataError, IntegrityError, ProgrammingError, SQLAlchemyError

from serving.decider import where_raised
from serving.records.inserts import insert
from serving.records.queue import RecordQueue
from serving.records.redaction import Redactor
from serving.records.rows import Rows, rows
from serving.records.snapshot import Snapshot
from serving.storage.database import Database, DatabaseDown
from serving.storage.tables.records import attempts, decision_texts, decisions

INTERVAL_S = 0.5
"""Records wait about so long."""
BATCH = 500
CHUNK = 25
"""Records made into rows at once: under a millisecond in which no request goes on."""
FIRST_WAIT_S, LAST_WAIT_S = 0.5, 10.0
FLUSH_S = 5.0
"""At the end, what waits has so long to be written."""
REFUSALS = ("22", "23", "42")
"""PostgreSQL's codes of a row or table that is wrong; its driver has no class for each."""
UNWRITABLE = (OverflowError, TypeError)
"""What SQLite's driver, and orjson, say to a number that they cannot write."""

log = structlog.get_logger("pointsman")


class Writer:
    """The one that takes from a queue."""

    def __init__(
        self, queue: RecordQueue, database: Database, redactor: Redactor | None = None
    ) -> None:
        self.written = 0
        """Records."""
        self.failed = 0
        """Batches that the database did not take, each time."""
        self._queue = queue
        self._database = database
        self._redactor = redactor
        self._closing = asyncio.Event()
        self._one = asyncio.Lock()

    async def run(self) -> None:
        """Write until `close`, then what is left; returns when that is done."""
        wait = FIRST_WAIT_S
        while True:
            try:
                await self.write_all()
            except DatabaseDown:
                await self._pause(wait * random.uniform(0.5, 1))
                wait = min(2 * wait, LAST_WAIT_S)
                continue
            except Exception as error:
                # A fault of ours must not end the writing for ever.
                log.error("records_failed", error=where_raised(error))
                await self._pause(LAST_WAIT_S)
                continue
            wait = FIRST_WAIT_S
            if self._closing.is_set():
                return
            await self._pause(INTERVAL_S)

    def close(self) -> None:
        """Have `run` return as soon as nothing waits."""
        self._closing.set()

    async def write_all(self) -> None:
        """Write all that waits now; raises DatabaseDown, and then it still waits."""
        async with self._one:
            left = len(self._queue)
            while left > 0:
                batch = self._queue.first(min(BATCH, left))
                await self._write(batch)
                self._queue.forget(len(batch))
                left -= len(batch)

    async def _pause(self, seconds: float) -> None:
        if self._closing.is_set():
            await asyncio.sleep(min(seconds, FIRST_WAIT_S))
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), seconds)

    async def _write(self, batch: Sequence[Snapshot]) -> None:
        made = await self._rows(batch)
        try:
            await self._insert(made)
        except (SQLAlchemyError, *UNWRITABLE) as error:
            self.failed += 1
            if not _is_refusal(error):
                raise
            log.error("records_refused", error=type(error).__name__, records=len(batch))
            await self._one_by_one(made)
        except Exception:
            self.failed += 1
            raise
        else:
            self.written += len(batch)

    async def _one_by_one(self, batch: Sequence[Rows]) -> None:
        """What is wrong with one record must not cost the others."""
        for each in batch:
            try:
                await self._insert([each])
            except (SQLAlchemyError, *UNWRITABLE) as error:
                if not _is_refusal(error):
                    raise
                self._queue.dropped["refused"] += 1
            else:
                self.written += 1

    async def _rows(self, batch: Sequence[Snapshot]) -> list[Rows]:
        made: list[Rows] = []
        for start in range(0, len(batch), CHUNK):
            chunk = batch[start : start + CHUNK]
            if self._redactor is None:
                made += self._made(chunk)
                await asyncio.sleep(0)
            else:  # expressions over long texts take their time
                made += await asyncio.to_thread(self._made, chunk)
        return made

    def _made(self, chunk: Sequence[Snapshot]) -> list[Rows]:
        return [rows(each, self._redactor) for each in chunk]

    async def _insert(self, batch: Sequence[Rows]) -> None:
        tried = [row for each in batch for row in each.attempts]
        texts = [each.text for each in batch if each.text is not None]
        async with self._database.begin() as connection:
            await insert(connection, decisions, [each.decision for each in batch])
            for table, given in ((attempts, tried), (decision_texts, texts)):
                if given:
                    await insert(connection, table, given)


def _is_refusal(error: Exception) -> bool:
    """Whether the database will never take it; anything else it may take later."""
    if isinstance(error, (DataError, IntegrityError, ProgrammingError, *UNWRITABLE)):
        return True
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    return str(state or "").startswith(REFUSALS)
