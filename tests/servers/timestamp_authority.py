"""An authority that says when it saw something (RFC 3161): a token over a digest, as DER."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

_SHA256 = bytes.fromhex("300b0609608648016503040201")
_ECDSA_WITH_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
_SIGNED_DATA = bytes.fromhex("06092a864886f70d010702")
_TIMESTAMP = bytes.fromhex("060b2a864886f70d0109100104")
_CONTENT_TYPE = bytes.fromhex("06092a864886f70d010903")
_MESSAGE_DIGEST = bytes.fromhex("06092a864886f70d010904")
_POLICY = bytes.fromhex("06042a030401")
_INTEGER, _OCTETS, _TIME, _SEQUENCE, _SET, _CONTEXT = 0x02, 0x04, 0x18, 0x30, 0x31, 0xA0


@dataclass(slots=True)
class TimestampAuthority:
    """A key that signs times, and its certificate by `root`, whose key is `root_key`."""

    root: x509.Certificate
    root_key: ec.EllipticCurvePrivateKey
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    certificate: x509.Certificate = field(init=False)

    def __post_init__(self) -> None:
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "timestamps")]))
            .issuer_name(self.root.subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.root.not_valid_before_utc)
            .not_valid_after(self.root.not_valid_after_utc)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), critical=True)
            .sign(self.root_key, hashes.SHA256())
        )

    def stamp(self, query: bytes, late: timedelta) -> bytes:
        """The answer to a query: that its digest was there at this time."""
        # Queries are shorter than 128 bytes, so one byte says how long each part is.
        _, imprint, *more = _parts(query)
        nonces = [each for each in more if each[0] == _INTEGER]
        at = (datetime.now(UTC) + late).strftime("%Y%m%d%H%M%SZ").encode()
        version, serial = _der(_INTEGER, b"\1"), _der(_INTEGER, b"\7")
        seen = _der(_SEQUENCE, version, _POLICY, imprint, serial, _der(_TIME, at), *nonces)
        said = [
            _der(_SEQUENCE, _CONTENT_TYPE, _der(_SET, _TIMESTAMP)),
            _der(_SEQUENCE, _MESSAGE_DIGEST, _der(_SET, _der(_OCTETS, hashlib.sha256(seen).digest()))),
        ]
        signature = self.key.sign(_der(_SET, *said), ec.ECDSA(hashes.SHA256()))
        number = self.certificate.serial_number
        signer = _der(
            _SEQUENCE,
            version,
            _der(
                _SEQUENCE,
                self.certificate.issuer.public_bytes(),
                _der(_INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big")),
            ),
            _SHA256,
            _der(_CONTEXT, *said),
            _ECDSA_WITH_SHA256,
            _der(_OCTETS, signature),
        )
        signed = _der(
            _SEQUENCE,
            _der(_INTEGER, b"\3"),
            _der(_SET, _SHA256),
            _der(_SEQUENCE, _TIMESTAMP, _der(_CONTEXT, _der(_OCTETS, seen))),
            _der(_CONTEXT, self.certificate.public_bytes(serialization.Encoding.DER)),
            _der(_SET, signer),
        )
        granted = _der(_SEQUENCE, _der(_INTEGER, b"\0"))
        return _der(_SEQUENCE, granted, _der(_SEQUENCE, _SIGNED_DATA, _der(_CONTEXT, signed)))


def _der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    size = len(body)
    if size < 0x80:
        return bytes([tag, size]) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + body


def _parts(data: bytes) -> list[bytes]:
    """The values in a short DER value that holds others."""
    inside = data[2:]
    parts: list[bytes] = []
    while inside:
        end = 2 + inside[1]
        parts.append(inside[:end])
        inside = inside[end:]
    return parts
