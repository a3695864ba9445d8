from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fairlead.core.errors import InvalidInput, SignerNotTrusted
from fairlead.core.ids import sha256_digest
from fairlead.core.keyless import parse_trusted_root, sign_as_identity
from fairlead.core.signatures import (
    BUNDLE_MEDIA_TYPE,
    RecordedSignature,
    Statement,
    TrustedSigner,
    check_signature,
    sign,
)

STATEMENT = Statement(model="churn", version=3, digest=sha256_digest(b""), sequence=7)
ROOT: dict[str, Any] = {"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}


def test_a_bundle_that_no_trusted_instance_made_counts_for_nothing() -> None:
    bundle = {
        "mediaType": f"{BUNDLE_MEDIA_TYPE}.v0.3+json",
        "dsseEnvelope": sign(STATEMENT, Ed25519PrivateKey.generate()),
    }
    signer = TrustedSigner(name="ci", identity="ana@acme.example", issuer="https://issuer.example", trusted_root=ROOT)
    with pytest.raises(SignerNotTrusted):
        check_signature(RecordedSignature(envelope=bundle), [signer], model="churn", version=3, digest=STATEMENT.digest)


def test_what_is_no_trusted_root_or_configuration_is_refused() -> None:
    for document in ({}, ROOT, {"mediaType": "x"}):
        with pytest.raises(InvalidInput):
            parse_trusted_root(document)
    for config in ("", "{}", "[]"):
        with pytest.raises(InvalidInput):
            sign_as_identity(STATEMENT, "token", config)
