"""Who a CI job is, by its own word: an OIDC token of GitHub or GitLab, exchanged for a short-lived API token.

So a job needs no secret of ours. The token is asked for with the server's address as its audience and shown to that
server alone, over TLS (or on this machine).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from fairlead.core.errors import InvalidInput, Unauthenticated
from fairlead.core.problems import from_problem

if TYPE_CHECKING:
    from pathlib import Path

    from fairlead.sdk.transport import JsonObject

EXCHANGE_PATH = "/api/v1/tokens/exchange"
_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentitySource:
    """Where an identity token comes from: the variable or file that holds it, or the address that issues one."""

    id_token: str | None = field(default=None, repr=False)
    id_token_file: Path | None = None
    request_url: str | None = None
    request_token: str | None = field(default=None, repr=False)

    @property
    def is_there(self) -> bool:
        """Whether this process runs in a job that has an identity."""
        is_held = self.id_token is not None or self.id_token_file is not None
        return is_held or (self.request_url is not None and self.request_token is not None)

    def token(self, audience: str) -> str:
        """A token for an audience.

        Raises:
            Unauthenticated: if the CI system issues none.
        """
        if self.id_token is not None:
            return self.id_token
        if self.id_token_file is not None:
            # Whoever put it there renews it there.
            try:
                return self.id_token_file.read_text().strip()
            except OSError as error:
                raise Unauthenticated(
                    f"The identity token in {self.id_token_file} cannot be read: {error.strerror}.",
                    hint="Check FAIRLEAD_ID_TOKEN_FILE.",
                ) from None
        import httpx2

        try:
            answer = httpx2.get(
                self.request_url or "",
                params={**_query_of(self.request_url or ""), "audience": audience},
                headers={"authorization": f"Bearer {self.request_token}"},
                timeout=_TIMEOUT_SECONDS,
                follow_redirects=False,
            )
            value = answer.json().get("value") if answer.status_code == 200 else None
        except (httpx2.HTTPError, ValueError, AttributeError):
            value = None
        if not isinstance(value, str) or not value:
            raise Unauthenticated(
                "The CI system issued no identity token.", hint="Give the job the permission: id-token: write"
            )
        return value


def exchange(url: str, source: IdentitySource, *, audience: str | None = None, workspace: str | None = None) -> str:
    """Exchange a job's identity for an API token of the server at `url`; its secret.

    Raises:
        InvalidInput: if the way to the server is open to others.
        Unauthenticated: if the CI system issues no token, or the server does not believe its issuer.
    """
    require_safe(url)
    return str(exchange_token(url, source.token(audience or url), workspace=workspace)["secret"])


def require_safe(url: str, *, hint: str = "Use https, or set FAIRLEAD_TOKEN.") -> None:
    """Refuse a way to a server that is open to others.

    Raises:
        InvalidInput: if it is.
    """
    from fairlead.core.loopback import is_loopback

    if urlsplit(url).scheme != "https" and not is_loopback(url):
        raise InvalidInput(
            f"An identity token is not sent to {url}, which does not speak TLS.",
            hint=hint,
        )


def exchange_token(url: str, token: str, *, workspace: str | None) -> JsonObject:
    """Exchange an identity token for an API token: what the server says of it, its `secret` included.

    Raises:
        InvalidInput: if the way to the server is open to others.
        Unauthenticated: if the server does not believe the token's issuer.
    """
    from fairlead.core.loopback import is_loopback

    require_safe(url)
    import httpx2

    try:
        answer = httpx2.post(
            f"{url}{EXCHANGE_PATH}",
            json={"token": token, **({} if workspace is None else {"workspace": workspace})},
            timeout=_TIMEOUT_SECONDS,
            follow_redirects=False,
            trust_env=not is_loopback(url),
        )
        members: object = answer.json()
    except (httpx2.HTTPError, ValueError) as error:
        raise Unauthenticated(
            f"The server at {url} exchanged no identity token ({type(error).__name__}).", hint="Check FAIRLEAD_URL."
        ) from None
    if answer.status_code >= 400:
        raise from_problem(members, status=answer.status_code)
    issued = cast("JsonObject", members) if isinstance(members, dict) else {}
    if not isinstance(issued.get("secret"), str):
        raise Unauthenticated(f"What answers at {url} is no Fairlead server.", hint="Check FAIRLEAD_URL.")
    return issued


def _query_of(url: str) -> dict[str, str]:
    from urllib.parse import parse_qsl

    return dict(parse_qsl(urlsplit(url).query))
