"""The client's settings, read once from arguments and environment."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """Where the server is and who is calling."""

    url: str | None = field(default=None, metadata={"env": "FAIRLEAD_URL", "help": "Server address; none: embedded."})
    token: str | None = field(
        default=None, repr=False, metadata={"env": "FAIRLEAD_TOKEN", "help": "API token; embedded: the owner's."}
    )
    home: Path = field(
        default=Path("~/.fairlead"),
        metadata={"env": "FAIRLEAD_HOME", "help": "Folder of the embedded server and cache."},
    )
    region: str | None = field(
        default=None,
        metadata={
            "env": "FAIRLEAD_REGION",
            "help": "Region this client runs in (cloud:region); replicas there are read first.",
        },
    )
    timeout_seconds: float = field(
        default=60.0, metadata={"env": "FAIRLEAD_TIMEOUT_SECONDS", "help": "Longest wait for one answer of the server."}
    )

    @classmethod
    def read(
        cls, *, url: str | None = None, token: str | None = None, home: Path | str | None = None
    ) -> ClientSettings:
        """Arguments first, then the environment, then the defaults."""
        environment = os.environ
        return cls(
            url=(url or environment.get("FAIRLEAD_URL") or "").rstrip("/") or None,
            token=token or environment.get("FAIRLEAD_TOKEN") or None,
            home=Path(home or environment.get("FAIRLEAD_HOME") or "~/.fairlead").expanduser().absolute(),
            region=environment.get("FAIRLEAD_REGION") or None,
            timeout_seconds=float(environment.get("FAIRLEAD_TIMEOUT_SECONDS") or 60.0),
        )
