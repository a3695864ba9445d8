"""A scrub, a collection and a repack over real object stores: S3, Google Cloud Storage and Azure."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from fairlead.core.ids import Digest
from fairlead.core.ports import ObjectStore
from fairlead.sync.collection import GRACE
from fairlead.sync.store.domain import DedupDomain
from fairlead.sync.store.objects import open_store
from fairlead.sync.store.reader import ArtifactReader
from tests.fleet import ADMIN, open_fleet
from tests.records import WORKSPACE
from tests.servers.object_stores import ObjectStoreServer
from tests.sync.test_collection import run_task
from tests.sync.test_collection_races import forget

SHARED = random.Random(5).randbytes(8_000)


@pytest.mark.parametrize("server", ["moto_server", "gcs_server", "azurite_server"])
def test_a_cloud_is_scrubbed_mended_cleared_and_repacked(
    server: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    opened: ObjectStoreServer = request.getfixturevalue(server)
    cloud = open_store(f"{opened.url}/upkeep-{tmp_path.name}", opened.options)

    def wrap(name: str, store: ObjectStore) -> ObjectStore:
        return cloud if name == "virginia" else store

    with open_fleet(tmp_path, names=("virginia", "eemshaven")) as fleet:
        fleet.wrap = wrap
        _, big = fleet.register({"shared": SHARED, "dead": random.Random(6).randbytes(30_000)}, near="eemshaven")
        fleet.run()
        _, kept = fleet.register({"shared": SHARED}, near="eemshaven")
        fleet.run()
        domain = DedupDomain(WORKSPACE, "unrestricted")
        keys = [item.key for item in cloud.list(domain.pack_prefix())]
        damaged = bytearray(cloud.read(keys[0]))
        damaged[len(damaged) // 2] ^= 1
        cloud.write(keys[0], damaged)

        (finding,) = run_task(fleet, "scrub").findings
        assert (finding["object"], finding["harm"]) == (keys[0], "flipped")
        fleet.settle()
        assert run_task(fleet, "scrub", is_dry_run=True).outcome.get("flipped", 0) in {0, 1}
        assert fleet.states(kept.digest) == {"virginia": "VERIFIED", "eemshaven": "VERIFIED"}

        forget(fleet, big.digest)
        for _ in range(5):
            run_task(fleet, "collect")
            fleet.clock.advance(GRACE * 1.1)
        assert "replica.repack" in fleet.actions()
        left = list(cloud.list(domain.prefix + "/"))
        assert sum(item.size for item in left) < 20_000
        replica = fleet.replica(kept.digest, "virginia")
        reader = ArtifactReader.open(cloud, domain, Digest(kept.digest), replica.layout_key)
        assert reader.read_file("shared") == SHARED
        assert run_task(fleet, "rebuild-index", is_quick=True).outcome["missing"] == 0
        assert fleet.artifacts.get(ADMIN, kept.digest).size_bytes == len(SHARED)
