"""Fairlead: models and features versioned once, true in every cloud they may go to.

    import fairlead

    fl = fairlead.connect()
    fl.models.register("churn", "./model", metrics={"roc_auc": 0.97})
    model = fl.models.load("churn@production")

The packages, from the top; an import never points up:

    fairlead.cli, fairlead.app    command line; composition root of server, worker and demo
    fairlead.mlflow_plugin        `fairlead://` as MLflow's registry
    fairlead.serving              placement engine, bundles, deploy targets, gateway
    fairlead.featurestore         definitions, snapshots, point-in-time joins, online stores
    fairlead.sync                 content store, replication, verification
    fairlead.registry             the record: models, versions, environments, promotion, audit, ledger
    fairlead.catalog              regions, prices, latency, carbon, residency
    fairlead.core                 identifiers, errors, ports

`fairlead.sdk` stands on `core` and on the content store alone and speaks HTTP to the rest, so this import is light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairlead.core.errors import FairleadError

if TYPE_CHECKING:
    from pathlib import Path

    from fairlead.sdk.client import Fairlead

__version__ = "0.1.0"

__all__ = ["FairleadError", "__version__", "connect"]


def connect(url: str | None = None, *, token: str | None = None, home: Path | str | None = None) -> Fairlead:
    """Connect to a Fairlead server, or start (or find) the embedded one.

    Without a URL (argument or `FAIRLEAD_URL`) the embedded server of `home` (argument, `FAIRLEAD_HOME`, or
    `~/.fairlead`) is used: it is started on loopback when it is not running, and leaves by itself when idle.

    Raises:
        ServerUnavailable: if the server does not answer, or the embedded one cannot start.
        Unauthenticated: if the token is missing, wrong or expired.
    """
    from fairlead.sdk.client import Fairlead
    from fairlead.sdk.settings import ClientSettings

    return Fairlead.connect(ClientSettings.read(url=url, token=token, home=home))
