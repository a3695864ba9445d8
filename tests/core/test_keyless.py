"""Signatures of identities: made by an instance on loopback, verified when it is gone."""

from __future__ import annotations

import base64
import copy
import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fairlead.core.errors import InvalidInput, SignatureReplayed, SignerNotTrusted, Unavailable
from fairlead.core.ids import sha256_digest
from fairlead.core.keyless import authorities_of, parse_trusted_root, sign_as_identity
from fairlead.core.signatures import (
    BUNDLE_MEDIA_TYPE,
    RecordedSignature,
    Statement,
    TrustedSigner,
    check_signature,
    sign,
)
from tests.servers.identity_issuer import loopback_issuer
from tests.servers.sigstore_instance import SigstoreInstance, sigstore_instance

STATEMENT = Statement(model="churn", version=3, digest=sha256_digest(b""), sequence=7)
ROOT: dict[str, Any] = {"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}
ANA = "ana@acme.example"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """What an instance that is gone has signed, and whoever is to be believed."""

    bundles: tuple[dict[str, Any], ...]
    late: dict[str, Any]
    ana: TrustedSigner
    other_issuer: str
    other_root: dict[str, Any]
    instance: SigstoreInstance
    token: str


@pytest.fixture(scope="module", params=[1, 2])
def signed(request: pytest.FixtureRequest) -> Signed:
    with (
        loopback_issuer() as issuer,
        loopback_issuer() as other,
        sigstore_instance(issuer, log_version=request.param) as instance,
    ):
        token = issuer.token(datetime.now(UTC), audience="sigstore", sub=ANA)
        config = json.dumps(instance.trust_config)
        bundles = tuple(sign_as_identity(STATEMENT, token, config) for _ in range(3))
        instance.late = timedelta(minutes=11)
        late = sign_as_identity(STATEMENT, token, config)
        instance.late = timedelta(0)
        ana = TrustedSigner(name="ana", identity=ANA, issuer=issuer.url, trusted_root=instance.trusted_root)
    return Signed(
        bundles=bundles,
        late=late,
        ana=ana,
        other_issuer=other.url,
        other_root=SigstoreInstance([], url=instance.url).trusted_root,
        instance=instance,
        token=token,
    )


def check(bundle: dict[str, Any], signer: TrustedSigner, *, version: int = 3, digest: str = STATEMENT.digest) -> str:
    signature = RecordedSignature(envelope=bundle)
    return check_signature(signature, [signer], model="churn", version=version, digest=digest).signer


def test_a_signature_of_an_identity_counts_while_nobody_is_asked(signed: Signed) -> None:
    for bundle in signed.bundles:
        assert check(bundle, signed.ana) == "ana"
        assert check(json.loads(json.dumps(bundle, sort_keys=True)), signed.ana) == "ana"


def test_another_identity_issuer_or_instance_does_not_count(signed: Signed) -> None:
    for others in (
        {"identity": "eve@acme.example"},
        {"identity": "Ana@acme.example"},
        {"issuer": signed.other_issuer},
        {"trusted_root": None},
    ):
        with pytest.raises(SignerNotTrusted, match=f"a certificate for {ANA} by {signed.ana.issuer}"):
            check(signed.bundles[0], replace(signed.ana, **others))
    with pytest.raises(SignerNotTrusted, match="said to be of ana, whose trusted root does not bear it out"):
        check(signed.bundles[0], replace(signed.ana, trusted_root=signed.other_root))


def test_a_signature_is_for_one_version_and_its_bytes(signed: Signed) -> None:
    with pytest.raises(SignatureReplayed):
        check(signed.bundles[0], signed.ana, version=4)
    with pytest.raises(SignatureReplayed):
        check(signed.bundles[0], signed.ana, digest=sha256_digest(b"other"))


def test_a_certificate_that_had_expired_when_it_signed_does_not_count(signed: Signed) -> None:
    with pytest.raises(SignerNotTrusted, match="cert is not valid at validation time"):
        check(signed.late, signed.ana)


def test_what_was_changed_anywhere_does_not_count(signed: Signed) -> None:
    first, second, third = signed.bundles
    entry = ("verificationMaterial", "tlogEntries", 0)
    statement = base64.b64encode(replace(STATEMENT, sequence=8).to_bytes()).decode()
    changes: list[tuple[tuple[str | int, ...], Any]] = [
        (("dsseEnvelope", "payload"), statement),
        (("dsseEnvelope", "signatures"), second["dsseEnvelope"]["signatures"]),
        (("verificationMaterial", "certificate"), second["verificationMaterial"]["certificate"]),
        (("verificationMaterial", "tlogEntries"), second["verificationMaterial"]["tlogEntries"]),
        (("verificationMaterial", "tlogEntries"), []),
        ((*entry, "inclusionProof", "hashes"), [base64.b64encode(b"\0" * 32).decode()] * 2),
        ((*entry, "inclusionProof", "rootHash"), base64.b64encode(b"\0" * 32).decode()),
        ((*entry, "inclusionProof", "checkpoint"), None),
        (("mediaType",), f"{BUNDLE_MEDIA_TYPE}.v9+json"),
    ]
    # Who says when it was signed: the log itself, or an authority beside it.
    if "integratedTime" in third["verificationMaterial"]["tlogEntries"][0]:
        said = int(third["verificationMaterial"]["tlogEntries"][0]["integratedTime"])
        changes += [((*entry, "integratedTime"), str(said - 1)), ((*entry, "inclusionPromise"), None)]
    else:
        times = ("verificationMaterial", "timestampVerificationData")
        changes += [(times, second["verificationMaterial"]["timestampVerificationData"]), (times, None)]
    for path, value in changes:
        changed: Any = copy.deepcopy(third)
        place = changed
        for part in path[:-1]:
            place = place[part]
        assert place[path[-1]] != value
        place[path[-1]] = value
        with pytest.raises(SignerNotTrusted):
            check(changed, signed.ana)
    assert check(first, signed.ana) == "ana"


def test_whom_the_instance_does_not_know_gets_no_signature() -> None:
    now = datetime.now(UTC)
    with loopback_issuer() as issuer, loopback_issuer() as other, sigstore_instance(issuer) as instance:
        config = json.dumps(instance.trust_config)
        assert authorities_of(config) == [instance.url]
        with pytest.raises(InvalidInput, match=r"refused to sign \(400\): .*No issuer that is known"):
            sign_as_identity(STATEMENT, other.token(now, audience="sigstore", sub=ANA), config)
        for wrong in (
            issuer.token(now, audience="https://fairlead.example", sub=ANA),
            issuer.token(now - timedelta(hours=1), audience="sigstore", sub=ANA),
        ):
            with pytest.raises(InvalidInput, match="Identity token"):
                sign_as_identity(STATEMENT, wrong, config)
        assert instance.entries == []


def test_an_instance_that_is_away_or_not_the_trusted_one_signs_nothing(signed: Signed) -> None:
    with pytest.raises(Unavailable, match="did not sign"):
        sign_as_identity(STATEMENT, signed.token, json.dumps(signed.instance.trust_config))
    with loopback_issuer() as issuer, sigstore_instance(issuer) as instance:
        token = issuer.token(datetime.now(UTC), audience="sigstore", sub=ANA)
        config = instance.trust_config | {"trustedRoot": signed.other_root}
        with pytest.raises(Unavailable, match="SCT"):
            sign_as_identity(STATEMENT, token, json.dumps(config))


def test_a_bundle_that_no_trusted_instance_made_counts_for_nothing(signed: Signed) -> None:
    bundle = {
        "mediaType": f"{BUNDLE_MEDIA_TYPE}.v0.3+json",
        "dsseEnvelope": sign(STATEMENT, Ed25519PrivateKey.generate()),
    }
    for root in (ROOT, signed.ana.trusted_root):
        with pytest.raises(SignerNotTrusted, match="a certificate for somebody"):
            check(bundle, replace(signed.ana, trusted_root=root))


def test_what_is_no_trusted_root_or_configuration_is_refused(signed: Signed) -> None:
    assert parse_trusted_root(signed.instance.trusted_root)
    for document in ({}, ROOT, {"mediaType": "x"}):
        with pytest.raises(InvalidInput):
            parse_trusted_root(document)
    for config in ("", "{}", "[]"):
        with pytest.raises(InvalidInput):
            sign_as_identity(STATEMENT, "token", config)
        with pytest.raises(InvalidInput):
            authorities_of(config)
