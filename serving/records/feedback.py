"""What people said a decision should have been."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import delete, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from serving.storage.tables.records import feedback


async def say(connection: AsyncConnection, id: str, route: str | None, key_id: str | None) -> None:
    """Keep what was said of a decision last; no route means that no task fits."""
    await connection.execute(delete(feedback).where(feedback.c.decision_id == id))
    await connection.execute(
        insert(feedback).values(
            decision_id=id, route=route, created_at=datetime.now(UTC), key_id=key_id
        )
    )
