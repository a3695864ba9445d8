"""The client's settings, read once from arguments, environment and file."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from urllib.parse import urlsplit

from fairlead.core.config import read_config
from fairlead.core.errors import InvalidInput

DEFAULT_HOME = "~/.fairlead"
DEFAULT_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """Where the server is and who is calling."""

    url: str | None = field(
        default=None,
        metadata={"env": "FAIRLEAD_URL", "help": "Address of the server; without one, the embedded server is used."},
    )
    token: str | None = field(
        default=None,
        repr=False,
        metadata={"env": "FAIRLEAD_TOKEN", "help": "API token; the embedded server's owner needs none."},
    )
    home: Path = field(
        default=Path(DEFAULT_HOME),
        metadata={"env": "FAIRLEAD_HOME", "help": "Folder of the embedded server and of the cache of downloads."},
    )
    region: str | None = field(
        default=None,
        metadata={
            "env": "FAIRLEAD_REGION",
            "help": "Region this client runs in (`cloud:region`); replicas there are read first.",
        },
    )
    key_file: tuple[Path, ...] = field(
        default=(),
        metadata={
            "env": "FAIRLEAD_KEY_FILE",
            "help": "Key files that unwrap encryption keys, separated by colons; none: a cloud's KMS does, or nothing "
            "is encrypted.",
        },
    )
    edge_cache: str | None = field(
        default=None,
        metadata={
            "env": "FAIRLEAD_EDGE_CACHE",
            "help": "Cache location that unrestricted artifacts are read through, such as that of the site; unset: a "
            "public one of the client's region, where no replica is; `none`: never.",
        },
    )
    feature_online_engine: str = field(
        default="",
        repr=False,
        metadata={
            "env": "FAIRLEAD_FEATURE_ONLINE_ENGINE",
            "help": "Engine of online stores that this process reads by itself; unset: SQLite below FAIRLEAD_HOME.",
        },
    )
    timeout_seconds: float = field(
        default=DEFAULT_TIMEOUT_SECONDS,
        metadata={"env": "FAIRLEAD_TIMEOUT_SECONDS", "help": "Longest silence of the server within one call."},
    )

    workspace: str | None = field(
        default=None,
        metadata={
            "env": "FAIRLEAD_WORKSPACE",
            "help": "Workspace to log in to, or to exchange an identity for, where several believe its issuer.",
        },
    )
    audience: str | None = field(
        default=None,
        metadata={
            "env": "FAIRLEAD_AUDIENCE",
            "help": "Audience that a CI job's identity token is asked for; without one, the server's address.",
        },
    )
    id_token: str | None = field(
        default=None,
        repr=False,
        metadata={
            "env": "FAIRLEAD_ID_TOKEN",
            "help": "Identity token of a CI job (GitLab's `id_tokens`), exchanged for an API token if "
            "FAIRLEAD_TOKEN is not set.",
        },
    )
    id_token_file: Path | None = field(
        default=None,
        metadata={
            "env": "FAIRLEAD_ID_TOKEN_FILE",
            "help": "File of an identity token that somebody renews, as Kubernetes does in a pod; exchanged for an API "
            "token if neither FAIRLEAD_TOKEN nor FAIRLEAD_ID_TOKEN is set.",
        },
    )
    sigstore_id_token: str | None = field(
        default=None,
        repr=False,
        metadata={
            "env": "SIGSTORE_ID_TOKEN",
            "help": "Identity token for the audience `sigstore` (GitLab's `id_tokens`), as whose subject "
            "`model sign --keyless` signs.",
        },
    )
    actions_request_url: str | None = field(
        default=None,
        metadata={
            "env": "ACTIONS_ID_TOKEN_REQUEST_URL",
            "help": "Where GitHub Actions issues a job's identity token; set by GitHub.",
        },
    )
    actions_request_token: str | None = field(
        default=None,
        repr=False,
        metadata={
            "env": "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
            "help": "What GitHub Actions asks for there; set by GitHub.",
        },
    )

    @classmethod
    def read(
        cls, *, url: str | None = None, token: str | None = None, home: Path | str | None = None
    ) -> ClientSettings:
        """Arguments first, then the environment, then the table `client` of the TOML file, then the defaults.

        Raises:
            InvalidInput: if one of them cannot be what it should be.
        """
        environment = os.environ
        place = Path(home or environment.get("FAIRLEAD_HOME") or DEFAULT_HOME)
        config = read_config(environment, place, "client", [each.name for each in fields(cls)])

        def setting(name: str) -> str:
            return environment.get(f"FAIRLEAD_{name.upper()}") or str(config.get(name, ""))

        return cls(
            url=_check_url(url or setting("url")),
            token=_check_token(token or setting("token")),
            home=Path(home or setting("home") or DEFAULT_HOME).expanduser().absolute(),
            region=setting("region") or None,
            key_file=tuple(Path(part).expanduser() for part in setting("key_file").split(os.pathsep) if part),
            edge_cache=setting("edge_cache") or None,
            feature_online_engine=setting("feature_online_engine"),
            timeout_seconds=_check_seconds(setting("timeout_seconds") or DEFAULT_TIMEOUT_SECONDS),
            workspace=setting("workspace") or None,
            audience=setting("audience") or None,
            id_token=_check_token(setting("id_token")),
            id_token_file=Path(setting("id_token_file")).expanduser() if setting("id_token_file") else None,
            sigstore_id_token=_check_token(environment.get("SIGSTORE_ID_TOKEN", "")),
            actions_request_url=environment.get("ACTIONS_ID_TOKEN_REQUEST_URL") or None,
            actions_request_token=environment.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN") or None,
        )


def _check_url(text: str) -> str | None:
    if not text:
        return None
    try:
        parts = urlsplit(text)
        is_valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid or not text.isprintable():
        raise InvalidInput(
            f"{text[:120]!r} is not the address of a server.",
            hint="Write FAIRLEAD_URL like https://fairlead.example:8470.",
        )
    return text.rstrip("/")


def _check_token(text: str) -> str | None:
    token = text.strip()
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise InvalidInput("The token holds characters that no token has.", hint="Copy it again into FAIRLEAD_TOKEN.")
    return token or None


def _check_seconds(text: str | float) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise InvalidInput(f"FAIRLEAD_TIMEOUT_SECONDS is {text!r}; it must be a number above 0.")
    return seconds
