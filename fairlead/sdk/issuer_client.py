"""A public OpenID Connect client: asks an issuer for a person's identity token, with nothing secret of its own.

In a browser by an authorization code with PKCE that comes back to this machine's loopback address; without one by a
device code that the person types in elsewhere.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import html
import json
import queue
import secrets
import threading
import time
import webbrowser
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any, Self, cast
from urllib.parse import parse_qs, urlencode, urlsplit

from fairlead.core.errors import Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
PATIENCE_SECONDS = 300.0
"""How long somebody may take to log in."""

_TIMEOUT_SECONDS = 30.0
_SCOPES = ("openid", "profile", "email", "groups", "offline_access")
_SURE_SCOPES = ("openid", "profile", "email")
_SLOWER_SECONDS = 5.0
_CALLBACK = "/callback"


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityTokens:
    """What an issuer gave: who somebody is, and what gets the next such token (None: only logging in again does)."""

    id_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)


class IssuerClient:
    """Speaks to one issuer."""

    def __init__(self, issuer: str, *, client_id: str) -> None:
        self._issuer = issuer
        self._client_id = client_id
        found = self._get_json(issuer.rstrip("/") + "/.well-known/openid-configuration")
        if found.get("issuer") != issuer:
            raise _refused(issuer, "what answers there is another issuer")
        self._found = found

    def ask_in_browser(self, show: Callable[[str], None]) -> IdentityTokens:
        """Have the person log in with this machine's browser.

        Raises:
            Unauthenticated: if they do not within five minutes, or the issuer refuses.
        """
        verifier, state, nonce = (secrets.token_urlsafe(48) for _ in range(3))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        with _Callback() as callback:
            asked = {
                "response_type": "code",
                "client_id": self._client_id,
                "redirect_uri": callback.address,
                "scope": self._scopes(),
                "state": state,
                "nonce": nonce,
                "code_challenge": challenge,
                "code_challenge_method": "S256",
            }
            page = self._endpoint("authorization_endpoint")
            address = f"{page}{'&' if '?' in page else '?'}{urlencode(asked)}"
            show(f"Log in with your browser: {address}")
            webbrowser.open(address)
            answer = callback.wait()
            redirect = callback.address
        if not hmac.compare_digest(answer.get("state", ""), state) or answer.get("iss", self._issuer) != self._issuer:
            raise _refused(self._issuer, "the browser brought an answer to another question")
        if "code" not in answer:
            raise _refused(self._issuer, answer.get("error_description") or answer.get("error") or "it gave no code")
        grant = {"grant_type": "authorization_code", "code": answer["code"], "redirect_uri": redirect}
        tokens = self._ask({**grant, "code_verifier": verifier})
        if _claims(tokens.id_token).get("nonce") != nonce:
            raise _refused(self._issuer, "its token answers another question")
        return tokens

    def ask_with_code(self, show: Callable[[str], None]) -> IdentityTokens:
        """Have the person log in on any machine, by a code that is shown to them.

        Raises:
            Unauthenticated: if they do not in time, or the issuer refuses.
        """
        status, started = self._post(
            self._endpoint("device_authorization_endpoint"), {"client_id": self._client_id, "scope": self._scopes()}
        )
        code, page = started.get("device_code"), started.get("verification_uri")
        if status != 200 or not isinstance(code, str) or not isinstance(page, str):
            raise _refused(self._issuer, _reason(started))
        show(f"Open {page} on any machine and enter the code {started.get('user_code')}")
        interval = _number(started.get("interval"), 5.0)
        deadline = time.monotonic() + _number(started.get("expires_in"), PATIENCE_SECONDS)
        while time.monotonic() < deadline:
            time.sleep(interval)
            grant = {"grant_type": DEVICE_GRANT, "device_code": code, "client_id": self._client_id}
            status, answer = self._post(self._endpoint("token_endpoint"), grant)
            if status == 200:
                return self._to_tokens(answer)
            if answer.get("error") == "slow_down":
                interval += _SLOWER_SECONDS
            elif answer.get("error") != "authorization_pending":
                raise _refused(self._issuer, _reason(answer))
        raise _refused(self._issuer, "nobody entered the code in time")

    def refresh(self, refresh_token: str) -> IdentityTokens:
        """The next identity token, without the person.

        Raises:
            Unauthenticated: if the issuer wants them to log in again.
        """
        return self._ask({"grant_type": "refresh_token", "refresh_token": refresh_token})

    def _ask(self, grant: Mapping[str, str]) -> IdentityTokens:
        status, answer = self._post(self._endpoint("token_endpoint"), {**grant, "client_id": self._client_id})
        if status != 200:
            raise _refused(self._issuer, _reason(answer))
        return self._to_tokens(answer)

    def _to_tokens(self, answer: Mapping[str, Any]) -> IdentityTokens:
        id_token, refresh_token = answer.get("id_token"), answer.get("refresh_token")
        if not isinstance(id_token, str):
            raise _refused(self._issuer, "it gave no identity token")
        return IdentityTokens(
            id_token=id_token, refresh_token=refresh_token if isinstance(refresh_token, str) else None
        )

    def _scopes(self) -> str:
        supported = self._found.get("scopes_supported")
        if not isinstance(supported, list):
            return " ".join(_SURE_SCOPES)
        return " ".join(scope for scope in _SCOPES if scope in supported or scope == "openid")

    def _endpoint(self, name: str) -> str:
        address = self._found.get(name)
        if not isinstance(address, str) or not _is_safe(address):
            raise _refused(self._issuer, f"it has no {name.replace('_', ' ')}")
        return address

    def _get_json(self, url: str) -> dict[str, Any]:
        status, answer = self._send("GET", url, None)
        if status != 200:
            raise _refused(self._issuer, "it does not say how to ask it")
        return answer

    def _post(self, url: str, form: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        return self._send("POST", url, form)

    def _send(self, method: str, url: str, form: Mapping[str, str] | None) -> tuple[int, dict[str, Any]]:
        import httpx2

        if not _is_safe(url):
            raise _refused(self._issuer, "it does not speak TLS")
        try:
            answer = httpx2.request(method, url, data=form, timeout=_TIMEOUT_SECONDS, follow_redirects=False)
            found: object = answer.json()
        except (httpx2.HTTPError, ValueError) as error:
            raise _refused(self._issuer, f"it does not answer ({type(error).__name__})") from None
        return answer.status_code, cast("dict[str, Any]", found) if isinstance(found, dict) else {}


class _Callback:
    """A port of this machine that the browser comes back to, once."""

    def __init__(self) -> None:
        answers: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                is_ours = parts.path == _CALLBACK
                if is_ours:
                    answers.put({name: values[0] for name, values in parse_qs(parts.query).items()})
                said = "You may close this window." if is_ours else "There is nothing here."
                body = f"<!doctype html><title>Fairlead</title><p>{html.escape(said)}</p>".encode()
                self.send_response(200 if is_ours else 404)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the name that is inherited)
                """Say nothing: the address holds a code."""

        self._answers = answers
        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}{_CALLBACK}"

    def __enter__(self) -> Self:
        # A browser in the terminal is waited for, and waits for its page.
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def wait(self) -> dict[str, str]:
        """What the browser brings."""
        try:
            return self._answers.get(timeout=PATIENCE_SECONDS)
        except queue.Empty:
            raise Unauthenticated(
                "Nobody logged in within five minutes.",
                hint="Without a browser on this machine: fairlead login --device",
            ) from None


def _is_safe(url: str) -> bool:
    from fairlead.core.loopback import is_loopback

    parts = urlsplit(url)
    return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(url)))


def _claims(token: str) -> dict[str, Any]:
    """What a token says, unverified: it came from the issuer itself, and the server verifies it."""
    try:
        part = token.split(".")[1]
        found: object = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (IndexError, ValueError):
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _reason(answer: Mapping[str, Any]) -> str:
    return str(answer.get("error_description") or answer.get("error") or "it gave no reason")[:200]


def _number(value: object, default: float) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 3600
    return float(cast("float", value)) if is_number else default


def _refused(issuer: str, reason: str) -> Unauthenticated:
    return Unauthenticated(f"The issuer {issuer} let nobody in: {reason}.", hint="Try again: fairlead login")
