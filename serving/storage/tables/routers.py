"""Routers and their revisions."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    UniqueConstraint,
    Uuid,
    text,
)

from serving.storage.schema import BigId, UtcTime, metadata

routers = Table(
    "routers",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", String(255), nullable=False),
    Column("revision", Integer, nullable=False),
    # The change that touched it last: see serving.storage.tables.changes.
    Column("change", BigInteger, nullable=False, index=True),
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    Column("deleted_at", UtcTime),
)
Index(
    "uq_routers_live_name",
    routers.c.name,
    unique=True,
    sqlite_where=text("deleted_at IS NULL"),
    postgresql_where=text("deleted_at IS NULL"),
)

revisions = Table(
    "router_revisions",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("router_id", Uuid, ForeignKey("routers.id"), nullable=False),
    Column("number", Integer, nullable=False),
    # The router's body. Not JSONB, which would lose the order of keys and refuse some texts.
    Column("definition", JSON, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("author", String(255)),
    Column("note", String(255)),
    UniqueConstraint("router_id", "number"),
)
