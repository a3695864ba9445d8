"""What a writer that died has left behind, and the record does not name, leaves with the subject like all else."""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from fairlead.core.certificates import verify_certificate
from fairlead.featurestore.erasures import Erasure
from fairlead.featurestore.log_sealing import LogSealing
from fairlead.featurestore.snapshot_work import SnapshotHandler
from fairlead.featurestore.strays import find_strays
from fairlead.registry.tables import ArtifactRow
from fairlead.registry.uploads import Uploads
from fairlead.sync.store.refs import public_keys_of
from fairlead.sync.upkeep_duties import UpkeepRules
from tests.featurestore.feature_fleet import FeatureFleet, day, open_feature_fleet
from tests.featurestore.test_erasure_faults import Killed
from tests.featurestore.test_erasures import GENES, MARKER, ROWS, SUBJECT, finish, get, holds, request, stored_blocks
from tests.featurestore.test_streams import definitions, push, row
from tests.fleet import ADMIN
from tests.records import WORKSPACE


@pytest.fixture
def fleet(tmp_path: Path, database_url: str) -> Generator[FeatureFleet]:
    with open_feature_fleet(tmp_path, database_url) as opened:
        opened.fleet.upkeep = UpkeepRules()
        opened.cells(ROWS)
        opened.genes(GENES)
        opened.apply(definitions(opened))
        yield opened


def die_once(monkeypatch: pytest.MonkeyPatch, owner: type[Any], step: str) -> None:
    """Let the process die the next time that it comes to a step, before it has done anything of it."""
    real = getattr(owner, step)

    def die(*_arguments: Any, **_options: Any) -> Any:
        monkeypatch.setattr(owner, step, real)
        raise Killed

    monkeypatch.setattr(owner, step, die)


def snapshot_whose_writer_dies(
    fleet: FeatureFleet, monkeypatch: pytest.MonkeyPatch, owner: type[Any], step: str
) -> None:
    """One snapshot, whose source is another one when the next worker writes the part again."""
    fleet.store.snapshots.take(ADMIN, "diagnosis", as_of=day(3))
    for _ in range(2):
        # Either part may be the first.
        die_once(monkeypatch, owner, step)
        with pytest.raises(Killed):
            fleet.run()
    fleet.genes([(patient, 0.0, f"{marker}-mended") for patient, _, marker in GENES if patient != 1])
    fleet.cells(ROWS[1:])
    fleet.fleet.clock.advance(timedelta(minutes=10))
    fleet.run()


def assert_gone(fleet: FeatureFleet) -> None:
    (fleet.sources / "genes.parquet").unlink()
    assert holds(fleet.fleet.root / "features", MARKER) == []
    assert not any(MARKER.encode() in block for block in stored_blocks(fleet))


def unreleased(fleet: FeatureFleet) -> set[str]:
    with fleet.fleet.database.read() as session:
        return set(session.scalars(select(ArtifactRow.digest).where(ArtifactRow.released_at.is_(None))))


def test_an_artifact_that_its_writer_did_not_live_to_note_leaves_too(
    fleet: FeatureFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot_whose_writer_dies(fleet, monkeypatch, SnapshotHandler, "_note")
    fleet.fleet.settle()
    assert len(unreleased(fleet)) == 4
    done = finish(fleet, request(fleet))
    assert done.missing == ()
    assert_gone(fleet)
    assert len(unreleased(fleet)) == 2
    stated = verify_certificate(
        fleet.store.erasures.certificate(ADMIN, done.id), public_keys_of([fleet.fleet.signing_key])
    )
    assert len(stated["strays"]) == 2
    assert {each["kind"] for each in stated["strays"]} == {"snapshot"}


def test_bytes_of_an_upload_that_was_never_handed_over_leave_too(
    fleet: FeatureFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot_whose_writer_dies(fleet, monkeypatch, Uploads, "complete")
    assert any(MARKER.encode() in block and b"mended" not in block for block in stored_blocks(fleet))
    asked = request(fleet)
    fleet.run()
    assert any("upload" in each for each in get(fleet, asked).missing)
    finish(fleet, asked)
    assert_gone(fleet)


def test_a_segment_that_was_stored_and_not_noted_leaves_too(
    fleet: FeatureFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(fleet, [row(SUBJECT, 9, 1.0), row(1, 9, 2.0)])
    fleet.fleet.clock.advance(timedelta(hours=1))
    die_once(monkeypatch, LogSealing, "_record")
    with pytest.raises(Killed):
        fleet.store.streams.keep(None)
    asked = request(fleet)
    fleet.fleet.settle()
    fleet.run()
    fleet.store.streams.keep(None)
    finish(fleet, asked)
    stated = verify_certificate(
        fleet.store.erasures.certificate(ADMIN, asked.id), public_keys_of([fleet.fleet.signing_key])
    )
    assert [each["kind"] for each in stated["strays"]] == ["feature-log"]
    assert fleet.store.streams.logs.local()


def test_a_live_writer_whose_artifact_was_taken_for_a_stray_writes_it_again(
    fleet: FeatureFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Erasure] = []
    real: Any = getattr(SnapshotHandler, "_note")  # noqa: B009

    def slow(self: SnapshotHandler, *arguments: Any) -> None:
        if not asked:
            # Somebody asks, and another worker gives up what nothing names, just before it is noted.
            asked.append(request(fleet))
            fleet.fleet.run()
            with fleet.fleet.database.write() as session:
                for artifact in find_strays(session, WORKSPACE):
                    artifact.released_at = fleet.fleet.clock.now()
        real(self, *arguments)

    monkeypatch.setattr(SnapshotHandler, "_note", slow)
    taken = fleet.store.snapshots.take(ADMIN, "diagnosis", as_of=day(3))
    fleet.run()
    fleet.fleet.clock.advance(timedelta(minutes=30))
    finish(fleet, asked[0])
    found = fleet.store.snapshots.get(ADMIN, taken.id)
    assert found.state == "READY"
    assert {part.rows for part in found.artifacts} == {5, 20}
    with fleet.fleet.database.read() as session:
        digests = [part.digest for part in found.artifacts]
        kept = session.scalars(select(ArtifactRow.released_at).where(ArtifactRow.digest.in_(digests))).all()
    assert kept == [None, None]
