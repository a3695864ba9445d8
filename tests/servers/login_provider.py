"""A small OpenID provider on loopback: people log in at once, by authorization code with PKCE or by device code."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import secrets
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from fairlead.core.clock import SystemClock
from tests.servers.identity_issuer import LoopbackIssuer, to_answer
from tests.servers.token_services import Answer, Request, serving

CLIENT = "fairlead-cli"
ANA = {"sub": "1", "email": "ana@example.org", "groups": ["/risk"]}
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"


@dataclass(slots=True)
class LoginProvider(LoopbackIssuer):
    """Checks what a provider has to check, and refuses as one."""

    person: dict[str, Any] = field(default_factory=lambda: {**ANA})
    codes: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    devices: dict[str, int] = field(default_factory=dict[str, int])
    refresh_tokens: set[str] = field(default_factory=set[str])
    has_offline_access: bool = True
    is_refusing: bool = False
    says_iss: str | None = None
    forges_state: bool = False

    def __call__(self, request: Request) -> Answer:
        """Answer as a provider does."""
        path = urlsplit(request.path).path
        self.asked.append(path)
        if path == "/.well-known/openid-configuration":
            return to_answer(self.discovery())
        if path == "/authorize":
            return self.authorize(request)
        if path == "/device":
            code = secrets.token_hex(8)
            self.devices[code] = 1  # nobody has entered it at the first question
            shown = {"user_code": "ABCD-EFGH", "verification_uri": f"{self.url}/enter", "interval": 0, "expires_in": 60}
            return to_answer({"device_code": code, **shown})
        if path == "/token":
            return self.give(request.form)
        return to_answer({"keys": [key.as_dict(private=False) for key in self.keys]})

    def discovery(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/keys",
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "device_authorization_endpoint": f"{self.url}/device",
            "scopes_supported": ["openid", "email", "groups", "offline_access"],
        }

    def authorize(self, request: Request) -> Answer:
        asked = request.query
        back = urlsplit(asked["redirect_uri"])
        assert (back.scheme, back.hostname) == ("http", "127.0.0.1")
        assert asked["client_id"] == CLIENT
        assert asked["code_challenge_method"] == "S256"
        assert asked["scope"] == "openid email groups offline_access"
        state = "forged" if self.forges_state else asked["state"]
        answer = {"state": state, "iss": self.says_iss or self.url}
        if self.is_refusing:
            answer["error"] = "access_denied"
        else:
            answer["code"] = secrets.token_hex(8)
            self.codes[answer["code"]] = asked
        return 302, {"Location": f"{asked['redirect_uri']}?{urlencode(answer)}"}, b""

    def give(self, form: dict[str, str]) -> Answer:
        if form.get("client_id") != CLIENT or "client_secret" in form:
            return refuse("invalid_client")
        if form["grant_type"] == "authorization_code":
            asked = self.codes.pop(form["code"], None)
            digest = hashlib.sha256(form["code_verifier"].encode()).digest()
            challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            if asked is None or asked["code_challenge"] != challenge or asked["redirect_uri"] != form["redirect_uri"]:
                return refuse("invalid_grant")
            return self.tokens(nonce=asked["nonce"])
        if form["grant_type"] == DEVICE_GRANT:
            if self.is_refusing:
                return refuse("access_denied")
            self.devices[form["device_code"]] -= 1
            return self.tokens() if self.devices[form["device_code"]] < 0 else refuse("authorization_pending")
        if form["refresh_token"] not in self.refresh_tokens:
            return refuse("invalid_grant")
        # Each is good for one time.
        self.refresh_tokens.discard(form["refresh_token"])
        return self.tokens()

    def tokens(self, **more: Any) -> Answer:
        given: dict[str, Any] = {
            "token_type": "Bearer",
            "id_token": self.token(SystemClock().now(), audience=CLIENT, **self.person, **more),
        }
        if self.has_offline_access:
            given["refresh_token"] = secrets.token_hex(16)
            self.refresh_tokens.add(given["refresh_token"])
        return to_answer(given)


def refuse(error: str) -> Answer:
    """An error as the token endpoint tells it."""
    return 400, *to_answer({"error": error})[1:]


@contextlib.contextmanager
def login_provider() -> Generator[LoginProvider]:
    """A provider while the block runs."""
    provider = LoginProvider()
    with serving(provider) as url:
        provider.url = url
        yield provider
