"""Stored conversations as lines that `pointsman data import-logs` reads: traffic to retrain on."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select

from serving.records.query import Filters, Share, Word
from serving.storage.database import Database
from serving.storage.tables.records import decision_texts, decisions, feedback

AT_ONCE = 100
"""Conversations read in one query."""


class Selection(BaseModel):
    """The query of an export."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    router: Word
    """Its tasks are what the lines are labelled with."""
    labels: Literal["feedback", "decision", "none"] = "feedback"
    """By what people said; by that, else by the decision itself; or not at all."""
    min_confidence: Share = 0.9
    """A less confident decision is no label."""
    labelled_only: bool = False
    since: datetime | None = None
    until: datetime | None = None
    tenant: Annotated[str | None, Field(min_length=1, max_length=1000)] = None


async def lines(
    database: Database, selection: Selection, tenant: str | None = None
) -> AsyncGenerator[bytes, None]:
    """Lines of JSON, oldest first, a few hundred kilobytes at a time; raises DatabaseDown.

    Each query is a transaction of its own, so that a slow reader holds nothing up.
    """
    after = ""
    while True:
        found = await _some(database, selection, tenant, after)
        if not found:
            return
        after = found[-1]["id"]
        chunk = b"".join(
            orjson.dumps(line) + b"\n" for row in found if (line := _line(row, selection))
        )
        if chunk:
            yield chunk


async def _some(
    database: Database, selection: Selection, tenant: str | None, after: str
) -> list[dict[str, Any]]:
    filters = Filters(
        router=selection.router,
        since=selection.since,
        until=selection.until,
        tenant=tenant or selection.tenant,
    )
    conditions = filters.conditions()
    if after:
        conditions.append(decisions.c.id > after)
    columns = decisions.c
    statement = (
        select(
            *(columns.id, columns.route, columns.routes, columns.reason, columns.confidence),
            decision_texts.c.messages,
            feedback.c.decision_id.label("told"),
            feedback.c.route.label("right"),
        )
        .join(decision_texts, decision_texts.c.decision_id == columns.id)
        .outerjoin(feedback, feedback.c.decision_id == columns.id)
        .where(*conditions)
        .order_by(columns.id)
        .limit(AT_ONCE)
    )
    async with database.read() as connection:
        return [dict(row) for row in (await connection.execute(statement)).mappings()]


def _line(row: dict[str, Any], selection: Selection) -> dict[str, Any] | None:
    line: dict[str, Any] = {"messages": row["messages"]}
    if selection.labels != "none" and row["told"] is not None:
        return line | {"route": row["right"]}
    sure = (row["confidence"] or 0.0) >= selection.min_confidence
    if selection.labels == "decision" and sure:
        return line | {"routes": row["routes"] or []}
    return None if selection.labelled_only else line
