"""Records of decisions: what was decided, each attempt, texts and feedback."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from serving.storage.schema import Json

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

INDEXED = ("trace_id", "tenant", "router", "session_id")


def upgrade() -> None:
    """Make the four tables."""
    id = sa.Uuid(as_uuid=False)
    op.create_table(
        "decisions",
        sa.Column("id", id, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("trace_id", sa.String(32), nullable=False),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("tenant", sa.Text),
        sa.Column("key_id", sa.Text),
        sa.Column("router", sa.Text),
        sa.Column("router_revision", sa.Integer),
        sa.Column("stream", sa.Boolean, nullable=False),
        sa.Column("prompt_tokens", sa.Integer),
        sa.Column("offered", Json),
        sa.Column("route", sa.Text),
        sa.Column("routes", Json),
        sa.Column("reason", sa.Text),
        sa.Column("confidence", sa.Float),
        sa.Column("distribution", Json),
        sa.Column("decision_ms", sa.Float),
        sa.Column("remembered", sa.Boolean),
        sa.Column("engine", sa.Text),
        sa.Column("checkpoint", sa.Text),
        sa.Column("layout_version", sa.Integer),
        sa.Column("calibration", Json),
        sa.Column("policy", Json),
        sa.Column("ranking", Json),
        sa.Column("session_id", sa.Text),
        sa.Column("pinned", sa.Boolean),
        sa.Column("switched", sa.Boolean),
        sa.Column("session_reason", sa.Text),
        sa.Column("saved_dollars", sa.Float),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("model", sa.Text),
        sa.Column("total_ms", sa.Float, nullable=False),
        sa.Column("first_byte_ms", sa.Float),
        sa.Column("broken", sa.Text),
        sa.Column("input_tokens", sa.Integer),
        sa.Column("cached_tokens", sa.Integer),
        sa.Column("output_tokens", sa.Integer),
        sa.Column("cost", sa.Float),
        sa.PrimaryKeyConstraint("id", name="pk_decisions"),
    )
    for column in INDEXED:
        op.create_index(f"ix_decisions_{column}", "decisions", [column, "id"])
    op.create_table(
        "attempts",
        sa.Column("decision_id", id, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("result", sa.Text, nullable=False),
        sa.Column("asked", sa.Boolean, nullable=False),
        sa.Column("latency_ms", sa.Float),
        sa.Column("input_tokens", sa.Integer),
        sa.Column("cached_tokens", sa.Integer),
        sa.Column("output_tokens", sa.Integer),
        sa.Column("cost", sa.Float),
        sa.PrimaryKeyConstraint("decision_id", "number", name="pk_attempts"),
        sa.ForeignKeyConstraint(
            ["decision_id"],
            ["decisions.id"],
            name="fk_attempts_decision_id_decisions",
            ondelete="CASCADE",
        ),
    )
    op.create_table(
        "decision_texts",
        sa.Column("decision_id", id, nullable=False),
        sa.Column("messages", Json, nullable=False),
        sa.Column("redacted", Json),
        sa.PrimaryKeyConstraint("decision_id", name="pk_decision_texts"),
        sa.ForeignKeyConstraint(
            ["decision_id"],
            ["decisions.id"],
            name="fk_decision_texts_decision_id_decisions",
            ondelete="CASCADE",
        ),
    )
    op.create_table(
        "decision_feedback",
        sa.Column("decision_id", id, nullable=False),
        sa.Column("route", sa.Text),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("key_id", sa.Text),
        sa.PrimaryKeyConstraint("decision_id", name="pk_decision_feedback"),
    )


def downgrade() -> None:
    """Take them away."""
    for table in ("decision_feedback", "decision_texts", "attempts", "decisions"):
        op.drop_table(table)
