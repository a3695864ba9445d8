from __future__ import annotations

import base64
import copy
from datetime import timedelta
from typing import Any

import pytest

from fairlead.core.errors import (
    Conflict,
    GateRefused,
    InvalidInput,
    NotReady,
    SignatureInvalid,
    SignatureReplayed,
    SignerNotFound,
    SignerNotTrusted,
    StaleRevision,
)
from fairlead.core.signatures import SignaturePolicy, Statement, create_key, read_private_key, sign
from fairlead.registry.audit import AuditLog
from fairlead.registry.idempotency import IdempotencyKey
from fairlead.registry.paging import PageRequest
from fairlead.registry.promotion_policies import PromotionPolicies
from fairlead.registry.promotion_policy import ExpressionGate, PromotionPolicy
from fairlead.registry.promotion_record import APPLIED
from fairlead.registry.signers import Signer, SignerDraft, Signers
from fairlead.registry.tables_signatures import VersionSignatureRow
from fairlead.registry.version_registration import VersionDraft
from fairlead.registry.version_signatures import VersionSignature, VersionSignatures
from tests.record_world import World, run_together

PRIVATE, PUBLIC = create_key("ecdsa-p256")
KEY, OTHER = read_private_key(PRIVATE), read_private_key(create_key()[0])


def signers(world: World) -> Signers:
    return Signers(world.database, world.clock)


def signatures(world: World) -> VersionSignatures:
    return VersionSignatures(world.database, world.clock)


def trust(world: World, name: str = "release", **parts: Any) -> Signer:
    wanted: dict[str, Any] = {"public_key": PUBLIC.decode(), **parts}
    draft = SignerDraft(**wanted)
    return signers(world).put(world.owner, name, draft, expected_revision=None)


def signed(world: World, version: int = 1, model: str = "churn", key: Any = KEY) -> VersionSignature:
    statement = signatures(world).statement(world.owner, model, version)
    return signatures(world).record(world.owner, model, version, sign(statement, key))


@pytest.fixture
def churn(world: World) -> World:
    """The model `churn` with two versions, and the trusted signer `release`."""
    world.model()
    world.version()
    world.version()
    trust(world, models=("churn*",))
    return world


def test_a_signature_that_counts_is_kept_as_it_came(churn: World) -> None:
    statement = signatures(churn).statement(churn.owner, "churn", 1)
    assert statement.sequence == 1
    envelope = sign(statement, KEY)
    kept = signatures(churn).record(churn.owner, "churn", 1, envelope)
    assert (kept.signer, kept.sequence, kept.envelope, kept.refusal) == ("release", 1, envelope, None)
    assert signatures(churn).statement(churn.owner, "churn", 2).sequence == 2
    assert signatures(churn).list(churn.owner, "churn", 1, PageRequest()).items == (kept,)
    events = AuditLog(churn.database).list(churn.owner, PageRequest(), action="version.sign").items
    assert [event.facts["signer"] for event in events] == ["release"]


def test_a_signature_of_another_version_model_or_sequence_is_refused(churn: World) -> None:
    churn.model("churn-2")
    churn.version("churn-2")
    first = sign(signatures(churn).statement(churn.owner, "churn", 1), KEY)
    for model, version in [("churn", 2), ("churn-2", 1)]:
        with pytest.raises(SignatureReplayed):
            signatures(churn).record(churn.owner, model, version, first)
    signatures(churn).record(churn.owner, "churn", 1, first)
    with pytest.raises(SignatureReplayed) as refused:
        signatures(churn).record(churn.owner, "churn", 1, first)
    assert refused.value.attributes["sequence"] == 1


def test_a_signature_over_other_bytes_is_refused(churn: World) -> None:
    statement = Statement(model="churn", version=1, digest=f"sha256:{'0' * 64}", sequence=1)
    with pytest.raises(SignatureReplayed):
        signatures(churn).record(churn.owner, "churn", 1, sign(statement, KEY))


def test_what_nobody_trusted_signed_is_refused(churn: World) -> None:
    with pytest.raises(SignerNotTrusted):
        signed(churn, key=OTHER)
    churn.model("fraud")
    churn.version("fraud")
    with pytest.raises(SignerNotTrusted, match="release does not sign for fraud"):
        signed(churn, model="fraud")
    envelope = sign(signatures(churn).statement(churn.owner, "churn", 1), KEY)
    twice = {**envelope, "payload": base64.b64encode(b'{"_type":1,"_type":1}').decode()}
    broken_ones: list[dict[str, Any]] = [
        twice,
        {"payload": 1},
        {},
        {"payloadType": "text", "payload": "", "signatures": []},
    ]
    for broken in broken_ones:
        with pytest.raises(SignatureInvalid):
            signatures(churn).record(churn.owner, "churn", 1, broken)


def test_a_version_without_verified_bytes_is_not_signed(churn: World) -> None:
    churn.versions.register(churn.owner, "churn", VersionDraft(upload_id=churn.upload()))
    with pytest.raises(NotReady):
        signatures(churn).statement(churn.owner, "churn", 3)


def test_keys_rotate_with_an_overlap(churn: World) -> None:
    later = churn.clock.now() + timedelta(days=10)
    trust(churn, models=("churn*",), not_after=later)
    private, public = create_key()
    new = read_private_key(private)
    trust(churn, "release-2", public_key=public.decode(), not_before=churn.clock.now())
    assert (signed(churn).signer, signed(churn, key=new).signer) == ("release", "release-2")
    churn.clock.advance(timedelta(days=11))
    with pytest.raises(SignerNotTrusted, match="was trusted only until"):
        signed(churn, 2)
    # What was signed while it was trusted goes on counting.
    assert [each.refusal for each in signatures(churn).list(churn.owner, "churn", 1, PageRequest()).items] == [None] * 2


def test_nothing_of_a_revoked_signer_counts(churn: World) -> None:
    signed(churn)
    revoked = signers(churn).revoke(churn.owner, "release", reason="Lost.")
    assert signers(churn).revoke(churn.owner, "release").revision == revoked.revision
    (kept,) = signatures(churn).list(churn.owner, "churn", 1, PageRequest()).items
    assert "was revoked" in (kept.refusal or "")
    with pytest.raises(Conflict, match="revoked"):
        trust(churn)


def test_a_signer_keeps_its_key_and_its_revision(churn: World) -> None:
    same = trust(churn, models=("churn*",))
    assert same.revision == 1
    assert trust(churn).revision == 2
    with pytest.raises(Conflict, match="a name keeps its key"):
        trust(churn, public_key=create_key()[1].decode())
    with pytest.raises(StaleRevision):
        signers(churn).put(churn.owner, "release", SignerDraft(public_key=PUBLIC.decode()), expected_revision=1)
    with pytest.raises(SignerNotFound):
        signers(churn).get(churn.owner, "nobody")
    mixed: dict[str, Any] = {"public_key": PUBLIC.decode(), "identity": "a", "issuer": "b"}
    wrongs: list[dict[str, Any]] = [{}, {"public_key": "x"}, mixed]
    for wrong in wrongs:
        with pytest.raises(InvalidInput):
            signers(churn).put(churn.owner, "wrong", SignerDraft(**wrong), expected_revision=None)


def test_of_two_that_sign_at_once_each_gets_a_sequence_of_its_own(churn: World) -> None:
    statement = signatures(churn).statement(churn.owner, "churn", 1)
    envelope = sign(statement, KEY)
    outcomes = run_together(*[lambda: signatures(churn).record(churn.owner, "churn", 1, envelope)] * 2)
    assert sorted(type(each).__name__ for each in outcomes) == ["SignatureReplayed", "VersionSignature"]


def test_handing_in_a_signature_twice_under_one_key_gives_one(churn: World) -> None:
    envelope = sign(signatures(churn).statement(churn.owner, "churn", 1), KEY)
    key = IdempotencyKey(key="once", request_sha256="0" * 64)
    first = signatures(churn).record(churn.owner, "churn", 1, envelope, key=key)
    assert signatures(churn).record(churn.owner, "churn", 1, envelope, key=key) == first


def test_a_policy_asks_for_signatures(churn: World) -> None:
    policy = PromotionPolicy(
        gates=(ExpressionGate(name="signed", expression='signature_verified && "release" in signatures'),),
        signatures=SignaturePolicy(count=1, signers=("rel*",)),
    )
    PromotionPolicies(churn.database, churn.clock).put(churn.owner, "signed", policy, expected_revision=None)

    def ask() -> Any:
        return churn.promotions.request(churn.owner, "churn", 1, "production", expected_revision=0)

    with pytest.raises(GateRefused) as refused:
        ask()
    gates: Any = refused.value.attributes["plan"]
    verdicts = {gate["gate"]: gate for gate in gates["gates"]}
    assert verdicts["signatures"]["detail"] == "0 of 1 signatures of rel* count."
    assert "fairlead model sign churn/1" in verdicts["signatures"]["next_step"]
    signed(churn)
    done = ask()
    assert done.state == APPLIED
    detail = next(gate["detail"] for gate in done.plan["gates"] if gate["gate"] == "signatures")
    assert detail == "1 of 1 signatures of rel* count: release (sequence 1)."


def test_a_signature_that_was_changed_in_the_database_counts_no_longer(churn: World) -> None:
    policy = PromotionPolicy(signatures=SignaturePolicy())
    PromotionPolicies(churn.database, churn.clock).put(churn.owner, "signed", policy, expected_revision=None)
    kept = signed(churn)
    with churn.database.write() as session:
        row = session.get_one(VersionSignatureRow, (churn.owner.workspace_id, kept.id))
        envelope = copy.deepcopy(dict(row.envelope))
        other = sign(Statement(model="a", version=1, digest=kept.artifact_digest, sequence=1), KEY)
        envelope["signatures"] = other["signatures"]
        row.envelope = envelope
    with pytest.raises(GateRefused):
        churn.promotions.request(churn.owner, "churn", 1, "production", expected_revision=0)


def test_signers_and_signatures_over_http(churn: World) -> None:
    with churn.http() as http:
        assert http.get("/api/v1/signers").json()["items"][0]["name"] == "release"
        statement = http.get("/api/v1/models/churn/versions/1/statement").json()
        envelope = sign(Statement(**statement), KEY)
        path = "/api/v1/models/churn/versions/1/signatures"
        assert http.post(path, json={"envelope": envelope}).status_code == 201
        again = http.post(path, json={"envelope": envelope})
        assert (again.status_code, again.json()["type"]) == (422, "urn:fairlead:error:signature-replayed")
        assert http.post("/api/v1/signers/release/revoke", json={"reason": "x"}).json()["revoked_at"] is not None
        assert "revoked" in http.get(path).json()["items"][0]["refusal"]
