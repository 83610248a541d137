"""What alembic runs: the caller's connection, within the caller's transaction."""

from __future__ import annotations

from alembic import context

from serving.storage.schema import load_tables

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=load_tables(),
    # SQLite changes a table by copying it.
    render_as_batch=connection.dialect.name == "sqlite",
)
with context.begin_transaction():
    context.run_migrations()
