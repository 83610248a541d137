"""Keys, what they spent, and providers' keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("requests_per_minute", sa.Integer),
        sa.Column("tokens_per_minute", sa.Integer),
        sa.Column("monthly_budget", sa.Float),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("revoked_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
    )
    op.create_index("ix_api_keys_created_at", "api_keys", ["created_at", "id"])
    op.create_table(
        "api_key_secrets",
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("key_id", sa.String(36), nullable=False),
        sa.Column("hashed_with", sa.String(8), nullable=False),
        sa.Column("last_characters", sa.String(8), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("digest", name="pk_api_key_secrets"),
        sa.ForeignKeyConstraint(
            ["key_id"], ["api_keys.id"], name="fk_api_key_secrets_key_id_api_keys"
        ),
    )
    op.create_index("ix_api_key_secrets_key_id", "api_key_secrets", ["key_id"])
    op.create_table(
        "key_usage",
        sa.Column("key_id", sa.String(36), nullable=False),
        sa.Column("month", sa.String(7), nullable=False),
        sa.Column("writer", sa.String(32), nullable=False),
        sa.Column("dollars", sa.Float, nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("input_tokens", sa.BigInteger, nullable=False),
        sa.Column("output_tokens", sa.BigInteger, nullable=False),
        sa.Column("estimated", sa.BigInteger, nullable=False),
        sa.Column("unpriced", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("key_id", "month", "writer", name="pk_key_usage"),
    )
    op.create_index("ix_key_usage_month", "key_usage", ["month"])
    op.create_table(
        "provider_keys",
        sa.Column("provider", sa.String(64), nullable=False),
        sa.Column("ciphertext", sa.LargeBinary, nullable=False),
        sa.Column("origin", sa.String(300), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("provider", name="pk_provider_keys"),
    )
    counters = sa.table("change_counters", sa.column("subject"), sa.column("value"))
    op.bulk_insert(counters, [{"subject": "access", "value": 0}])


def downgrade() -> None:
    for table in ("provider_keys", "key_usage", "api_key_secrets", "api_keys"):
        op.drop_table(table)
    op.execute("DELETE FROM change_counters WHERE subject = 'access'")
