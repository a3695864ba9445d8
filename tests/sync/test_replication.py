from __future__ import annotations

import os
from collections.abc import Generator
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import update

from fairlead.catalog import load_catalog
from fairlead.core.errors import LeaseLost
from fairlead.core.ports import ObjectStore
from fairlead.registry import work
from fairlead.registry.replicas import REPLICATE, ReplicaKey, ensure_replica, require_replica_work
from fairlead.registry.tables import LocationRow, WorkRow
from fairlead.sync.sources import rank_sources
from fairlead.testing.objects import Action, Fault, FaultyStore
from tests.fleet import ADMIN, BACK_OFF, LABELS, REGIONS, Fleet, flip_a_byte, open_fleet

WEIGHTS = os.urandom(400_000)
FILES = {"weights.bin": WEIGHTS, "head.bin": b"one"}


@pytest.fixture
def fleet(tmp_path: Path, database_url: str) -> Generator[Fleet]:
    with open_fleet(tmp_path, database_url) as fleet:
        yield fleet


@pytest.fixture
def local(tmp_path: Path) -> Generator[Fleet]:
    with open_fleet(tmp_path) as fleet:
        yield fleet


def test_a_verified_upload_ends_up_verified_in_every_region(fleet: Fleet) -> None:
    _, written = fleet.register(FILES)
    fleet.run()
    for name in REGIONS:
        assert fleet.read(written.digest, name) == FILES
    for row in fleet.ledger("replicate"):
        assert abs(row.planned_bytes - row.moved_bytes) < 10_000
        assert Decimal(row.actual_usd) < Decimal("1.1") * Decimal(row.planned_usd)
        assert row.labels == LABELS
        assert row.price_source
        assert row.gco2_method


def test_only_missing_blocks_travel(fleet: Fleet) -> None:
    fleet.register(FILES)
    fleet.run()
    fleet.register({**FILES, "head.bin": b"two"})
    fleet.run()
    first, second = (fleet.ledger("replicate")[:2], fleet.ledger("replicate")[2:])
    assert min(row.moved_bytes for row in first) > len(WEIGHTS)
    assert max(row.moved_bytes for row in second) < 3_000


def test_the_cheapest_verified_source_is_taken(local: Fleet) -> None:
    catalog = load_catalog()
    virginia, eemshaven, amsterdam = (local.location(name) for name in REGIONS)
    ranked = rank_sources(catalog, [(virginia, "v"), (eemshaven, "e")], amsterdam)
    tariffs = [catalog.egress(source.location.region, amsterdam.region).value for source in ranked]
    assert tariffs == sorted(tariffs)


def test_a_damaged_source_is_taken_out_of_service_and_another_one_used(local: Fleet) -> None:
    _, written = local.register(FILES, regions=[REGIONS["virginia"], REGIONS["eemshaven"]])
    local.run()
    # The one that is cheaper for Amsterdam is damaged, and nobody has noticed.
    sources = [(local.location(name), "") for name in ("virginia", "eemshaven")]
    ranked = rank_sources(load_catalog(), sources, local.location("amsterdam"))
    cheapest, other = (source.location.name for source in ranked)
    flip_a_byte(local.packs(cheapest)[0])
    local.register(FILES, regions=None, near=other)
    local.settle()
    for name in REGIONS:
        assert local.read(written.digest, name) == FILES
    assert local.ledger("repair")[0].region == REGIONS[cheapest]


def test_an_only_replica_that_is_damaged_says_so_and_keeps_its_state(fleet: Fleet) -> None:
    _, written = fleet.register(FILES, regions=[REGIONS["virginia"]])
    fleet.run()
    flip_a_byte(fleet.packs("virginia")[0])
    fleet.artifacts.verify(ADMIN, written.digest)
    fleet.run()
    assert fleet.states(written.digest) == {"virginia": "CORRUPT"}
    with fleet.database.read() as session:
        (waiting,) = work.list_work(session, ADMIN.workspace_id, fleet.clock.now()).items
    assert waiting.error_code == "replica-unavailable"
    assert "register them again" in (waiting.error_detail or "")

    fleet.register(FILES, regions=[REGIONS["virginia"]])
    fleet.settle()
    assert fleet.read(written.digest, "virginia") == FILES


def test_a_copy_that_arrives_damaged_is_sent_again(local: Fleet) -> None:
    def corrupting(name: str, store: ObjectStore) -> ObjectStore:
        is_target = name == "amsterdam"
        return FaultyStore(store, [Fault(operation="write", call=1, action=Action.FLIP)] if is_target else [])

    _, written = local.register(FILES)
    local.wrap = corrupting
    local.run()
    replica = local.replica(written.digest, "amsterdam")
    assert (replica.state, replica.error_code) == ("FAILED", "corrupt-pack")
    local.wrap = lambda _name, store: store
    local.clock.advance(BACK_OFF)
    local.run()
    assert local.read(written.digest, "amsterdam") == FILES


def test_a_region_that_is_away_catches_up_when_it_is_back(local: Fleet) -> None:
    local.wrap = lambda name, store: (
        FaultyStore(store, [Fault(operation="size", call=1, action=Action.DIE)]) if name == "eemshaven" else store
    )
    away = local.folder("eemshaven").rename(local.root / "away")
    _, written = local.register(FILES)
    local.run()
    assert local.states(written.digest)["eemshaven"] == "FAILED"
    assert local.read(written.digest, "amsterdam") == FILES
    away.rename(local.folder("eemshaven"))
    local.wrap = lambda _name, store: store
    local.clock.advance(BACK_OFF)
    local.run()
    assert local.read(written.digest, "eemshaven") == FILES


def test_a_replica_that_should_never_have_been_wanted_is_refused_before_a_byte_is_written(fleet: Fleet) -> None:
    _, written = fleet.register(FILES, residency="eu", near="eemshaven")
    fleet.run()
    key = ReplicaKey(
        workspace_id=ADMIN.workspace_id,
        residency="eu",
        artifact_digest=written.digest,
        location_id=fleet.location("virginia").id,
    )
    with fleet.database.write() as session:
        ensure_replica(session, key, fleet.clock.now())
        require_replica_work(session, REPLICATE, key, REGIONS["virginia"], fleet.clock.now())
    fleet.run()
    replica = fleet.replica(written.digest, "virginia")
    assert (replica.state, replica.error_code) == ("FAILED", "residency-violation")
    assert not fleet.packs("virginia")
    assert "replica.refuse" in fleet.actions()


def test_a_location_that_turns_out_to_be_elsewhere_while_a_copy_is_prepared_gets_no_byte(local: Fleet) -> None:
    class Moving(FaultyStore):
        def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
            with local.database.write() as session:
                running = work.list_work(session, ADMIN.workspace_id, local.clock.now()).items
                if any(row.kind == REPLICATE and row.state == "RUNNING" for row in running):
                    abroad = update(LocationRow).where(LocationRow.name == "amsterdam")
                    session.execute(abroad.values(region=REGIONS["virginia"], jurisdiction="US"))
            return super().read(key, start=start, length=length)

    local.wrap = lambda name, store: Moving(store) if name == "eemshaven" else store
    _, written = local.register(FILES, residency="eu", near="eemshaven")
    local.run()
    assert local.replica(written.digest, "amsterdam").error_code == "residency-violation"
    assert not local.packs("amsterdam")


def test_a_worker_that_lost_its_lease_records_nothing(fleet: Fleet) -> None:
    _, written = fleet.register(FILES, regions=[REGIONS["virginia"], REGIONS["amsterdam"]])
    handlers = fleet.duties.handlers
    worker = fleet.worker()
    worker.derive()
    ttl = work.LONGEST_RETRY

    def take(kind: str, holder: str) -> work.LeasedWork:
        leased = work.lease(fleet.database, fleet.clock, kinds={kind}, regions=None, holder=holder, ttl=ttl)
        assert leased is not None
        return leased

    handlers["verify-upload"](take("verify-upload", "one"))
    worker.derive()
    first = take("replicate", "one")
    fleet.clock.advance(ttl)
    second = take("replicate", "two")
    handlers["replicate"](second)
    with pytest.raises(LeaseLost):
        handlers["replicate"](first)
    assert len(fleet.ledger("replicate")) == 1
    assert fleet.states(written.digest)["amsterdam"] == "VERIFIED"
    assert fleet.count(WorkRow) == 0


def test_progress_is_told_while_a_copy_runs(local: Fleet) -> None:
    seen: list[tuple[object, object]] = []

    class Watching(FaultyStore):
        def write(self, key: str, data: bytes | bytearray | memoryview, *, create_only: bool = False) -> bool:
            with local.database.read() as session:
                seen.extend(
                    (row.progress_bytes, row.total_bytes)
                    for row in work.list_work(session, ADMIN.workspace_id, local.clock.now()).items
                    if row.state == "RUNNING"
                )
            return super().write(key, data, create_only=create_only)

    local.register(FILES)
    local.wrap = lambda _name, store: Watching(store)
    local.run()
    assert any(isinstance(done, int) and isinstance(whole, int) and 0 < done <= whole for done, whole in seen)
