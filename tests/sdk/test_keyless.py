"""A CI job signs as itself, and what it signed counts at the gate and on load when its sigstore instance is gone."""

from __future__ import annotations

import base64
import copy
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from fairlead.core.errors import GateRefused, InvalidInput, NotSigned, SignerNotTrusted
from fairlead.core.signatures import Statement
from tests.acceptance.command_line import write_folder
from tests.running_server import running_server
from tests.servers.identity_issuer import loopback_issuer
from tests.servers.sigstore_instance import sigstore_instance

LABELS = {"owner": "ana", "team": "growth", "cost_centre": "cc-42"}
JOB = "https://github.com/acme/churn/.github/workflows/release.yml@refs/heads/main"
FORK = "https://github.com/eve/churn/.github/workflows/release.yml@refs/heads/main"


@pytest.mark.timeout(120)
def test_what_a_job_signed_counts_at_the_gate_and_on_load(tmp_path: Path, migrated_database_url: str) -> None:
    now = datetime.now(UTC)
    with running_server(tmp_path, migrated_database_url, has_worker=True) as server, server.connect() as client:
        server.service.ensure_embedded_locations(["aws:us-east-1"])
        for number in (b"1", b"2"):
            folder = write_folder(tmp_path / number.decode(), {"weights.bin": number})
            client.models.register("churn", folder, labels=LABELS)
        spec: dict[str, Any] = {"match": {"environments": ["production"]}, "signatures": {"signers": ["ci"]}}
        client.promotion_policies.apply("signed", spec)
        with loopback_issuer() as issuer, loopback_issuer() as other, sigstore_instance(issuer, other) as instance:
            config = json.dumps(instance.trust_config)
            signer = {"identity": JOB, "issuer": issuer.url, "trusted_root": instance.trusted_root}
            client.signers.add("ci", signer)
            with pytest.raises(GateRefused, match="0 of 1 signatures of ci count"):
                client.models.promote("churn/1", "production")
            for by, subject in ((issuer, FORK), (other, JOB)):
                token = by.token(now, audience="sigstore", sub=subject)
                with pytest.raises(SignerNotTrusted, match=f"a certificate for {subject} by {by.url}"):
                    client.signatures.sign_as_identity("churn/1", token, config)
            assert list(client.signatures.list("churn/1")) == []
            token = issuer.token(now, audience="sigstore", sub=JOB)
            logged = len(instance.entries)
            rehearsed = client.dry_run().signatures.sign_as_identity("churn/1", token, config)
            assert (rehearsed.sequence, len(instance.entries)) == (1, logged)
            kept = client.signatures.sign_as_identity("churn/1", token, config)
        assert (kept.signer, kept.sequence, kept.refusal) == ("ci", 1, None)

        # From here on there is neither an issuer nor an instance.
        assert client.models.promote("churn/1", "production").state == "APPLIED"
        client.models.download("churn@production", tmp_path / "copy", verify="signed")
        assert (tmp_path / "copy" / "weights.bin").read_bytes() == b"1"
        # That it is no MLflow model is found out only once it is here.
        with pytest.raises(InvalidInput, match="not an MLflow model"):
            client.models.load("churn@production", verify="signed")
        with pytest.raises(GateRefused):
            client.models.promote("churn/2", "production")
        with pytest.raises(NotSigned):
            client.models.load("churn/2", verify="signed")

        # Neither does what was made for one version serve another, nor what was changed.
        handed_in = f"{server.url}/api/v1/models/churn/versions/2/signatures"
        bearer = {"authorization": f"Bearer {server.token}"}
        digest = client.models.resolve("churn/2").artifact_digest
        statement = Statement(model="churn", version=2, digest=digest or "", sequence=2)
        changed: Any = copy.deepcopy(kept.envelope)
        changed["dsseEnvelope"]["payload"] = base64.b64encode(statement.to_bytes()).decode()
        for bundle, refusal in ((kept.envelope, "signature-replayed"), (changed, "signer-not-trusted")):
            answer = httpx2.post(handed_in, json={"envelope": bundle}, headers=bearer)
            assert (answer.status_code, answer.json()["type"]) == (422, f"urn:fairlead:error:{refusal}")

        client.signers.revoke("ci", reason="The repository was taken over.")
        with pytest.raises(SignerNotTrusted, match="was revoked"):
            client.models.load("churn/1", verify="signed")
