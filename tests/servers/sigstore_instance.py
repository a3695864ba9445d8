"""A sigstore instance on loopback: Fulcio's certificates and their log, Rekor's log of signatures, and timestamps.

The log of signatures is of version 1, which says itself when it took an entry, or 2, beside which an authority does.

Each checks what it is sent as the real one does: whether an issuer it knows made the token, for the audience
`sigstore`; whether the request proves the private key; whether what is to be logged was signed with the certificate's
key. What it hands out is what a client verifies against `trusted_root`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import struct
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.x509.oid import ExtendedKeyUsageOID
from joserfc import jwt
from joserfc.errors import JoseError

from tests.servers.identity_issuer import LoopbackIssuer, to_answer
from tests.servers.timestamp_authority import TimestampAuthority
from tests.servers.token_services import Answer, Request, serving

LIFETIME = timedelta(minutes=10)
_STARTED = timedelta(days=1)
_SHA256 = ec.ECDSA(hashes.SHA256())
_ISSUER = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_TIMESTAMPS = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")


@dataclass(slots=True)
class SigstoreInstance:
    """Vouches for the subjects of its issuers' tokens. Whatever of it says when something was signed may be `late`."""

    issuers: Sequence[LoopbackIssuer]
    log_version: Literal[1, 2] = 1
    url: str = ""
    late: timedelta = timedelta(0)
    entries: list[bytes] = field(default_factory=list[bytes])
    authority: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    certificate_log: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    signature_log: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    root: x509.Certificate = field(init=False)
    timestamps: TimestampAuthority = field(init=False)

    def __post_init__(self) -> None:
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
        now = datetime.now(UTC)
        self.root = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.authority.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _STARTED)
            .not_valid_after(now + _STARTED)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(key_cert_sign=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.authority.public_key()), critical=False)
            .sign(self.authority, hashes.SHA256())
        )
        self.timestamps = TimestampAuthority(self.root, self.authority)

    @property
    def trusted_root(self) -> dict[str, Any]:
        """What verifiers are given: the authority's certificate and the logs' keys."""
        since = {"start": _time(datetime.now(UTC) - _STARTED)}
        return {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [self._log(self.signature_log, since)],
            "ctlogs": [self._log(self.certificate_log, since)],
            "certificateAuthorities": [self._authority(since, self.root)],
            "timestampAuthorities": [self._authority(since, self.timestamps.certificate, self.root)],
        }

    @property
    def trust_config(self) -> dict[str, Any]:
        """What signers are given: the trusted root, and where to go."""
        here = {
            "url": self.url,
            "majorApiVersion": 1,
            "validFor": {"start": _time(datetime.now(UTC) - _STARTED)},
            "operator": "loopback",
        }
        return {
            "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
            "trustedRoot": self.trusted_root,
            "signingConfig": {
                "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
                "caUrls": [here],
                "rekorTlogUrls": [here | {"majorApiVersion": self.log_version}],
                "rekorTlogConfig": {"selector": "ANY"},
                "tsaUrls": [here | {"url": f"{self.url}/api/v1/timestamp"}] if self.log_version == 2 else [],
                "tsaConfig": {"selector": "ANY"},
            },
        }

    def __call__(self, request: Request) -> Answer:
        """Answer as Fulcio and Rekor do."""
        try:
            if request.path == "/api/v2/signingCert":
                return self._certify(request)
            if request.path == "/api/v1/log/entries":
                return self._enter(json.loads(request.body))
            if request.path == "/api/v2/log/entries":
                return self._enter_digest(json.loads(request.body)["hashedRekordRequestV002"])
            if request.path == "/api/v1/timestamp":
                stamped = self.timestamps.stamp(request.body, self.late)
                return 201, {"Content-Type": "application/timestamp-reply"}, stamped
        except (JoseError, InvalidSignature, ValueError, KeyError) as error:
            return 400, {"Content-Type": "application/json"}, json.dumps({"message": str(error)}).encode()
        return 404, {}, b""

    def _certify(self, request: Request) -> Answer:
        claims, issuer = self._read(request.headers["authorization"].removeprefix("Bearer "))
        asked = json.loads(request.body)["certificateSigningRequest"]
        signing_request = x509.load_pem_x509_csr(base64.b64decode(asked))
        if not signing_request.is_signature_valid:
            raise ValueError("The request does not prove its key.")
        subject = str(claims["sub"])
        who = x509.RFC822Name(subject) if "@" in subject else x509.UniformResourceIdentifier(subject)
        now = datetime.now(UTC)
        draft = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.root.subject)
            .public_key(signing_request.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + LIFETIME)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.authority.public_key()), critical=False
            )
            .add_extension(x509.SubjectAlternativeName([who]), critical=True)
            .add_extension(x509.UnrecognizedExtension(_ISSUER, issuer.encode()), critical=False)
        )
        logged = self._log_certificate(draft.sign(self.authority, hashes.SHA256()), now)
        certificate = draft.add_extension(x509.UnrecognizedExtension(_TIMESTAMPS, logged), critical=False)
        chain = [certificate.sign(self.authority, hashes.SHA256()), self.root]
        pems = [each.public_bytes(serialization.Encoding.PEM).decode() for each in chain]
        return to_answer({"signedCertificateEmbeddedSct": {"chain": {"certificates": pems}}})

    def _read(self, token: str) -> tuple[dict[str, Any], str]:
        """The claims of a token, and who issued it."""
        for issuer in self.issuers:
            for key in issuer.keys:
                with contextlib.suppress(JoseError, ValueError):
                    claims = jwt.decode(token, key).claims
                    jwt.JWTClaimsRegistry(
                        iss={"essential": True, "value": issuer.url},
                        aud={"essential": True, "value": "sigstore"},
                        exp={"essential": True},
                    ).validate(claims)
                    return claims, issuer.url
        raise ValueError("No issuer that is known here made this token.")

    def _log_certificate(self, precertificate: x509.Certificate, now: datetime) -> bytes:
        """The extension that says that a certificate is in the log of certificates (RFC 6962, 3.3)."""
        milliseconds = int(now.timestamp() * 1000)
        issuer = hashlib.sha256(_public_der(self.authority)).digest()
        issued = precertificate.tbs_certificate_bytes
        entry = struct.pack(">BBQH32s", 0, 0, milliseconds, 1, issuer) + len(issued).to_bytes(3, "big") + issued
        signature = self.certificate_log.sign(entry + b"\0\0", _SHA256)
        timestamp = struct.pack(">B32sQHBBH", 0, _log_id(self.certificate_log), milliseconds, 0, 4, 3, len(signature))
        listed = _with_length(_with_length(timestamp + signature))
        return b"\x04" + (bytes([len(listed)]) if len(listed) < 0x80 else bytes([0x81, len(listed)])) + listed

    def _enter(self, proposed: dict[str, Any]) -> Answer:
        """Log the signature of an envelope (`dsse`, 0.0.1)."""
        content = proposed["spec"]["proposedContent"]
        envelope, (verifier,) = json.loads(content["envelope"]), content["verifiers"]
        payload, (signature,) = base64.b64decode(envelope["payload"]), envelope["signatures"]
        kind = envelope["payloadType"]
        certificate = x509.load_pem_x509_certificate(base64.b64decode(verifier))
        signed = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
        key = cast("ec.EllipticCurvePublicKey", certificate.public_key())
        key.verify(base64.b64decode(signature["sig"]), signed, _SHA256)
        body = _canonical(
            {
                "apiVersion": proposed["apiVersion"],
                "kind": proposed["kind"],
                "spec": {
                    "envelopeHash": _hash(content["envelope"].encode()),
                    "payloadHash": _hash(payload),
                    "signatures": [{"signature": signature["sig"], "verifier": verifier}],
                },
            }
        )
        index = self._append(body)
        entry: dict[str, Any] = {
            "body": _base64(body),
            "integratedTime": int((datetime.now(UTC) + self.late).timestamp()),
            "logID": _log_id(self.signature_log).hex(),
            "logIndex": index,
        }
        promise = _base64(self.signature_log.sign(_canonical(entry), _SHA256))
        proof = {
            "logIndex": index,
            "treeSize": len(self.entries),
            "rootHash": _tree_hash(self.entries).hex(),
            "hashes": [each.hex() for each in _inclusion(self.entries, index)],
            "checkpoint": self._checkpoint(),
        }
        verification = {"signedEntryTimestamp": promise, "inclusionProof": proof}
        status, headers, data = to_answer({hashlib.sha256(body).hexdigest(): entry | {"verification": verification}})
        return status + 1, headers, data

    def _enter_digest(self, proposed: dict[str, Any]) -> Answer:
        """Log the signature of a digest (`hashedrekord`, 0.0.2)."""
        signature = proposed["signature"]
        certificate = x509.load_der_x509_certificate(
            base64.b64decode(signature["verifier"]["x509Certificate"]["rawBytes"])
        )
        key = cast("ec.EllipticCurvePublicKey", certificate.public_key())
        digest, content = (base64.b64decode(each) for each in (proposed["digest"], signature["content"]))
        key.verify(content, digest, ec.ECDSA(Prehashed(hashes.SHA256())))
        data = {"algorithm": "SHA2_256", "digest": proposed["digest"]}
        kind = {"kind": "hashedrekord", "version": "0.0.2"}
        body = _canonical(
            {
                "apiVersion": kind["version"],
                "kind": kind["kind"],
                "spec": {"hashedRekordV002": {"data": data, "signature": signature}},
            }
        )
        index = self._append(body)
        proof = {
            "logIndex": str(index),
            "treeSize": str(len(self.entries)),
            "rootHash": _base64(_tree_hash(self.entries)),
            "hashes": [_base64(each) for each in _inclusion(self.entries, index)],
            "checkpoint": {"envelope": self._checkpoint()},
        }
        return to_answer(
            {
                "logIndex": str(index),
                "logId": {"keyId": _base64(_log_id(self.signature_log))},
                "kindVersion": kind,
                "inclusionProof": proof,
                "canonicalizedBody": _base64(body),
            }
        )

    def _append(self, body: bytes) -> int:
        self.entries.append(body)
        return len(self.entries) - 1

    def _checkpoint(self) -> str:
        note = f"loopback\n{len(self.entries)}\n{_base64(_tree_hash(self.entries))}\n"
        signature = _log_id(self.signature_log)[:4] + self.signature_log.sign(note.encode(), _SHA256)
        return f"{note}\n\u2014 loopback {_base64(signature)}\n"

    def _authority(self, since: dict[str, str], *chain: x509.Certificate) -> dict[str, Any]:
        return {
            "subject": {"organization": "loopback", "commonName": "loopback"},
            "uri": self.url,
            "certChain": {"certificates": [{"rawBytes": _base64(_der(each))} for each in chain]},
            "validFor": since,
        }

    def _log(self, key: ec.EllipticCurvePrivateKey, since: dict[str, str]) -> dict[str, Any]:
        return {
            "baseUrl": self.url,
            "hashAlgorithm": "SHA2_256",
            "publicKey": {
                "rawBytes": _base64(_public_der(key)),
                "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                "validFor": since,
            },
            "logId": {"keyId": _base64(_log_id(key))},
        }


@contextlib.contextmanager
def sigstore_instance(*issuers: LoopbackIssuer, log_version: Literal[1, 2] = 1) -> Generator[SigstoreInstance]:
    """An instance while the block runs."""
    instance = SigstoreInstance(issuers, log_version=log_version)
    with serving(instance) as url:
        instance.url = url
        yield instance


def _inclusion(entries: Sequence[bytes], index: int) -> list[bytes]:
    """The hashes that lead from an entry to the tree's (RFC 6962, 2.1.1)."""
    if len(entries) == 1:
        return []
    half = _half(len(entries))
    if index < half:
        return [*_inclusion(entries[:half], index), _tree_hash(entries[half:])]
    return [*_inclusion(entries[half:], index - half), _tree_hash(entries[:half])]


def _tree_hash(entries: Sequence[bytes]) -> bytes:
    if len(entries) == 1:
        return hashlib.sha256(b"\0" + entries[0]).digest()
    half = _half(len(entries))
    return hashlib.sha256(b"\1" + _tree_hash(entries[:half]) + _tree_hash(entries[half:])).digest()


def _half(size: int) -> int:
    """The largest power of two below a size."""
    return 1 << (size - 1).bit_length() - 1


def _key_usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _log_id(key: ec.EllipticCurvePrivateKey) -> bytes:
    return hashlib.sha256(_public_der(key)).digest()


def _public_der(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def _with_length(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def _hash(data: bytes) -> dict[str, str]:
    return {"algorithm": "sha256", "value": hashlib.sha256(data).hexdigest()}


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
