"""Who may do what: groups and limits of tokens, and an owner who may make workspaces."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from fairlead.core.db import JsonType

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_tokens = sa.table("tokens", *(sa.column(name) for name in ("id", "name", "created_by")), sa.column("scopes", JsonType))


def upgrade() -> None:
    """Add what tokens are limited to; those that are there are limited to nothing. First owners have the server."""
    op.add_column("tokens", sa.Column("groups", JsonType, nullable=False, server_default=sa.text("'[]'")))
    op.add_column("tokens", sa.Column("by_roles", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("tokens", sa.Column("models", JsonType, nullable=True))
    op.add_column("tokens", sa.Column("environments", JsonType, nullable=True))
    _change_owners(["admin"], ["admin", "server"])


def downgrade() -> None:
    """Drop them again: a token that was limited is ended, since nothing would limit it any more."""
    _change_owners(["admin", "server"], ["admin"])
    op.execute(
        "UPDATE tokens SET revoked_at = created_at WHERE revoked_at IS NULL AND (by_roles"
        " OR CAST(models AS TEXT) <> 'null' OR CAST(environments AS TEXT) <> 'null')"
    )
    op.drop_column("tokens", "environments")
    op.drop_column("tokens", "models")
    op.drop_column("tokens", "by_roles")
    op.drop_column("tokens", "groups")


def _change_owners(before: list[str], after: list[str]) -> None:
    """The tokens that a server or an embedded server made for its owner, and nobody else can."""
    connection = op.get_bind()
    owners = sa.select(_tokens.c.id, _tokens.c.scopes).where(
        _tokens.c.name == "owner", _tokens.c.created_by == "fairlead:bootstrap"
    )
    for token_id, scopes in connection.execute(owners).all():
        if scopes == before:
            connection.execute(_tokens.update().where(_tokens.c.id == token_id).values(scopes=after))
