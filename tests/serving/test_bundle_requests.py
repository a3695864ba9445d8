"""Bundles in the record: asked for, built by a worker, kept with their papers, tested, and held by a policy."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fairlead.core.errors import BundleNotFound, ModelNotFound, NotReady, PermissionDenied
from fairlead.core.signatures import PAYLOAD_TYPE, pre_authentication_encoding
from fairlead.registry.paging import PageRequest
from fairlead.registry.permissions import RoleGrant, evaluate
from fairlead.registry.visibility import Narrowed, begin_access
from fairlead.registry.work import LeasedWork
from fairlead.serving.artifacts import RegionArtifacts
from fairlead.serving.bundle_assembly import BundleParts, assemble_bundles
from fairlead.serving.bundle_tests import TEST_BUNDLE, BundleTester
from fairlead.serving.deployment_index import ReadyBundles
from fairlead.serving.recipe import BundleRules, BundleWish
from fairlead.serving.recorded import bundle_rows
from fairlead.serving.requirements import OFFLINE
from fairlead.serving.smoke_run import SmokeResult
from fairlead.sync.scratch import Scratch
from fairlead.sync.worker import Worker
from tests.fleet import ADMIN, BACK_OFF, open_fleet
from tests.serving.models import model_files
from tests.serving.platform import Platform, refused

KEY = os.urandom(32)
RULES = BundleRules(package_index=OFFLINE)


class QuickTester(BundleTester):
    """Finds what it was told to; running a bundle is tested where that is done."""

    outcome: SmokeResult

    def _run(self, leased: LeasedWork, digest: str) -> SmokeResult:
        assert leased.kind == TEST_BUNDLE
        assert digest.startswith("sha256:")
        return self.outcome


@pytest.fixture
def platform(database_url: str, tmp_path: Path) -> Iterator[Platform]:
    with open_fleet(tmp_path, database_url) as fleet:
        platform = Platform(fleet=fleet)
        platform.create_model("churn")
        platform.create_model("triage", "eu")
        yield platform


def parts_of(platform: Platform, rules: BundleRules = RULES) -> BundleParts:
    fleet = platform.fleet
    artifacts = RegionArtifacts(fleet.database, fleet.clock, uploads=fleet.uploads, open_store=fleet.open_store)
    scratch = Scratch(fleet.root / "scratch")
    return assemble_bundles(
        database=fleet.database, clock=fleet.clock, artifacts=artifacts, scratch=scratch, rules=rules, signing_key=KEY
    )


def work(platform: Platform, rules: BundleRules = RULES, outcome: SmokeResult | None = None) -> BundleParts:
    """Everything that there is to do for bundles, done by a worker."""
    parts, fleet = parts_of(platform, rules), platform.fleet
    handlers = dict(parts.handlers)
    if outcome is not None:
        artifacts = RegionArtifacts(fleet.database, fleet.clock, uploads=fleet.uploads, open_store=fleet.open_store)
        tester = QuickTester(fleet.database, fleet.clock, artifacts, Scratch(fleet.root / "tests"), rules=rules)
        tester.outcome = outcome
        handlers[TEST_BUNDLE] = tester
    worker = Worker(
        fleet.database,
        fleet.clock,
        regions=None,
        handlers={**fleet.duties.handlers, **handlers},
        derivers=[*fleet.duties.derivers, *parts.derivers],
    )
    for _ in range(2):
        worker.run_until_idle()
        fleet.clock.advance(BACK_OFF)
    return parts


def test_a_bundle_has_its_papers_and_a_statement_that_the_server_signed(platform: Platform) -> None:
    version = platform.register("churn", model_files(1.0, 1.0, 1.0))
    parts = parts_of(platform)
    asked = parts.bundles.request(ADMIN, f"churn/{version}")
    assert asked.state == "PENDING"
    assert "has no sbom" in str(refused(NotReady, lambda: parts.bundles.paper(ADMIN, asked.id, "sbom")))
    work(platform)
    bundle = parts.bundles.get(ADMIN, asked.id)
    assert (bundle.state, bundle.papers) == ("READY", ("lock", "provenance", "sbom"))
    assert "numpy==" in parts.bundles.paper(ADMIN, bundle.id, "lock")
    assert json.loads(parts.bundles.paper(ADMIN, bundle.id, "sbom"))["specVersion"] == "1.6"

    envelope = json.loads(parts.bundles.paper(ADMIN, bundle.id, "provenance"))
    payload = base64.b64decode(envelope["payload"])
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    public_key = Ed25519PrivateKey.from_private_bytes(KEY).public_key()
    public_key.verify(signature, pre_authentication_encoding(PAYLOAD_TYPE, payload))
    said: dict[str, Any] = json.loads(payload)
    assert said["subject"] == [{"name": f"churn/{version}", "digest": {"sha256": (bundle.digest or "")[7:]}}]
    assert said["predicateType"] == "https://slsa.dev/provenance/v1"
    assert said["predicate"]["buildDefinition"]["internalParameters"]["recipe"] == bundle.recipe
    assert said["predicate"]["runDetails"]["metadata"]["invocationId"] == bundle.id
    with platform.fleet.database.read() as session:
        recorded = [(each.table, each.row.get("kind")) for each in bundle_rows(session, ADMIN.workspace_id)]
    # The lock and the SBOM lie in the bundle too.
    assert recorded == [("bundles", None), ("bundle_papers", "provenance")]
    # By a lock of one's own the same version is another bundle, and asking again for either makes none anew.
    lock = parts.bundles.paper(ADMIN, bundle.id, "lock")
    other = parts.bundles.request(ADMIN, f"churn/{version}", BundleWish(lock=lock))
    assert other.id != bundle.id
    assert parts.bundles.request(ADMIN, f"churn/{version}").id == bundle.id
    assert parts.bundles.request(ADMIN, f"churn/{version}", BundleWish(lock=lock)).id == other.id
    assert len(parts.bundles.list(ADMIN, PageRequest()).items) == 2
    # Until the newer one is READY, deployments run what is.
    index = ReadyBundles(platform.fleet.database)
    assert index.bundle_of(ADMIN.workspace_id, model_id(platform), version) == bundle.digest
    work(platform)
    # By an equal lock it is equal to the byte, as it is on another server.
    assert parts.bundles.get(ADMIN, other.id).digest == bundle.digest


def model_id(platform: Platform, name: str = "churn") -> str:
    from fairlead.registry.models import find_model

    with platform.fleet.database.read() as session:
        return find_model(session, ADMIN.workspace_id, name).id


def pickled() -> dict[str, bytes]:
    flavors = {"sklearn": {"serialization_format": "cloudpickle", "pickled_model": "model.pkl"}}
    pyfunc = {"python_function": {"loader_module": "mlflow.sklearn"}}
    return {"MLmodel": json.dumps({"flavors": flavors | pyfunc}).encode(), "model.pkl": b"\x80\x04N."}


def test_a_pickle_waits_for_a_policy_and_then_for_somebody_who_asks_again(platform: Platform) -> None:
    version = platform.register("churn", pickled())
    parts = parts_of(platform)
    first = parts.bundles.request(ADMIN, f"churn/{version}")
    work(platform)
    failed = parts.bundles.get(ADMIN, first.id)
    assert (failed.state, failed.error_code) == ("FAILED", "pickle-refused")
    assert "fairlead bundle policy churn --allow-pickle" in (failed.error_detail or "")
    # Nobody tries it over and over.
    assert parts.bundles.request(ADMIN, f"churn/{version}").state == "PENDING"
    work(platform)
    assert parts.bundles.get(ADMIN, first.id).state == "FAILED"

    before = parts.policies.get(ADMIN, "churn")
    assert (before.allows_pickle, before.updated_by) == (False, None)
    policy = parts.policies.put(ADMIN, "churn", allows_pickle=True)
    assert (policy.allows_pickle, policy.updated_by) == (True, ADMIN.principal)
    assert parts.policies.get(ADMIN, "triage").allows_pickle is False
    allowed = parts.bundles.request(ADMIN, f"churn/{version}")
    assert allowed.id != first.id
    work(platform)
    assert parts.bundles.get(ADMIN, allowed.id).state == "READY"
    parts.policies.put(ADMIN, "churn", allows_pickle=False)
    lenient = parts_of(platform, BundleRules(allows_pickle=True))
    assert lenient.policies.get(ADMIN, "triage").allows_pickle
    assert not lenient.policies.get(ADMIN, "churn").allows_pickle
    refused(ModelNotFound, lambda: parts.policies.put(ADMIN, "nobody", allows_pickle=True))


PASSED = SmokeResult(answered=3, compared=2, largest_difference=0.0, seconds=1.5, failure=None)
WRONG = SmokeResult(
    answered=3, compared=0, largest_difference=None, seconds=1.5, failure="Example 0: 1 and 2.", is_of_data=True
)


def test_a_gate_sees_what_the_newest_smoke_test_found(platform: Platform) -> None:
    parts = parts_of(platform)
    index = ReadyBundles(platform.fleet.database)
    restricted = platform.register("triage", model_files(1.0, 1.0, 1.0))
    bundle = parts.bundles.request(ADMIN, f"triage/{restricted}")
    refused(NotReady, lambda: parts.tests.request(ADMIN, bundle.id))
    refused(BundleNotFound, lambda: parts.tests.request(ADMIN, "nothing"))
    work(platform)
    asked = parts.tests.request(ADMIN, bundle.id)
    assert parts.tests.request(ADMIN, bundle.id).id == asked.id
    assert index.smoke_test_of(ADMIN.workspace_id, model_id(platform, "triage"), restricted) is None

    work(platform, outcome=WRONG)
    (failed,) = parts.tests.list(ADMIN, bundle.id, PageRequest()).items
    assert (failed.id, failed.state, failed.error_code) == (asked.id, "FAILED", "smoke-test-failed")
    # The record may lie elsewhere than the data that the failure quotes.
    assert failed.error_detail == "It stays in the region."
    found = index.smoke_test_of(ADMIN.workspace_id, model_id(platform, "triage"), restricted)
    assert found is not None
    assert not found.is_passed

    again = parts.tests.request(ADMIN, bundle.id)
    work(platform, outcome=PASSED)
    newest = parts.tests.list(ADMIN, bundle.id, PageRequest()).items[0]
    assert (newest.id, newest.state, newest.compared, newest.answered) == (again.id, "PASSED", 2, 3)
    found = index.smoke_test_of(ADMIN.workspace_id, model_id(platform, "triage"), restricted)
    assert found is not None
    assert (found.is_passed, found.compared, found.answered) == (True, 2, 3)


def test_whoever_may_deploy_some_models_asks_for_no_bundle_of_others(platform: Platform) -> None:
    platform.register("churn", model_files())
    roles = [RoleGrant("viewer", "*", "*"), RoleGrant("deployer", "triage", "*")]
    scopes, grants = evaluate({"read", "deploy"}, roles=roles)
    eve = replace(ADMIN, principal="eve", scopes=scopes, grants=grants)
    parts = parts_of(platform)
    own_service = BundleWish(service_source="import bentoml\n\n@bentoml.service\nclass Mine:\n    pass\n")
    begin_access().narrowed = Narrowed(caller=eve, scope="deploy")
    try:
        with pytest.raises(PermissionDenied):
            parts.bundles.request(eve, "churn/1", own_service)
    finally:
        begin_access()
    assert parts.bundles.list(ADMIN, PageRequest()).items == ()
