"""The public keys of issuers: from the address that an admin named, and from nowhere that a token names."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from fairlead.core.errors import InvalidInput, PermissionDenied, Unauthenticated, Unavailable
from fairlead.core.outbound import OutboundRules
from fairlead.core.ports import Clock
from fairlead.registry.issuers import is_same_origin, is_trusted_address

if TYPE_CHECKING:
    from joserfc.jwk import ECKey, RSAKey

    from fairlead.registry.issuers import Issuer

KEPT_FOR = timedelta(minutes=10)
ASKED_AT_MOST_EVERY = timedelta(minutes=1)
ANSWER_MAX_BYTES = 256 * 2**10
RSA_MIN_BITS = 2048
_TIMEOUT_SECONDS = 5.0
_KEYS_MAX = 100
_KEY_TYPES = {"RS256": "RSA", "ES256": "EC"}

ALGORITHMS = tuple(_KEY_TYPES)
"""What an identity token may be signed with: no shared secret, and never nothing."""


@dataclass(slots=True)
class _KeySet:
    lock: threading.Lock = field(default_factory=threading.Lock)
    keys: dict[tuple[str, str], RSAKey | ECKey] = field(default_factory=dict[tuple[str, str], "RSAKey | ECKey"])
    fetched_at: datetime | None = None
    asked_at: datetime | None = None


class IssuerKeys:
    """Fetches and keeps issuers' keys. Safe to share between threads."""

    def __init__(self, clock: Clock, *, hosts: tuple[str, ...] | None = None) -> None:
        self._clock = clock
        self._rules = issuer_rules(hosts)
        self._lock = threading.Lock()
        self._sets: dict[tuple[str, str | None], _KeySet] = {}

    def find(self, issuer: Issuer, *, algorithm: str, key_id: str) -> RSAKey | ECKey:
        """The issuer's key of that id for that algorithm; it is asked at most once a minute.

        Raises:
            Unauthenticated: if it has no such key.
            Unavailable: if it does not answer as it should.
        """
        with self._lock:
            known = self._sets.setdefault((issuer.issuer, issuer.jwks_url), _KeySet())
        if not known.lock.acquire(timeout=2 * _TIMEOUT_SECONDS):
            raise _unavailable(issuer)
        try:
            now = self._clock.now()
            wanted = (_KEY_TYPES[algorithm], key_id)
            is_fresh = known.fetched_at is not None and now - known.fetched_at < KEPT_FOR
            may_ask = known.asked_at is None or now - known.asked_at >= ASKED_AT_MOST_EVERY
            if may_ask and (not is_fresh or wanted not in known.keys):
                known.asked_at = now
                known.keys, known.fetched_at = _fetch_keys(issuer, self._rules), now
            elif not is_fresh:
                raise _unavailable(issuer)
            if wanted not in known.keys:
                raise Unauthenticated(f"The issuer {issuer.name!r} has no key {key_id[:80]!r} that signs {algorithm}.")
            return known.keys[wanted]
        finally:
            known.lock.release()


def issuer_rules(hosts: tuple[str, ...] | None) -> OutboundRules:
    """Where keys may be fetched from: the listed hosts, or where none are listed any host that an admin names."""
    # Which addresses may be plain http, and that is only this machine's, `is_trusted_address` says.
    return OutboundRules(setting="FAIRLEAD_ISSUER_HOSTS", hosts=hosts, may_be_private=True, may_be_plain=True)


def _fetch_keys(issuer: Issuer, rules: OutboundRules) -> dict[tuple[str, str], RSAKey | ECKey]:
    url = issuer.jwks_url
    if url is None:
        found = _fetch_json(issuer, issuer.issuer.rstrip("/") + "/.well-known/openid-configuration", rules)
        url = found.get("jwks_uri")
        is_own = isinstance(url, str) and is_trusted_address(url) and is_same_origin(url, issuer.issuer)
        if found.get("issuer") != issuer.issuer or not is_own:
            raise _unavailable(issuer)
    listed = _fetch_json(issuer, cast("str", url), rules).get("keys")
    if not isinstance(listed, list):
        raise _unavailable(issuer)
    keys: dict[tuple[str, str], RSAKey | ECKey] = {}
    for each in cast("list[object]", listed)[:_KEYS_MAX]:
        if isinstance(each, dict) and (key := _to_key(cast("dict[str, Any]", each))) is not None:
            keys[(key.key_type, cast("dict[str, str]", each)["kid"])] = key
    return keys


def _to_key(member: dict[str, Any]) -> RSAKey | ECKey | None:
    """A key that may verify, or None: of another kind, for another use, weak, or private."""
    from joserfc.errors import JoseError
    from joserfc.jwk import ECKey, RSAKey

    kind = member.get("kty")
    if not isinstance(member.get("kid"), str) or member.get("use", "sig") != "sig" or "d" in member:
        return None
    try:
        if kind == "RSA":
            key = RSAKey.import_key(member)
            return key if key.public_key.key_size >= RSA_MIN_BITS else None
        if kind == "EC" and member.get("crv") == "P-256":
            key = ECKey.import_key(member)
            _ = key.public_key  # whether the point is on the curve
            return key
    except (JoseError, ValueError, TypeError, KeyError):
        pass
    return None


def _fetch_json(issuer: Issuer, url: str, rules: OutboundRules) -> dict[str, Any]:
    import httpx2  # only where tokens are exchanged

    from fairlead.core.outbound_http import PinnedTransport

    deadline = time.monotonic() + _TIMEOUT_SECONDS
    body = bytearray()
    try:
        # A cluster's own issuer is often signed by a private authority, which SSL_CERT_FILE names.
        transport = PinnedTransport(rules.resolve(url), verify=httpx2.create_ssl_context())
        with (
            httpx2.Client(
                transport=transport, timeout=_TIMEOUT_SECONDS, follow_redirects=False, trust_env=False
            ) as client,
            client.stream("GET", url, headers={"accept": "application/json", "accept-encoding": "identity"}) as answer,
        ):
            if answer.status_code != 200:
                raise _unavailable(issuer)
            for piece in answer.iter_raw():
                body += piece
                if len(body) > ANSWER_MAX_BYTES or time.monotonic() > deadline:
                    raise _unavailable(issuer)
        found: object = json.loads(body)
    except (httpx2.HTTPError, ValueError, RecursionError, InvalidInput, PermissionDenied):
        raise _unavailable(issuer) from None
    if not isinstance(found, dict):
        raise _unavailable(issuer)
    return cast("dict[str, Any]", found)


def _unavailable(issuer: Issuer) -> Unavailable:
    return Unavailable(
        f"The keys of the issuer {issuer.name!r} cannot be had.",
        hint="Try again in a minute. The server must reach the issuer, directly and as FAIRLEAD_ISSUER_HOSTS lets it; "
        "where it publishes its keys elsewhere, an admin gives their address (jwks_url).",
    )
