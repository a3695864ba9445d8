"""`fairlead features` with the commands of all its files."""

from __future__ import annotations

from fairlead.cli import (
    features_erase,
    features_expect,
    features_feast,
    features_federation,
    features_online,
    features_push,
    features_snapshots,
    features_stores,
)
from fairlead.cli.features import app

__all__ = ["app"]

app.add_typer(features_expect.app, name="expect")
app.add_typer(features_erase.app)
app.add_typer(features_feast.app)
app.add_typer(features_federation.app)
app.add_typer(features_push.app)
app.add_typer(features_snapshots.app)
app.add_typer(features_stores.app)
app.add_typer(features_online.servers, name="servers")
