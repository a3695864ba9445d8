"""An issuer of identity tokens on loopback: discovery, keys, and tokens signed with them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from joserfc import jws, jwt
from joserfc.jwk import ECKey, RSAKey

from tests.servers.token_services import Answer, Request, serving

RSA = RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})


@dataclass(slots=True)
class LoopbackIssuer:
    """Says where its keys are and which they are, and notes how often it was asked."""

    keys: list[Any] = field(default_factory=lambda: [RSA, EC])
    url: str = ""
    asked: list[str] = field(default_factory=list[str])
    answer_as: Answer | None = None

    def __call__(self, request: Request) -> Answer:
        """Answer as an issuer does, unless told otherwise."""
        self.asked.append(request.path)
        if self.answer_as is not None:
            return self.answer_as
        if request.path == "/.well-known/openid-configuration":
            return to_answer({"issuer": self.url, "jwks_uri": f"{self.url}/keys"})
        return to_answer({"keys": [{"kty": "new"}, *(key.as_dict(private=False) for key in self.keys)]})

    def token(
        self, now: datetime, *, audience: str, key: Any = RSA, header: dict[str, Any] | None = None, **more: Any
    ) -> str:
        """A token of five minutes; a claim that is None is left out."""
        seconds = int(now.timestamp())
        claims = {"iss": self.url, "aud": audience, "iat": seconds, "exp": seconds + 300, **more}
        algorithm = "ES256" if key is EC else "RS256"
        registry = jws.JWSRegistry(algorithms=[algorithm], strict_check_header=False)
        given = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode({"alg": algorithm, "kid": key.kid, **(header or {})}, given, key, registry=registry)


@contextlib.contextmanager
def loopback_issuer() -> Generator[LoopbackIssuer]:
    """An issuer while the block runs."""
    issuer = LoopbackIssuer()
    with serving(issuer) as url:
        issuer.url = url
        yield issuer


def to_answer(value: object) -> Answer:
    """A JSON answer."""
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()
