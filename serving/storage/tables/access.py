"""Tables of keys, of what was spent, and of providers' keys.

Changes of keys are counted under `SUBJECT`: see `serving.storage.tables.changes`.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
)

from serving.storage.schema import metadata

SUBJECT = "access"

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(255), nullable=False),
    Column("tenant", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    Column("requests_per_minute", Integer),
    Column("tokens_per_minute", Integer),
    Column("monthly_budget", Float),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    Index("ix_api_keys_created_at", "created_at", "id"),
)

api_key_secrets = Table(
    "api_key_secrets",
    metadata,
    Column("digest", LargeBinary(32), primary_key=True),
    Column("key_id", ForeignKey("api_keys.id"), nullable=False, index=True),
    Column("hashed_with", String(8), nullable=False),
    Column("last_characters", String(8), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
)

key_usage = Table(
    "key_usage",
    metadata,
    # No foreign key: what was spent outlives the key, and is written without a look at it.
    Column("key_id", String(36), primary_key=True),
    Column("month", String(7), primary_key=True),
    # Each process writes totals of its own, so that writing one twice counts it once.
    Column("writer", String(32), primary_key=True),
    Column("dollars", Float, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("estimated", BigInteger, nullable=False),
    Column("unpriced", BigInteger, nullable=False),
    Index("ix_key_usage_month", "month"),
)

provider_keys = Table(
    "provider_keys",
    metadata,
    Column("provider", String(64), primary_key=True),
    Column("ciphertext", LargeBinary, nullable=False),
    Column("origin", String(300), nullable=False),
    Column("created_at", BigInteger, nullable=False),
)
