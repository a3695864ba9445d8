"""Alembic revisions of the metadata database, for SQLite and PostgreSQL alike."""
