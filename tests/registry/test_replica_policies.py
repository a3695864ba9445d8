from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from pathlib import Path

import pytest

from fairlead.catalog import load_catalog
from fairlead.core.errors import InvalidInput, ReplicaPolicyNotFound, StaleRevision
from fairlead.registry.environments import Environments
from fairlead.registry.models import Labels, Models
from fairlead.registry.paging import PageRequest
from fairlead.registry.policy import Policy
from fairlead.registry.promotion import Promotions
from fairlead.registry.replica_policies import PolicySweep, ReplicaPolicies, model_uses
from fairlead.registry.replica_policy import ReplicaPolicy, Retention
from fairlead.registry.tables import ReplicaRow
from fairlead.registry.version_registration import VersionDraft
from fairlead.registry.versions import Versions
from tests.fleet import ADMIN, Fleet, open_fleet

EVERYWHERE = {"virginia", "eemshaven", "amsterdam"}


@pytest.fixture
def fleet(tmp_path: Path, database_url: str) -> Generator[Fleet]:
    with open_fleet(tmp_path, database_url, names=("virginia", "eemshaven", "amsterdam")) as fleet:
        Models(fleet.database, fleet.clock).create(
            ADMIN, name="churn", labels=Labels(owner="ana", team="risk", cost_centre="cc"), residency="unrestricted"
        )
        Environments(fleet.database, fleet.clock).put(ADMIN, "live", rank=99, wanted=Policy(), expected_revision=0)
        yield fleet


def policies_of(fleet: Fleet) -> ReplicaPolicies:
    return ReplicaPolicies(fleet.database, fleet.clock, catalog=load_catalog(), uses=(model_uses,))


def register_version(fleet: Fleet, content: bytes) -> str:
    """A READY version of churn that came in at virginia; its artifact's digest."""
    upload_id, written = fleet.register({"model.bin": content})
    Versions(fleet.database, fleet.clock).register(ADMIN, "churn", VersionDraft(upload_id=upload_id))
    fleet.run()
    return written.digest


def promote(fleet: Fleet, version: int, *, revision: int) -> None:
    Promotions(fleet.database, fleet.clock, load_catalog()).request(
        ADMIN, "churn", version, "live", expected_revision=revision, reason="better"
    )


def sweep(fleet: Fleet) -> None:
    """What a worker does by itself, until nothing is due."""
    with fleet.database.write() as session:
        PolicySweep([model_uses])(session, fleet.clock.now())
    fleet.run()


def wanted_at(fleet: Fleet, digest: str) -> set[str]:
    with fleet.database.read() as session:
        names = {location.id: location.name for location in fleet.locations.list(ADMIN, PageRequest()).items}
        rows = session.query(ReplicaRow).filter_by(artifact_digest=digest, is_wanted=True)
        return {names[row.location_id] for row in rows}


def test_only_what_an_environment_needs_goes_to_the_regions_of_its_policy(fleet: Fleet) -> None:
    policies_of(fleet).put(
        ADMIN, "live", ReplicaPolicy(environments=("live",), regions=("gcp:*", "aws:*")), expected_revision=0
    )
    first, second, third = (register_version(fleet, content) for content in (b"one", b"two", b"three"))
    sweep(fleet)
    assert fleet.states(first) == {"virginia": "VERIFIED"}
    for revision, version in enumerate((1, 2, 3)):
        promote(fleet, version, revision=revision)
        sweep(fleet)
    assert wanted_at(fleet, third) == wanted_at(fleet, second) == {"virginia", "eemshaven"}
    assert fleet.states(third) == {"virginia": "VERIFIED", "eemshaven": "VERIFIED"}
    # The version before the last two is needed by nobody: it stays where it came in.
    assert wanted_at(fleet, first) == {"virginia"}


def test_a_region_is_left_only_when_the_bytes_are_where_they_should_be(fleet: Fleet) -> None:
    digest = register_version(fleet, b"weights")
    assert set(fleet.states(digest)) == EVERYWHERE
    fleet.folder("amsterdam").rename(fleet.folder("away"))
    policies_of(fleet).put(ADMIN, "azure", ReplicaPolicy(regions=("azure:*",)), expected_revision=None)
    fleet.artifacts.report(ADMIN, digest, location="amsterdam", code="object-not-found")
    sweep(fleet)
    assert wanted_at(fleet, digest) == EVERYWHERE
    fleet.folder("away").rename(fleet.folder("amsterdam"))
    fleet.settle()
    sweep(fleet)
    assert wanted_at(fleet, digest) == {"amsterdam"}


def test_age_ends_what_no_environment_needs(fleet: Fleet) -> None:
    policies_of(fleet).put(
        ADMIN, "a-week", ReplicaPolicy(retention=Retention(days=7), regions=("*",)), expected_revision=None
    )
    digest = register_version(fleet, b"weights")
    sweep(fleet)
    assert wanted_at(fleet, digest) == EVERYWHERE
    fleet.clock.advance(timedelta(days=8))
    sweep(fleet)
    assert wanted_at(fleet, digest) == {"virginia"}


def test_without_its_policy_an_artifact_should_be_everywhere_again(fleet: Fleet) -> None:
    policies = policies_of(fleet)
    policies.put(ADMIN, "gcp", ReplicaPolicy(regions=("gcp:*",)), expected_revision=0)
    digest = register_version(fleet, b"weights")
    sweep(fleet)
    assert "amsterdam" not in fleet.states(digest)
    with pytest.raises(StaleRevision):
        policies.delete(ADMIN, "gcp", expected_revision=2)
    policies.delete(ADMIN, "gcp", expected_revision=1)
    fleet.run()
    assert wanted_at(fleet, digest) == EVERYWHERE
    assert set(fleet.states(digest).values()) == {"VERIFIED"}


def test_drift_names_what_is_missing_damaged_and_unwanted(fleet: Fleet) -> None:
    policies = policies_of(fleet)
    digest = register_version(fleet, b"weights")
    assert policies.find_drift(ADMIN) == []
    policies.put(ADMIN, "eu", ReplicaPolicy(regions=("gcp:*", "azure:*")), expected_revision=None)
    fleet.artifacts.report(ADMIN, digest, location="amsterdam", code="corrupt-block")
    found = {(entry.location, entry.drift) for entry in policies.find_drift(ADMIN)}
    assert found == {("virginia", "unwanted"), ("amsterdam", "damaged")}


def test_a_policy_has_revisions_and_leaves_a_trail(fleet: Fleet) -> None:
    policies = policies_of(fleet)
    with pytest.raises(InvalidInput, match="No region"):
        policies.put(ADMIN, "p", ReplicaPolicy(regions=("mars:*",)), expected_revision=None)
    with pytest.raises(StaleRevision):
        policies.put(ADMIN, "p", ReplicaPolicy(), expected_revision=1)
    assert policies.put(ADMIN, "p", ReplicaPolicy(), expected_revision=0).revision == 1
    assert policies.put(ADMIN, "p", ReplicaPolicy(models=("a*",)), expected_revision=None).revision == 2
    assert policies.get(ADMIN, "p").policy == ReplicaPolicy(models=("a*",))
    assert [each.name for each in policies.list(ADMIN, PageRequest()).items] == ["p"]
    policies.delete(ADMIN, "p", expected_revision=None)
    with pytest.raises(ReplicaPolicyNotFound):
        policies.get(ADMIN, "p")
    assert [action for action in fleet.actions() if action.startswith("replica-policy")] == [
        "replica-policy.apply",
        "replica-policy.apply",
        "replica-policy.delete",
    ]
