"""Finding stored decisions: filters, and pages that new rows do not shift."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator
from sqlalchemy import ColumnElement, RowMapping, select
from sqlalchemy.ext.asyncio import AsyncConnection

from routing.tasks import NONE
from serving.records.inserts import Row
from serving.records.snapshot import first_id_at
from serving.storage.tables.records import attempts, decision_texts, decisions, feedback

MOST = 200
"""Decisions on a page."""
NOT_LISTED = frozenset({"offered", "distribution", "calibration", "policy", "ranking", "routes"})
"""Columns that only the answer about one decision has."""
_EQUAL = ("trace_id", "tenant", "key_id", "router", "model", "reason", "status", "session_id")

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Word = Annotated[str, Field(min_length=1, max_length=1000, pattern="^[^\\x00]*$")]


class Filters(BaseModel):
    """The query of a list of decisions; what is left out does not narrow it."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    router: Word | None = None
    route: Word | None = None
    """`none` for decisions that no task fits."""
    model: Word | None = None
    """That answered, or was asked last."""
    status: Annotated[int, Field(ge=0, le=599)] | None = None
    reason: (
        Literal[
            "no_task_matches",
            "no_text",
            "engine_not_ready",
            "engine_busy",
            "engine_error",
            "decision_timeout",
        ]
        | None
    ) = None
    """Why the fallbacks were asked."""
    min_confidence: Share | None = None
    max_confidence: Share | None = None
    since: datetime | None = None
    """ISO 8601, or seconds since 1970; UTC where no zone is given."""
    until: datetime | None = None
    """Exclusive."""
    tenant: Word | None = None
    key_id: Word | None = None
    session_id: Word | None = None
    trace_id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")] | None = None
    limit: Annotated[int, Field(ge=1, le=MOST)] = 50
    cursor: str | None = None
    """`next_cursor` of the page before."""

    @field_validator("cursor")
    @classmethod
    def _ours(cls, value: str | None) -> str | None:
        if value is not None:
            id_of_cursor(value)
        return value

    def conditions(self) -> list[ColumnElement[bool]]:
        """What a row must meet, but for the page."""
        found: list[ColumnElement[bool]] = [
            decisions.c[name] == value
            for name in _EQUAL
            if (value := getattr(self, name)) is not None
        ]
        if self.route == NONE:
            found += [decisions.c.reason == "no_task_matches"]
        elif self.route is not None:
            found.append(decisions.c.route == self.route)
        if self.min_confidence is not None:
            found.append(decisions.c.confidence >= self.min_confidence)
        if self.max_confidence is not None:
            found.append(decisions.c.confidence <= self.max_confidence)
        if self.since is not None:
            found.append(decisions.c.id >= first_id_at(_seconds(self.since)))
        if self.until is not None:
            found.append(decisions.c.id < first_id_at(_seconds(self.until)))
        return found


class Page(NamedTuple):
    """Some decisions, newest first."""

    rows: list[Row]
    next_cursor: str | None
    """None on the last page."""


async def page(connection: AsyncConnection, filters: Filters) -> Page:
    """The decisions that meet the filters, from the cursor on."""
    conditions = filters.conditions()
    if filters.cursor is not None:
        conditions.append(decisions.c.id < id_of_cursor(filters.cursor))
    columns = [column for column in decisions.c if column.name not in NOT_LISTED]
    statement = (
        select(*columns).where(*conditions).order_by(decisions.c.id.desc()).limit(filters.limit + 1)
    )
    found = [plain(row) for row in (await connection.execute(statement)).mappings()]
    more = len(found) > filters.limit
    del found[filters.limit :]
    return Page(found, cursor_of(found[-1]["id"]) if more else None)


class Whole(NamedTuple):
    """All that is stored of one decision."""

    decision: Row
    attempts: Sequence[Row]
    text: Row | None
    feedback: Row | None


async def whole(
    connection: AsyncConnection, wanted: str, tenant: str | None = None
) -> Whole | None:
    """The decision of an id, or the newest of a trace id, both 32 hexadecimal digits; only one of
    `tenant`, if that is given."""
    mine = [] if tenant is None else [decisions.c.tenant == tenant]
    for condition in (decisions.c.id == wanted, decisions.c.trace_id == wanted):
        newest = select(decisions).where(condition, *mine).order_by(decisions.c.id.desc()).limit(1)
        row = (await connection.execute(newest)).mappings().first()
        if row is not None:
            break
    else:
        return None
    key = row["id"]
    tried = select(attempts).where(attempts.c.decision_id == key).order_by(attempts.c.number)
    said = select(decision_texts).where(decision_texts.c.decision_id == key)
    return Whole(
        plain(row),
        [plain(each) for each in (await connection.execute(tried)).mappings()],
        _one((await connection.execute(said)).mappings().first()),
        await feedback_on(connection, key),
    )


async def feedback_on(connection: AsyncConnection, id: str) -> Row | None:
    """What was said of a decision, if anything was."""
    told = select(feedback).where(feedback.c.decision_id == id)
    return _one((await connection.execute(told)).mappings().first())


def cursor_of(id: str) -> str:
    """An id as an opaque word."""
    return base64.urlsafe_b64encode(bytes.fromhex(id.replace("-", ""))).decode().rstrip("=")


def id_of_cursor(cursor: str) -> str:
    """The id; raises ValueError for a word that is no cursor."""
    try:
        value = base64.b64decode(cursor + "==", altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        value = b""
    if len(value) != 16:
        raise ValueError("is no cursor of this server")
    return value.hex()


def plain(row: RowMapping) -> Row:
    """A row with keys that orjson takes for strings."""
    return {str(name): value for name, value in row.items()}


def _one(row: RowMapping | None) -> Row | None:
    return None if row is None else plain(row)


def _seconds(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
