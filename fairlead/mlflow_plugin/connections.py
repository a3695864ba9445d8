"""Which server a `fairlead:` address means, and a client of it.

    fairlead://HOST[:PORT]         by TLS, unless the host is this machine
    fairlead+http://, fairlead+https://   by one or the other
    fairlead://                    the server of FAIRLEAD_URL, or else the embedded one

Who is calling is told by the client's settings (FAIRLEAD_TOKEN, or the identity of a CI job), never by MLflow's: its
token belongs to its tracking server, and ours goes to no other server than the one that is configured.
"""

from __future__ import annotations

import atexit
import os
import time
from dataclasses import replace
from functools import cache, lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fairlead.core.errors import InvalidInput, PermissionDenied

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from fairlead.sdk.client import Fairlead
    from fairlead.sdk.embedded import EmbeddedServer
    from fairlead.sdk.settings import ClientSettings

SCHEMES = ("fairlead", "fairlead+http", "fairlead+https")
_LOOK_AGAIN_SECONDS = 5.0


def is_fairlead(uri: str | None) -> bool:
    """Whether an address is one of ours."""
    return uri is not None and urlsplit(uri).scheme in SCHEMES


def server_url(uri: str) -> str | None:
    """The URL of the server that an address names; None if it names none.

    Raises:
        InvalidInput: if it is no such address.
    """
    from fairlead.core.loopback import is_loopback

    try:
        parts = urlsplit(uri)
        is_valid = parts.scheme in SCHEMES and "@" not in parts.netloc and parts.port != 0
    except ValueError:
        parts, is_valid = None, False
    if parts is None or not is_valid:
        raise InvalidInput(
            "The address of the registry is not one of a Fairlead server.",
            hint="Write it like fairlead://fairlead.example:8470; the token belongs into FAIRLEAD_TOKEN.",
        )
    if not parts.netloc:
        return None
    named = parts.scheme.partition("+")[2]
    return f"{named or ('http' if is_loopback(f'http://{parts.netloc}') else 'https')}://{parts.netloc}"


def connect(uri: str) -> Fairlead:
    """A client of the server that an address names, which is kept for the next call.

    Raises:
        InvalidInput: if it is no such address.
        ServerUnavailable, MissingExtra, Unauthenticated: as `fairlead.connect` does.
    """
    from fairlead.sdk.settings import ClientSettings

    return _client(ClientSettings.read(url=server_url(uri)))


def connect_configured(uri: str, registry_uris: Iterable[str | None]) -> Fairlead:
    """A client of the server of an address that came from elsewhere, such as that of an artifact.

    Raises:
        PermissionDenied: if that server is neither one of the registries nor that of FAIRLEAD_URL.
        InvalidInput, ServerUnavailable, MissingExtra, Unauthenticated: as `connect` does.
    """
    from fairlead.sdk.settings import ClientSettings

    url = server_url(uri)
    configured = [server_url(each) for each in registry_uris if each is not None and is_fairlead(each)]
    configured.append(ClientSettings.read().url)
    if url is not None and not any(each is not None and is_same_server(each, url) for each in configured):
        raise PermissionDenied(
            f"{url} is not the server that is configured, so it is told no token.",
            hint=f"If you trust it: mlflow.set_registry_uri('fairlead://{urlsplit(url).netloc}')",
        )
    return connect(uri)


def configured_client(url: str, registry_uri: str | None) -> Fairlead | None:
    """The client of the server that a request to `url` goes to, if that is the one that is configured."""
    from fairlead.sdk.settings import ClientSettings

    settings = ClientSettings.read()
    for each in (server_url(registry_uri) if registry_uri and is_fairlead(registry_uri) else None, settings.url):
        if each is not None and is_same_server(each, url):
            return _client(replace(settings, url=each))
    return None


def is_same_server(one: str, other: str) -> bool:
    """Whether two URLs name one server: scheme, host and port."""
    return _origin(one) == _origin(other)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _client(settings: ClientSettings) -> Fairlead:
    if settings.url is not None:
        return _connected(settings, os.getpid())
    server = _embedded_server(settings.home, os.getpid(), time.monotonic() // _LOOK_AGAIN_SECONDS)
    return _connected_to(server, settings, os.getpid())


# Sockets are not shared with a forked process, hence its id; settings may change while a process lives.


@cache
def _connected(settings: ClientSettings, pid: int) -> Fairlead:
    from fairlead.sdk.client import Fairlead

    return _closed_at_exit(Fairlead.connect(settings), pid)


@cache
def _connected_to(server: EmbeddedServer, settings: ClientSettings, pid: int) -> Fairlead:
    from fairlead.sdk.client import Fairlead
    from fairlead.sdk.transport import Transport

    token = settings.token or server.token
    transport = Transport(server.url, token, timeout_seconds=settings.timeout_seconds)
    return _closed_at_exit(Fairlead(transport, settings), pid)


@lru_cache(maxsize=4)
def _embedded_server(home: Path, _pid: int, _when: float) -> EmbeddedServer:
    """The embedded server leaves when it is idle and comes back at another address, so it is looked for again."""
    from fairlead.sdk.embedded import Home, find_or_start

    return find_or_start(Home(path=home))


def _closed_at_exit(client: Fairlead, pid: int) -> Fairlead:
    def close() -> None:
        if os.getpid() == pid:
            client.close()

    atexit.register(close)
    return client
