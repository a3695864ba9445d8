"""People log in at their workspace's issuer, in a browser, and are known to the server for some minutes at a time.

The issuer is asked as a public client: no secret of ours takes part. Its identity token is exchanged for an API token;
a refresh token, where it gives one, gets the next ones silently. Both are kept in the home, in a file that its owner
alone can read, by the server that they are for.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from fairlead.core.errors import InvalidInput, Unauthenticated
from fairlead.sdk.identity_tokens import exchange_token, require_safe
from fairlead.sdk.issuer_client import IssuerClient

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from fairlead.sdk.issuer_client import IdentityTokens
    from fairlead.sdk.transport import JsonObject

_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Where somebody logged in, and as whom the server knows them until `expires_at`."""

    url: str
    workspace: str
    name: str
    issuer: str
    client_id: str
    principal: str
    expires_at: str
    secret: str = field(repr=False)
    refresh_token: str | None = field(default=None, repr=False)


class Logins:
    """The logins of a home, one for each server."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._file = home / "logins.json"

    def find(self, url: str) -> Login | None:
        """The login at a server, if there is one."""
        found = self._read().get(url)
        return None if found is None else Login(**found)

    def log_in(
        self,
        url: str,
        *,
        issuer: str | None = None,
        workspace: str | None = None,
        is_device: bool = False,
        show: Callable[[str], None],
    ) -> Login:
        """Log in at an issuer of a workspace: in this machine's browser, or with a code on another machine.

        `show` is given what the person has to read.

        Raises:
            InvalidInput: if nobody logs in there, or it is not said where of several.
            Unauthenticated: if the issuer or the server refuses.
        """
        require_safe(url)
        offered = _choose(_ask_logins(url, workspace), issuer)
        client = IssuerClient(offered["issuer"], client_id=offered["client_id"])
        tokens = client.ask_with_code(show) if is_device else client.ask_in_browser(show)
        login = _exchange(
            Login(
                url=url,
                workspace=offered["workspace"],
                name=offered["name"],
                issuer=offered["issuer"],
                client_id=offered["client_id"],
                principal="",
                expires_at="",
                secret="",
            ),
            tokens,
        )
        with self._locked():
            self._write({**self._read(), url: asdict(login)})
        return login

    def renew(self, url: str, spent: str) -> str:
        """Another API token in place of a spent one. Of several processes one asks, and the others take its answer.

        Raises:
            Unauthenticated: if somebody has to log in again.
        """
        with self._locked():
            login = self.find(url)
            if login is None:
                raise _log_in_again("Nobody is logged in.")
            if login.secret != spent:
                return login.secret
            if login.refresh_token is None:
                raise _log_in_again("The login has ended.")
            client = IssuerClient(login.issuer, client_id=login.client_id)
            renewed = _exchange(login, client.refresh(login.refresh_token))
            self._write({**self._read(), url: asdict(renewed)})
            return renewed.secret

    def log_out(self, url: str) -> Login | None:
        """Forget the login at a server; the one that was forgotten."""
        with self._locked():
            kept = self._read()
            found = kept.pop(url, None)
            self._write(kept)
        return None if found is None else Login(**found)

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            found: object = json.loads(self._file.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return cast("dict[str, dict[str, Any]]", found) if isinstance(found, dict) else {}

    def _write(self, logins: dict[str, dict[str, Any]]) -> None:
        # Complete or as before, and never readable by others, not even for a moment.
        draft = self._file.with_suffix(".new")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
            json.dump(logins, handle)
        draft.replace(self._file)

    @contextlib.contextmanager
    def _locked(self) -> Generator[None]:
        self._home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self._home / "logins.lock").open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def _exchange(login: Login, tokens: IdentityTokens) -> Login:
    issued = exchange_token(login.url, tokens.id_token, workspace=login.workspace)
    return replace(
        login,
        principal=str(issued.get("principal", "")),
        expires_at=str(issued.get("expires_at", "")),
        secret=str(issued["secret"]),
        refresh_token=tokens.refresh_token or login.refresh_token,
    )


def _ask_logins(url: str, workspace: str | None) -> list[JsonObject]:
    from fairlead.sdk.transport import Transport

    transport = Transport(url, None, timeout_seconds=_TIMEOUT_SECONDS)
    try:
        return list(transport.items("/api/v1/login", workspace=workspace))
    finally:
        transport.close()


def _choose(offered: list[JsonObject], issuer: str | None) -> dict[str, str]:
    found = [each for each in offered if issuer is None or each["name"] == issuer]
    if not found:
        raise InvalidInput(
            "Nobody logs in there." if issuer is None else f"Nobody logs in at an issuer {issuer!r} there.",
            hint="Ask an admin for an issuer with a client_id: fairlead issuer put",
        )
    if len(found) > 1:
        named = ", ".join(f"{each['name']} of {each['workspace']}" for each in found[:20])
        raise InvalidInput(
            f"There are several places to log in: {named}.", hint="Choose with --issuer NAME and --workspace NAME."
        )
    return {name: str(value) for name, value in found[0].items()}


def _log_in_again(reason: str) -> Unauthenticated:
    return Unauthenticated(reason, hint="Log in again: fairlead login")
