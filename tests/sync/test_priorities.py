from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from sqlalchemy import select

from fairlead.core.ids import new_row_id
from fairlead.registry import work
from fairlead.registry.replicas import REPLICATE, derive_replications, want_replicas
from fairlead.registry.tables import AliasRow, ArtifactRow, EnvironmentRow, ModelVersionRow, RegisteredModelRow, WorkRow
from fairlead.sync.priorities import derive_priorities
from tests.fleet import ADMIN, REGIONS, Fleet, open_fleet


@pytest.fixture
def fleet(tmp_path: Path, database_url: str) -> Generator[Fleet]:
    with open_fleet(tmp_path, database_url) as fleet:
        yield fleet


def test_copies_that_production_waits_for_go_first_and_only_to_the_regions_that_it_names(fleet: Fleet) -> None:
    promoted, other = (fleet.register({"w": os.urandom(100)}, regions=[REGIONS["virginia"]])[1] for _ in range(2))
    fleet.settle()
    hold_in_production(fleet, promoted.digest, required_regions=[REGIONS["amsterdam"]])
    for digest in (promoted.digest, other.digest):
        want_everywhere(fleet, digest)
    now = fleet.clock.now()
    with fleet.database.write() as session:
        derive_replications(session, now)
        derive_priorities(session, now)
        rows = session.scalars(select(WorkRow).where(WorkRow.kind == REPLICATE)).all()
        found = {(row.subject.split("/")[1], row.region): row.priority for row in rows}
    digits = promoted.digest.removeprefix("sha256:")
    assert len(found) == 4
    assert [key for key, priority in found.items() if priority == work.PROMOTED] == [(digits, REGIONS["amsterdam"])]


def hold_in_production(fleet: Fleet, digest: str, *, required_regions: list[str]) -> None:
    now, model = fleet.clock.now(), new_row_id()
    of_all = {"workspace_id": ADMIN.workspace_id}
    with fleet.database.write() as session:
        session.add(
            EnvironmentRow(
                **of_all,
                name="production",
                rank=30,
                policy={"required_regions": required_regions},
                revision=1,
                updated_by="ana",
                updated_at=now,
            )
        )
        session.add(
            RegisteredModelRow(
                **of_all,
                id=model,
                name="churn",
                residency="unrestricted",
                regions=None,
                owner="ana",
                team="risk",
                cost_centre="cc-7",
                created_by="ana",
                created_at=now,
                updated_at=now,
            )
        )
        session.flush()
        session.add(
            ModelVersionRow(
                **of_all,
                model_id=model,
                version=1,
                state="READY",
                residency="unrestricted",
                artifact_digest=digest,
                created_by="ana",
                created_at=now,
            )
        )
        session.add(
            AliasRow(
                **of_all,
                model_id=model,
                name="production",
                version=1,
                revision=1,
                moved_by="ana",
                moved_at=now,
            )
        )


def want_everywhere(fleet: Fleet, digest: str) -> None:

    with fleet.database.write() as session:
        artifact = session.get_one(ArtifactRow, (ADMIN.workspace_id, "unrestricted", digest))
        artifact.regions = None
        want_replicas(session, artifact, fleet.clock.now())
