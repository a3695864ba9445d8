r"""Tickets: what the registry lets one caller have joined in one region, signed and short-lived.

A ticket says everything that an agent may do for a call: which version of which views, from which artifacts, for how
many entity rows, for a reader in which region. So an agent takes nothing of that from whoever calls, and a call can be
judged while the registry is away. It is bound to the API token that the plan was made with, of which it holds a hash:
whoever shows a ticket shows that token too.

    ticket    = base64url(payload) "." base64url(signature)
    signature = Ed25519 over "fairlead/feature-ticket\0" + payload
    payload   = zlib of the canonical JSON of what is below, which is unpacked only once the signature was found good

No ticket holds a key or value of an entity row.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from fairlead.core.canonical import canonical_json
from fairlead.core.clock import format_time, parse_time
from fairlead.core.errors import JsonValue, TicketInvalid
from fairlead.featurestore.services import Projection, ServiceDefinition

VERSION = 1
LIFE = timedelta(minutes=5)
"""How long a ticket is good for: longest, too, that an agent which is cut off goes on for a token that was revoked."""

TICKET_MAX_BYTES = 256 * 1024
_SIGNED_PREFIX = b"fairlead/feature-ticket\0"
_TOKEN_PREFIX = b"fairlead/ticket-of-token\0"
_HINT = "Plan the read again: a ticket is good for five minutes, one region and the token it was planned with."


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketPart:
    """Some features of a view, the class they are under, and the artifact that holds their rows.

    Without one, the rows are read from the view's source.
    """

    residency: str
    digest: str | None
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketView:
    """The features of one view to be joined, and the parts that have them."""

    alias: str
    view: str
    view_digest: str
    features: tuple[str, ...]
    join_key_map: Mapping[str, str]
    parts: tuple[TicketPart, ...]

    def column(self, feature: str) -> str:
        """What the column of a feature is called in an answer: one view's name never hides another's."""
        return f"{self.alias}__{feature}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """What one caller may have joined in `region`, for a reader in `reader_region` (None: it was not said).

    `residency` is the class of the entity rows, of which there are at most `rows`. `live_until` is the time up to
    which sources are read, None where only snapshots are joined. `planned_out` and `planned_back` are bytes. `read`
    names the whole read that this is a part of.
    """

    read: str
    workspace_id: str
    principal: str
    token_sha256: str
    region: str | None
    reader_region: str | None
    residency: str
    rows: int
    service: str
    views: tuple[TicketView, ...]
    live_until: datetime | None
    planned_out: int
    planned_back: int
    labels: Mapping[str, str]
    expires_at: datetime

    def as_service(self) -> ServiceDefinition:
        """The views as a service, each column of which is called as `TicketView.column` says."""
        projections = tuple(
            Projection(
                view=each.view,
                alias=each.alias,
                features=each.features,
                join_key_map=each.join_key_map,
                # A hidden feature has its view's name before its own, always.
                hidden=frozenset(each.features),
            )
            for each in self.views
        )
        return ServiceDefinition(name=self.service, projections=projections)


def token_hash(secret: str) -> str:
    """What a ticket holds of the API token that it is bound to; not the hash that the registry finds tokens by."""
    return hashlib.sha256(_TOKEN_PREFIX + secret.encode()).hexdigest()


def seal_ticket(ticket: Ticket, signing_key: bytes) -> str:
    """The ticket as text, signed with an Ed25519 private key (32 raw bytes)."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    # It travels in a header, too, and thousands of features' names are much alike.
    payload = zlib.compress(canonical_json(_to_json(ticket)))
    signature = Ed25519PrivateKey.from_private_bytes(signing_key).sign(_SIGNED_PREFIX + payload)
    return f"{_encode(payload)}.{_encode(signature)}"


def open_ticket(text: str, public_keys: Iterable[bytes], *, now: datetime, grace: timedelta = timedelta(0)) -> Ticket:
    """The ticket that a text is, if one of the keys signed it and it has not ended; `grace` lets it have.

    Raises:
        TicketInvalid: if it is forged, damaged, of another version, or has ended.
    """
    payload = _verified(text, public_keys)
    try:
        ticket = _from_json(cast("dict[str, Any]", json.loads(zlib.decompress(payload))))
    except (ValueError, KeyError, TypeError, zlib.error):
        raise TicketInvalid("The ticket is of a form that is not known here.", hint=_HINT) from None
    if now >= ticket.expires_at + grace:
        raise TicketInvalid(f"The ticket ended at {format_time(ticket.expires_at)}.", hint=_HINT)
    return ticket


def _verified(text: str, public_keys: Iterable[bytes]) -> bytes:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        payload, signature = (
            base64.b64decode(_padded(part), b"-_", validate=True) for part in text[:TICKET_MAX_BYTES].split(".")
        )
    except (ValueError, binascii.Error):
        raise TicketInvalid("That is no ticket.", hint=_HINT) from None
    for key in public_keys:
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(signature, _SIGNED_PREFIX + payload)
        except InvalidSignature:
            continue
        return payload
    raise TicketInvalid("The ticket is not signed by the registry of this agent.", hint=_HINT)


def _to_json(ticket: Ticket) -> dict[str, JsonValue]:
    views: list[JsonValue] = [
        {
            "alias": view.alias,
            "view": view.view,
            "view_digest": view.view_digest,
            "features": list(view.features),
            "join_key_map": dict(view.join_key_map),
            "parts": [
                {"residency": part.residency, "digest": part.digest, "features": list(part.features)}
                for part in view.parts
            ],
        }
        for view in ticket.views
    ]
    return {
        "version": VERSION,
        "read": ticket.read,
        "workspace": ticket.workspace_id,
        "principal": ticket.principal,
        "token_sha256": ticket.token_sha256,
        "region": ticket.region,
        "reader_region": ticket.reader_region,
        "residency": ticket.residency,
        "rows": ticket.rows,
        "service": ticket.service,
        "views": views,
        "live_until": None if ticket.live_until is None else format_time(ticket.live_until),
        "planned_out": ticket.planned_out,
        "planned_back": ticket.planned_back,
        "labels": dict(ticket.labels),
        "expires_at": format_time(ticket.expires_at),
    }


def _from_json(members: dict[str, Any]) -> Ticket:
    if members["version"] != VERSION:
        raise ValueError
    return Ticket(
        read=members["read"],
        workspace_id=members["workspace"],
        principal=members["principal"],
        token_sha256=members["token_sha256"],
        region=members["region"],
        reader_region=members["reader_region"],
        residency=members["residency"],
        rows=members["rows"],
        service=members["service"],
        views=tuple(
            TicketView(
                alias=view["alias"],
                view=view["view"],
                view_digest=view["view_digest"],
                features=tuple(view["features"]),
                join_key_map=view["join_key_map"],
                parts=tuple(
                    TicketPart(residency=part["residency"], digest=part["digest"], features=tuple(part["features"]))
                    for part in view["parts"]
                ),
            )
            for view in members["views"]
        ),
        live_until=None if members["live_until"] is None else parse_time(members["live_until"]),
        planned_out=members["planned_out"],
        planned_back=members["planned_back"],
        labels=members["labels"],
        expires_at=parse_time(members["expires_at"]),
    )


def _encode(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def _padded(text: str) -> str:
    return text + "=" * (-len(text) % 4)
