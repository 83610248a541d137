"""What the server keeps: SQLAlchemy over SQLite or PostgreSQL, its schema by alembic."""
