from __future__ import annotations

import os
from collections.abc import Generator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from fairlead.core.errors import ArtifactNotFound
from fairlead.core.ids import digest_hex
from fairlead.registry.models import Labels, Models
from fairlead.registry.tables import WorkRow
from fairlead.registry.version_registration import VersionDraft
from fairlead.registry.versions import Versions
from fairlead.sync.store.objects import open_store
from fairlead.testing.objects import Action, Fault, FaultyStore
from tests.fleet import ADMIN, BACK_OFF, LABELS, Fleet, domain_of_upload, flip_a_byte, open_fleet

FILES = {"weights.bin": os.urandom(300_000), "config.json": b"{}"}


@pytest.fixture
def fleet(tmp_path: Path, database_url: str) -> Generator[Fleet]:
    with open_fleet(tmp_path, database_url) as fleet:
        yield fleet


def version_on(fleet: Fleet, upload_id: str) -> tuple[Versions, int]:
    Models(fleet.database, fleet.clock).create(ADMIN, name="churn", labels=Labels(**LABELS))
    versions = Versions(fleet.database, fleet.clock)
    return versions, versions.register(ADMIN, "churn", VersionDraft(upload_id=upload_id)).version


def test_bytes_that_were_read_back_make_everything_ready_at_once(fleet: Fleet) -> None:
    upload_id, written = fleet.register(FILES)
    versions, number = version_on(fleet, upload_id)
    assert versions.get(ADMIN, "churn", number).state == "PENDING"
    fleet.run()

    assert fleet.uploads.get(ADMIN, upload_id).state == "READY"
    version = versions.get(ADMIN, "churn", number)
    assert (version.state, version.artifact_digest) == ("READY", written.digest)
    artifact = fleet.artifact(written.digest)
    assert (artifact.kind, artifact.size_bytes, artifact.file_count) == ("model", 300_002, 2)
    first = fleet.replica(written.digest, "virginia")
    assert (first.state, first.layout_key) == ("VERIFIED", written.layout_key)
    (paid,) = fleet.ledger("upload")
    assert (paid.moved_bytes, Decimal(paid.actual_usd), paid.labels) == (written.sent_bytes, 0, LABELS)
    assert "upload.ready" in fleet.actions()
    assert fleet.count(WorkRow) == 0


def test_damaged_bytes_make_an_upload_and_its_version_fail_and_nothing_else(fleet: Fleet) -> None:
    upload_id, written = fleet.register(FILES)
    versions, number = version_on(fleet, upload_id)
    flip_a_byte(fleet.packs("virginia")[0])
    fleet.run()

    upload = fleet.uploads.get(ADMIN, upload_id)
    assert (upload.state, upload.error_code) == ("FAILED", "corrupt-block")
    version = versions.get(ADMIN, "churn", number)
    assert version.state == "FAILED"
    assert version.error is not None
    assert version.error.code == "corrupt-block"
    with pytest.raises(ArtifactNotFound):
        fleet.artifact(written.digest)
    assert fleet.ledger("upload") == []
    assert fleet.count(WorkRow) == 0


@pytest.mark.parametrize("missing", ["packs", "layouts", "manifests"])
def test_an_upload_of_which_something_is_missing_fails(fleet: Fleet, missing: str) -> None:
    upload_id, _ = fleet.register(FILES)
    for path in fleet.folder("virginia").rglob("*"):
        if path.is_file() and missing in path.parts:
            path.unlink()
    fleet.run()
    assert fleet.uploads.get(ADMIN, upload_id).state == "FAILED"


def test_a_second_registration_mends_what_damage_the_first_one_built_on(fleet: Fleet) -> None:
    # A new version that shares blocks with one whose pack was damaged since it was verified.
    _, first = fleet.register(FILES, regions=["aws:us-east-1"])
    fleet.run()
    for pack in fleet.packs("virginia"):
        flip_a_byte(pack)
    changed = {**FILES, "config.json": b'{"epoch": 2}'}
    upload_id, second = fleet.register(changed, regions=["aws:us-east-1"])
    assert second.reused_blocks > 0
    fleet.run()
    assert fleet.uploads.get(ADMIN, upload_id).state == "FAILED"
    assert fleet.states(first.digest) == {"virginia": "CORRUPT"}, "it stood on the same pack"

    again, third = fleet.register(changed, regions=["aws:us-east-1"])
    assert third.reused_blocks == 0
    fleet.run()
    assert fleet.uploads.get(ADMIN, again).state == "READY"
    assert fleet.read(third.digest, "virginia") == changed
    # The first artifact had no other replica; registering its files again brings it back too.
    fleet.register(FILES, regions=["aws:us-east-1"])
    fleet.settle()
    assert fleet.read(first.digest, "virginia") == FILES


def test_a_location_that_is_away_delays_an_upload_and_does_not_fail_it(fleet: Fleet) -> None:
    upload_id, _ = fleet.register(FILES)
    fleet.wrap = lambda _name, store: FaultyStore(store, [Fault(operation="read", call=1, action=Action.DIE)])
    fleet.run()
    assert fleet.uploads.get(ADMIN, upload_id).state == "VERIFYING"
    fleet.wrap = lambda _name, store: store
    fleet.clock.advance(BACK_OFF)
    fleet.run()
    assert fleet.uploads.get(ADMIN, upload_id).state == "READY"


def test_an_upload_cannot_borrow_the_layout_of_another_artifact(fleet: Fleet) -> None:
    upload = fleet.begin(near="virginia")
    written = fleet.write(upload, FILES)
    store, domain = open_store(upload.location.url), domain_of_upload(upload)
    # A layout under the right key, whose bytes are another artifact's.
    other = fleet.write(upload, {"other": b"x"})
    store.write(written.layout_key, store.read(other.layout_key))
    assert domain.parse_layout_key(written.digest, written.layout_key)
    fleet.complete(upload, written)
    fleet.run()
    assert fleet.uploads.get(ADMIN, upload.id).error_code == "corrupt-layout"


def test_replicas_are_read_again_after_a_day(fleet: Fleet) -> None:
    _, written = fleet.register(FILES)
    fleet.run()
    flip_a_byte(fleet.packs("eemshaven")[0])
    fleet.clock.advance(timedelta(hours=23))
    fleet.run()
    assert "replica.repair" not in fleet.actions()
    fleet.clock.advance(timedelta(hours=2))
    fleet.run()
    assert "replica.corrupt" in fleet.actions()
    assert "replica.repair" in fleet.actions()
    assert fleet.read(written.digest, "eemshaven") == FILES


def test_what_shares_a_damaged_pack_is_read_again_at_once(fleet: Fleet) -> None:
    _, first = fleet.register(FILES)
    fleet.run()
    _, second = fleet.register({**FILES, "config.json": b'{"epoch": 2}'})
    fleet.run()
    shared = {digest_hex(block.pack) for block in first.layout.blocks.values()}
    (pack,) = (path for path in fleet.packs("virginia") if path.stem in shared)
    flip_a_byte(pack)
    fleet.artifacts.verify(ADMIN, second.digest, location="virginia")
    fleet.run()
    assert fleet.actions().count("replica.corrupt") == 2
    for digest in (first.digest, second.digest):
        assert fleet.states(digest)["virginia"] == "VERIFIED"
        assert fleet.read(digest, "virginia")["weights.bin"] == FILES["weights.bin"]
