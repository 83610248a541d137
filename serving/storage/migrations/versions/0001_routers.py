"""Routers, their revisions, and counters of changes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    counters = op.create_table(
        "change_counters",
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("value", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("subject", name="pk_change_counters"),
    )
    op.bulk_insert(counters, [{"subject": "routers", "value": 0}])
    op.create_table(
        "routers",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("change", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_routers"),
    )
    op.create_index("ix_routers_change", "routers", ["change"])
    live = sa.text("deleted_at IS NULL")
    op.create_index(
        "uq_routers_live_name",
        "routers",
        ["name"],
        unique=True,
        sqlite_where=live,
        postgresql_where=live,
    )
    op.create_table(
        "router_revisions",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("router_id", sa.Uuid, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("definition", sa.JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("author", sa.String(255)),
        sa.Column("note", sa.String(255)),
        sa.PrimaryKeyConstraint("id", name="pk_router_revisions"),
        sa.ForeignKeyConstraint(
            ["router_id"], ["routers.id"], name="fk_router_revisions_router_id_routers"
        ),
        sa.UniqueConstraint("router_id", "number", name="uq_router_revisions_router_id"),
    )


def downgrade() -> None:
    op.drop_table("router_revisions")
    op.drop_table("routers")
    op.drop_table("change_counters")
