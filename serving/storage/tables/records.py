"""Tables of decisions, attempts, texts and feedback.

Ids are UUIDs of version 7: their order is that of the requests' arrival, so that the primary key
serves pages, spans of time and retention alike.
"""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    Uuid,
)

from serving.storage.schema import Json, UtcTime, metadata

Id = Uuid(as_uuid=False)

decisions = Table(
    "decisions",
    metadata,
    Column("id", Id, primary_key=True),
    Column("created_at", UtcTime, nullable=False),
    Column("trace_id", String(32), nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("tenant", Text),
    Column("key_id", Text),
    # What was asked.
    Column("router", Text),
    Column("router_revision", Integer),
    Column("stream", Boolean, nullable=False),
    Column("prompt_tokens", Integer),
    Column("offered", Json),
    # What was decided, by what.
    Column("route", Text),
    Column("routes", Json),
    Column("reason", Text),
    Column("confidence", Float),
    Column("distribution", Json),
    Column("decision_ms", Float),
    Column("remembered", Boolean),
    Column("engine", Text),
    Column("checkpoint", Text),
    Column("layout_version", Integer),
    Column("calibration", Json),
    # Who was to answer.
    Column("policy", Json),
    Column("ranking", Json),
    # The session that it was part of.
    Column("session_id", Text),
    Column("pinned", Boolean),
    Column("switched", Boolean),
    Column("session_reason", Text),
    Column("saved_dollars", Float),
    # What came of it.
    Column("status", Integer, nullable=False),
    Column("model", Text),
    Column("total_ms", Float, nullable=False),
    Column("first_byte_ms", Float),
    Column("broken", Text),
    Column("input_tokens", Integer),
    Column("cached_tokens", Integer),
    Column("output_tokens", Integer),
    Column("cost", Float),
)
for _column in ("trace_id", "tenant", "router", "session_id"):
    Index(f"ix_decisions_{_column}", decisions.c[_column], decisions.c.id)

attempts = Table(
    "attempts",
    metadata,
    Column("decision_id", ForeignKey(decisions.c.id, ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("model", Text, nullable=False),
    Column("result", Text, nullable=False),
    Column("asked", Boolean, nullable=False),
    Column("latency_ms", Float),
    Column("input_tokens", Integer),
    Column("cached_tokens", Integer),
    Column("output_tokens", Integer),
    Column("cost", Float),
)

decision_texts = Table(
    "decision_texts",
    metadata,
    Column("decision_id", ForeignKey(decisions.c.id, ondelete="CASCADE"), primary_key=True),
    Column("messages", Json, nullable=False),
    Column("redacted", Json),
)
"""`redacted` counts what was taken out, by kind."""

feedback = Table(
    "decision_feedback",
    metadata,
    # No foreign key: the decision may still wait for the database.
    Column("decision_id", Id, primary_key=True),
    Column("route", Text),
    Column("created_at", UtcTime, nullable=False),
    Column("key_id", Text),
)
"""What the decision should have been; a null route means that no task fits."""
