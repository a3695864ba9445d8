from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.errors import FairleadError, InvalidInput, NotSigned, SignatureInvalid, SignatureReplayed
from fairlead.core.ids import sha256_digest
from fairlead.core.signatures import (
    CountedSignature,
    RecordedSignature,
    SignaturePolicy,
    Statement,
    TrustedSigner,
    check_signature,
    count_signatures,
    create_key,
    parse_public_key,
    read_private_key,
    read_statement,
    require_signatures,
    sign,
)

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "signatures.md"
STATEMENT = Statement(model="churn", version=3, digest=sha256_digest(b""), sequence=7)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def test_the_test_vector_is_what_is_signed_and_what_verifies() -> None:
    page = PAGE.read_text(encoding="utf-8")
    payload, envelope = re.findall(r"^```json\n(.*?)\n```$", page, re.MULTILINE | re.DOTALL)
    public = re.findall(r"^-----BEGIN.*?END PUBLIC KEY-----$", page, re.MULTILINE | re.DOTALL)[0]
    assert STATEMENT.to_bytes().decode() == payload
    assert sign(STATEMENT, KEY) == json.loads(envelope)
    found = check_signature(
        RecordedSignature(envelope=json.loads(envelope)),
        [TrustedSigner(name="release", public_key=public)],
        model="churn",
        version=3,
        digest=STATEMENT.digest,
    )
    assert found == CountedSignature(signer="release", sequence=7)


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa-p256"])
def test_only_the_key_that_signed_verifies(kind: Any) -> None:
    private, public = create_key(kind, passphrase=b"secret")
    envelope = sign(STATEMENT, read_private_key(private, passphrase=b"secret"))
    signers = [TrustedSigner(name="ours", public_key=public.decode())]
    asked: Any = {"model": "churn", "version": 3, "digest": STATEMENT.digest}
    assert check_signature(RecordedSignature(envelope=envelope), signers, **asked).signer == "ours"
    other = [TrustedSigner(name="theirs", public_key=create_key(kind)[1].decode())]
    with pytest.raises(NotSigned):
        check_signature(RecordedSignature(envelope=envelope), other, **asked)
    with pytest.raises(InvalidInput):
        read_private_key(private, passphrase=b"wrong")
    with pytest.raises(InvalidInput):
        parse_public_key(private.decode())


_ENVELOPE = json.dumps(sign(STATEMENT, KEY)).encode()


@given(st.integers(0, len(_ENVELOPE) - 1), st.integers(1, 255))
def test_an_envelope_that_was_changed_anywhere_counts_for_nothing_else(place: int, flip: int) -> None:
    changed = bytearray(_ENVELOPE)
    changed[place] ^= flip
    try:
        envelope = json.loads(changed)
    except ValueError:
        return
    signers = [TrustedSigner(name="release", public_key=_public())]
    try:
        asked: Any = {"model": "churn", "version": 3, "digest": STATEMENT.digest}
        check_signature(RecordedSignature(envelope=envelope), signers, **asked)
    except FairleadError:
        return
    # Only the hint beside the signature may differ.
    assert read_statement(envelope) == STATEMENT


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_what_is_no_envelope_is_refused(thing: Any) -> None:
    for envelope in ({"payload": thing}, {"mediaType": "application/vnd.dev.sigstore.bundle", "dsseEnvelope": thing}):
        with pytest.raises(SignatureInvalid):
            read_statement(envelope)


def test_the_newest_signature_of_each_signer_counts_and_none_older_than_was_seen() -> None:
    signers = [TrustedSigner(name="release", public_key=_public())]
    signatures = [
        RecordedSignature(envelope=sign(Statement(model="churn", version=3, digest=STATEMENT.digest, sequence=n), KEY))
        for n in (2, 5, 4)
    ]
    counted, refused = count_signatures(signatures, signers, model="churn", version=3, digest=STATEMENT.digest)
    assert ([each.sequence for each in counted.values()], refused) == ([5], [])
    policy = SignaturePolicy()
    assert require_signatures(policy, counted, [], reference="churn/3", seen={"release": 5, "other": 9})
    with pytest.raises(SignatureReplayed):
        require_signatures(policy, counted, [], reference="churn/3", seen={"release": 6})
    with pytest.raises(NotSigned):
        require_signatures(SignaturePolicy(count=2), counted, [], reference="churn/3")
    with pytest.raises(NotSigned):
        require_signatures(SignaturePolicy(signers=("ci*",)), counted, [], reference="churn/3")


def _public() -> str:
    page = PAGE.read_text(encoding="utf-8")
    return re.findall(r"^-----BEGIN.*?END PUBLIC KEY-----$", page, re.MULTILINE | re.DOTALL)[0]
