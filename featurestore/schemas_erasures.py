"""What crosses the wire about erasures."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints

from fairlead.featurestore.erasures import KEYS_MAX
from fairlead.registry.limits import REASON_MAX_LENGTH
from fairlead.registry.wire import AnswerModel, RequestModel, Time

Hexadecimal = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


class ErasureIn(RequestModel):
    """Whom to erase: entities, and a salted hash of their values; the values themselves are not sent."""

    entities: Annotated[
        list[Annotated[str, StringConstraints(min_length=1, max_length=255)]],
        Field(min_length=1, max_length=KEYS_MAX, description="Entities or join keys, in the order of the hash."),
    ]
    salt: Annotated[Hexadecimal, Field(description="32 random bytes.")]
    subject_hash: Annotated[
        Hexadecimal,
        Field(description="sha256 of the salt's digits and, for each value as text, its length in bytes, `:` and it."),
    ]
    reason: Annotated[
        str,
        StringConstraints(min_length=1, max_length=REASON_MAX_LENGTH),
        Field(description="For the certificate; it should not name the subject.", examples=["request 2026-117"]),
    ]


class TrainedModelOut(AnswerModel):
    """A model version that pins a snapshot which held rows of the subject."""

    model: str
    version: int
    snapshot: str
    environments: list[str]


class ErasureOut(AnswerModel):
    """An erasure; `missing` says what is still to be done."""

    id: str
    keys: list[str]
    salt: str
    subject_hash: str
    reason: str
    state: str
    until: Time
    rows_removed: int
    missing: list[str]
    models: list[TrainedModelOut]
    requested_by: str
    requested_at: Time
    finished_at: Time | None


class CertificateOut(AnswerModel):
    """A signed certificate: see the reference of formats."""

    format: str
    version: int
    key_id: str
    payload: str
    signature: str

    @classmethod
    def of(cls, envelope: Any) -> CertificateOut:
        """Render an envelope."""
        return cls.model_validate(dict(envelope))
