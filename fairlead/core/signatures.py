"""Signatures of model versions: an in-toto statement in a DSSE envelope, made where the private key is.

A statement names one version of one model, the digest of its manifest (so every byte of its files) and a sequence that
grows with each signature of the model. So a signature counts for nothing else: not for another version, nor another
model, nor other bytes; and an older one of the same version cannot be put back in the place of a newer one.

    payload   = canonical JSON of the statement (in-toto Statement v1)
    signed    = "DSSEv1" SP length of type SP type SP length of payload SP payload
    envelope  = {"payload": base64, "payloadType": type, "signatures": [{"keyid": ..., "sig": base64}]}

A key is Ed25519 or ECDSA over P-256 (with SHA-256, in DER). `keyless` has signatures of identities, whose envelope lies
in a sigstore bundle. Everything fails closed: what is not understood is refused.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, cast

from fairlead.core.canonical import canonical_json
from fairlead.core.clock import format_time
from fairlead.core.errors import (
    FairleadError,
    InvalidInput,
    JsonValue,
    NotSigned,
    SignatureInvalid,
    SignatureReplayed,
    SignerNotTrusted,
)
from fairlead.core.ids import digest_hex, parse_digest, parse_name

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    PrivateKey = Ed25519PrivateKey | EllipticCurvePrivateKey
    PublicKey = Ed25519PublicKey | EllipticCurvePublicKey

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:fairlead:model-version:v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
BUNDLE_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle"
ENVELOPE_MAX_BYTES = 64 * 1024
SEQUENCE_MAX = 2**53 - 1

KeyKind = Literal["ed25519", "ecdsa-p256"]
Envelope = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What is signed: that `digest` is the manifest of a version, as the `sequence`th signature of its model."""

    model: str
    version: int
    digest: str
    sequence: int

    def to_bytes(self) -> bytes:
        """The payload. Equal statements give equal bytes."""
        return canonical_json(
            {
                "_type": STATEMENT_TYPE,
                "subject": [
                    {
                        "name": f"{self.model}/{self.version}",
                        "digest": {"sha256": digest_hex(parse_digest(self.digest))},
                    }
                ],
                "predicateType": PREDICATE_TYPE,
                "predicate": {"model": self.model, "version": self.version, "sequence": self.sequence},
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedSigner:
    """Whose signatures count: a public key (PEM), or an identity that an issuer vouched for.

    `models` are patterns; none means every model. What was recorded before `not_before` or after `not_after` does not
    count, and nothing does once it is revoked. An identity needs the `trusted_root` of its sigstore instance.
    """

    name: str
    public_key: str | None = None
    identity: str | None = None
    issuer: str | None = None
    trusted_root: Mapping[str, Any] | None = None
    models: tuple[str, ...] = ()
    not_before: datetime | None = None
    not_after: datetime | None = None
    revoked_at: datetime | None = None

    def refusal(self, model: str, at: datetime | None) -> str | None:
        """Why a signature for a model that was recorded at a time does not count; None where it does."""
        if self.revoked_at is not None:
            return f"{self.name} was revoked at {format_time(self.revoked_at)}"
        if self.models and not any(fnmatchcase(model, pattern) for pattern in self.models):
            return f"{self.name} does not sign for {model}"
        if at is not None and self.not_before is not None and at < self.not_before:
            return f"{self.name} is trusted only from {format_time(self.not_before)}"
        if at is not None and self.not_after is not None and at > self.not_after:
            return f"{self.name} was trusted only until {format_time(self.not_after)}"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedSignature:
    """An envelope and when the record took it; None where nobody says so."""

    envelope: Envelope
    recorded_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedSignature:
    """A signature that counts: whose it is, and its sequence."""

    signer: str
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SignaturePolicy:
    """How many different signers must have signed, and which ones (patterns of their names; none: any trusted one)."""

    count: int = 1
    signers: tuple[str, ...] = ()

    def admits(self, signer: str) -> bool:
        """Whether a signer is one of those asked for."""
        return not self.signers or any(fnmatchcase(signer, pattern) for pattern in self.signers)


def sign(statement: Statement, private_key: PrivateKey) -> dict[str, Any]:
    """The envelope of a statement."""
    return sign_payload(statement.to_bytes(), private_key)


def sign_payload(payload: bytes, private_key: PrivateKey) -> dict[str, Any]:
    """The envelope of any statement's bytes."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    signed = pre_authentication_encoding(PAYLOAD_TYPE, payload)
    if isinstance(private_key, Ed25519PrivateKey):
        signature = private_key.sign(signed)
    else:
        signature = private_key.sign(signed, _ecdsa())
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [
            {"keyid": key_id_of(private_key.public_key()), "sig": base64.b64encode(signature).decode()},
        ],
    }


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """The bytes that are signed, as DSSE says."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def read_statement(envelope: Envelope) -> Statement:
    """What an envelope says, whoever signed it.

    Raises:
        SignatureInvalid: if it is no envelope of such a statement.
    """
    _, statement = _open(envelope)
    return statement


def check_signature(
    signature: RecordedSignature,
    signers: Iterable[TrustedSigner],
    *,
    model: str,
    version: int,
    digest: str,
) -> CountedSignature:
    """Whose signature it is, if it counts for a version.

    Raises:
        SignatureInvalid: if it is no envelope, or does not verify under the key that it names.
        SignatureReplayed: if it was made for another version, model or other bytes.
        SignerNotTrusted: if none of the signers made it, or the one who did does not count here and then.
    """
    payload, statement = _open(signature.envelope)
    said = (statement.model, statement.version, statement.digest)
    if said != (model, version, digest):
        raise SignatureReplayed(
            f"The signature is for {statement.model}/{statement.version} of {statement.digest}, not for "
            f"{model}/{version} of {digest}.",
            hint=f"Sign the version itself: fairlead model sign {model}/{version} --key FILE",
        )
    refused: list[str] = []
    for signer in signers:
        try:
            if not _is_signed_by(signature.envelope, payload, signer):
                continue
        except SignatureInvalid as error:
            refused.append(error.detail)
            continue
        reason = signer.refusal(model, signature.recorded_at)
        if reason is None:
            return CountedSignature(signer=signer.name, sequence=statement.sequence)
        refused.append(reason)
    raise SignerNotTrusted(
        f"The signature of {model}/{version} does not count: "
        f"{'; '.join(refused) or f'nobody who is trusted made it ({_whose(signature.envelope)})'}.",
        hint="See whose signatures count: fairlead signer list",
    )


def count_signatures(
    signatures: Iterable[RecordedSignature],
    signers: Sequence[TrustedSigner],
    *,
    model: str,
    version: int,
    digest: str,
) -> tuple[dict[str, CountedSignature], list[FairleadError]]:
    """By signer the newest signature that counts for a version, and why the others do not."""
    counted: dict[str, CountedSignature] = {}
    refused: list[FairleadError] = []
    for signature in signatures:
        try:
            found = check_signature(signature, signers, model=model, version=version, digest=digest)
        except FairleadError as error:
            refused.append(error)
            continue
        known = counted.get(found.signer)
        if known is None or known.sequence < found.sequence:
            counted[found.signer] = found
    return dict(sorted(counted.items())), refused


def require_signatures(
    policy: SignaturePolicy,
    counted: Mapping[str, CountedSignature],
    refused: Sequence[FairleadError],
    *,
    reference: str,
    seen: Mapping[str, int] | None = None,
) -> tuple[CountedSignature, ...]:
    """The signatures that a policy asks for.

    Raises:
        SignatureReplayed: if a signer's newest one is older than one that was seen before (`seen`, by signer).
        NotSigned: if there are too few of them; where one was refused and none counts, the refusal itself.
    """
    admitted = tuple(each for each in counted.values() if policy.admits(each.signer))
    if len(admitted) < policy.count:
        if refused and not counted:
            raise refused[0]
        asked = f" by {' or '.join(policy.signers)}" if policy.signers else ""
        has = f"has {len(admitted)} of {policy.count} signatures{asked} that count" if counted else "is not signed"
        raise NotSigned(
            f"{reference} {has}.",
            hint=f"Whoever answers for it signs it: fairlead model sign {reference} --key FILE",
            reference=reference,
        )
    for each in admitted:
        before = (seen or {}).get(each.signer, 0)
        if each.sequence < before:
            raise SignatureReplayed(
                f"The newest signature of {reference} by {each.signer} is of sequence {each.sequence}; {before} was "
                "seen before.",
                hint=f"Somebody put an old one back. Compare with: fairlead model signatures {reference}",
                reference=reference,
            )
    return admitted


def create_key(kind: KeyKind = "ed25519", *, passphrase: bytes | None = None) -> tuple[bytes, bytes]:
    """A new private key (PKCS #8, encrypted where there is a passphrase) and its public key, both PEM."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key: PrivateKey = Ed25519PrivateKey.generate() if kind == "ed25519" else ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption() if passphrase is None else serialization.BestAvailableEncryption(passphrase),
    )
    return private, _public_pem(key.public_key())


def read_private_key(pem: bytes, *, passphrase: bytes | None = None) -> PrivateKey:
    """Read a private key.

    Raises:
        InvalidInput: if it is none of the two kinds, or the passphrase does not open it.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidInput(
            "The private key cannot be read.",
            hint="Give a PEM file (PKCS #8), with --passphrase-file FILE if it is encrypted.",
        ) from None
    is_p256 = isinstance(key, EllipticCurvePrivateKey) and key.curve.name == "secp256r1"
    if not is_p256 and not isinstance(key, Ed25519PrivateKey):
        raise _other_kind()
    return cast("PrivateKey", key)


def parse_public_key(pem: str) -> tuple[str, str]:
    """A public key in the one form in which it is kept (PEM), and its id.

    Raises:
        InvalidInput: if it is none of the two kinds.
    """
    key = _read_public_key(pem)
    return _public_pem(key).decode(), key_id_of(key)


def key_id_of(key: PublicKey) -> str:
    """The sha256 of a public key's DER form (SubjectPublicKeyInfo), hexadecimal."""
    from cryptography.hazmat.primitives import serialization

    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def is_bundle(envelope: Envelope) -> bool:
    """Whether an envelope lies in a sigstore bundle: an identity signed it."""
    return str(envelope.get("mediaType", "")).startswith(BUNDLE_MEDIA_TYPE)


def _open(envelope: Envelope) -> tuple[bytes, Statement]:
    try:
        inner = cast("Envelope", envelope["dsseEnvelope"]) if is_bundle(envelope) else envelope
        if inner["payloadType"] != PAYLOAD_TYPE or not inner["signatures"]:
            raise ValueError("another type")  # noqa: TRY301  (one answer to all that is wrong)
        payload = base64.b64decode(cast("str", inner["payload"]), validate=True)
        return payload, _parse_statement(payload)
    except (KeyError, ValueError, TypeError, RecursionError, AttributeError, InvalidInput):
        raise SignatureInvalid(
            "This is no DSSE envelope of a statement about a model version.",
            hint=f"Its predicate type is {PREDICATE_TYPE}; sign with: fairlead model sign NAME/VERSION --key FILE",
        ) from None


def _parse_statement(payload: bytes) -> Statement:
    record = cast("dict[str, Any]", json.loads(payload, object_pairs_hook=_each_once))
    predicate = cast("dict[str, Any]", record["predicate"])
    (subject,) = cast("list[dict[str, Any]]", record["subject"])
    version, sequence = predicate["version"], predicate["sequence"]
    if not (type(version) is int and type(sequence) is int and version > 0 and 0 < sequence <= SEQUENCE_MAX):
        raise ValueError
    statement = Statement(
        model=parse_name(cast("str", predicate["model"])),
        version=version,
        digest=parse_digest(f"sha256:{subject['digest']['sha256']}"),
        sequence=sequence,
    )
    # Whoever else reads it sees nothing that was not understood here.
    if record != json.loads(statement.to_bytes()):
        raise ValueError
    return statement


def _each_once(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is there twice")
    return members


def _is_signed_by(envelope: Envelope, payload: bytes, signer: TrustedSigner) -> bool:
    if signer.public_key is None:
        if not is_bundle(envelope):
            return False
        from fairlead.core.keyless import is_signed_by_identity

        return is_signed_by_identity(envelope, signer, payload)
    if is_bundle(envelope):
        return False
    key = _read_public_key(signer.public_key)
    signed = pre_authentication_encoding(PAYLOAD_TYPE, payload)
    return any(_verifies(key, signature, signed) for signature in cast("list[Any]", envelope["signatures"]))


def _verifies(key: PublicKey, signature: Any, signed: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        raw = base64.b64decode(signature["sig"], validate=True)
        if isinstance(key, Ed25519PublicKey):
            key.verify(raw, signed)
        else:
            key.verify(raw, signed, _ecdsa())
    except (InvalidSignature, KeyError, ValueError, TypeError):
        return False
    return True


def _whose(envelope: Envelope) -> str:
    if is_bundle(envelope):
        from fairlead.core.keyless import claimed_identity

        return f"a certificate for {claimed_identity(envelope)}"
    ids = [str(each.get("keyid", ""))[:16] for each in envelope["signatures"] if isinstance(each, dict)]
    return f"key {', '.join(ids)}"


def _read_public_key(pem: str) -> PublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidInput(
            "The public key cannot be read.", hint="Give a PEM file that begins with -----BEGIN PUBLIC KEY-----."
        ) from None
    is_p256 = isinstance(key, EllipticCurvePublicKey) and key.curve.name == "secp256r1"
    if not is_p256 and not isinstance(key, Ed25519PublicKey):
        raise _other_kind()
    return cast("PublicKey", key)


def _public_pem(key: PublicKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _ecdsa() -> Any:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.ECDSA(hashes.SHA256())


def _other_kind() -> InvalidInput:
    return InvalidInput(
        "The key is neither Ed25519 nor ECDSA over P-256.", hint="Make one: fairlead signer create-key FILE"
    )
