"""The record survives its service: copies that tell what the registry knew, and a registry made again from them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Generator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from fairlead.app.schema import metadata
from fairlead.core.db import Database
from fairlead.core.errors import (
    AlreadyExists,
    BadSignature,
    CorruptObject,
    KeyUnavailable,
    ObjectNotFound,
    StaleRevision,
)
from fairlead.core.ports import ObjectStore
from fairlead.registry.aliases import Aliases
from fairlead.registry.audit import Sealer
from fairlead.registry.keys import Keys
from fairlead.registry.locations import to_location
from fairlead.registry.models import Labels, Models
from fairlead.registry.tables import LocationRow, WorkRow
from fairlead.registry.tables_bytes import ReplicaPolicyRow
from fairlead.registry.version_registration import VersionDraft
from fairlead.registry.versions import Versions
from fairlead.sync.inventory import StoredObject, list_objects
from fairlead.sync.record_publication import KEPT_COPIES, build_copy, collect_record
from fairlead.sync.record_rows import registry_rows
from fairlead.sync.restoration import restore_record
from fairlead.sync.store.encryption import EncryptedStore
from fairlead.sync.store.keyring import KeyFiles, UnwrappingKeyring, make_key_file
from fairlead.sync.store.objects import open_store
from fairlead.sync.store.record import (
    RecordCopy,
    RecordIndex,
    find_key,
    index_key,
    list_sequences,
    write_document,
    write_index,
)
from fairlead.sync.store.refs import generate_signing_key, key_id_of, public_key_of
from tests.fleet import ADMIN, BACK_OFF, LABELS, Fleet, flip_a_byte, open_fleet
from tests.records import WORKSPACE, migrated_sqlite_file
from tests.stores import Crash, CrashingStore
from tests.sync.test_collection import run_task


@pytest.fixture
def fleet(tmp_path: Path) -> Generator[Fleet]:
    (tmp_path / "regions").mkdir()
    with open_fleet(tmp_path / "regions") as fleet:
        yield fleet


def publish(fleet: Fleet) -> None:
    """What happens within seconds: events are sealed, and copies are made."""
    Sealer(fleet.database, fleet.clock).seal_once()
    fleet.clock.advance(timedelta(seconds=6))
    fleet.settle()


def register(
    fleet: Fleet, model: str, content: bytes, *, residency: str = "unrestricted", near: str = "virginia"
) -> str:
    upload_id, written = fleet.register({"model": content}, residency=residency, near=near)
    models = Models(fleet.database, fleet.clock)
    with fleet.database.read() as session:
        is_known = model in session.scalars(select(metadata().tables["registered_models"].c.name)).all()
    if not is_known:
        models.create(ADMIN, name=model, labels=Labels(**LABELS), residency=residency)
    draft = VersionDraft(upload_id=upload_id, metrics={"auc": 0.91}, params={"depth": 3}, tags={"a": "b"})
    Versions(fleet.database, fleet.clock).register(ADMIN, model, draft)
    fleet.settle()
    return written.digest


def point(fleet: Fleet, model: str, alias: str, version: int, revision: int = 0) -> None:
    Aliases(fleet.database, fleet.clock).set(ADMIN, model, alias, version, expected_revision=revision)


def store_at(fleet: Fleet, name: str) -> ObjectStore:
    return open_store(fleet.folder(name).as_uri())


def copy_at(fleet: Fleet, name: str, *, seen: int = 0, key_files: list[Path] | None = None) -> RecordCopy:
    public = public_key_of(fleet.signing_key)

    def decrypting(store: ObjectStore, index: RecordIndex) -> ObjectStore:
        providers = {"file": KeyFiles(key_files or [])}
        return EncryptedStore(
            store, UnwrappingKeyring(providers, lambda workspace, key_id: find_key(index, workspace, key_id))
        )

    return RecordCopy.open(
        store_at(fleet, name), WORKSPACE, {key_id_of(public): public}, seen_sequence=seen, decrypting=decrypting
    )


def record_objects(fleet: Fleet, name: str) -> dict[str, bytes]:
    folder = fleet.folder(name) / WORKSPACE / "record"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_location_holds_what_the_registry_knew(fleet: Fleet) -> None:
    digest = register(fleet, "churn", b"one")
    point(fleet, "churn", "champion", 1)
    publish(fleet)
    for name in ("virginia", "amsterdam", "eemshaven"):
        copy = copy_at(fleet, name)
        document = copy.model("churn")
        assert document is not None
        assert document.rows["model_versions"][0]["artifact_digest"] == digest
        assert document.rows["model_versions"][0]["metrics"] == {"auc": 0.91}
        assert document.rows["aliases"][0]["version"] == 1
        assert {row["state"] for row in document.rows["replicas"]} == {"VERIFIED"}
        assert [row["name"] for row in copy.workspace()["settings"].rows["addresses"]] == [
            "amsterdam",
            "eemshaven",
            "virginia",
        ]
        assert copy.model("other") is None
    assert "tokens" not in json.dumps([dict(document.rows) for document in copy_at(fleet, "virginia").models()])


def test_a_change_writes_what_it_changed_and_no_more(fleet: Fleet) -> None:
    for number in range(5):
        register(fleet, f"model-{number}", b"bytes of %d" % number)
    publish(fleet)
    before = record_objects(fleet, "virginia")
    point(fleet, "model-3", "champion", 1)
    publish(fleet)
    new = record_objects(fleet, "virginia").keys() - before.keys()
    # The model's document, its directory, and the index.
    assert len(new) == 3
    assert sum(name.startswith("index/") for name in new) == 1


def crashing(name: str, store: ObjectStore, *, call: int) -> ObjectStore:
    return CrashingStore(store, call) if name == "virginia" else store


def test_wherever_a_writer_is_killed_readers_see_one_whole_copy(fleet: Fleet) -> None:
    register(fleet, "churn", b"one")
    publish(fleet)
    point(fleet, "churn", "champion", 1)
    Sealer(fleet.database, fleet.clock).seal_once()
    crashes = 0
    while crashes < 40:
        fleet.wrap = partial(crashing, call=crashes + 1)
        # Past every lease and back-off of those that were killed before.
        fleet.clock.advance(BACK_OFF)
        try:
            fleet.run()
        except Crash:
            crashes += 1
            document = copy_at(fleet, "virginia").model("churn")
            assert document is not None
            assert len(document.rows["model_versions"]) == 1
        else:
            break
    assert 3 < crashes < 40
    document = copy_at(fleet, "virginia").model("churn")
    assert document is not None
    assert [row["name"] for row in document.rows["aliases"]] == ["champion"]


def test_what_only_old_copies_are_made_of_is_removed(fleet: Fleet) -> None:
    register(fleet, "churn", b"one")
    register(fleet, "churn", b"two")
    for turn in range(11):
        point(fleet, "churn", "champion", 1 + turn % 2, turn)
        publish(fleet)
    objects = record_objects(fleet, "virginia")
    assert sum(name.startswith("index/") for name in objects) == 8
    assert len(objects) < 40
    assert copy_at(fleet, "virginia").model("churn") is not None


def test_restricted_models_are_known_only_where_their_data_may_be(fleet: Fleet) -> None:
    register(fleet, "scoring", b"eu", residency="eu", near="amsterdam")
    register(fleet, "churn", b"one")
    with fleet.database.write() as session:
        for model in ("scoring", "churn"):
            session.add(
                ReplicaPolicyRow(
                    workspace_id=WORKSPACE,
                    name=f"of-{model}",
                    document={"pattern": f"models/{model}"},
                    updated_by="ana",
                    updated_at=fleet.clock.now(),
                )
            )
    publish(fleet)
    policies = {
        name: {row["name"] for row in copy_at(fleet, name).workspace()["settings"].rows["replica_policies"]}
        for name in ("virginia", "amsterdam")
    }
    assert policies == {"virginia": {"of-churn"}, "amsterdam": {"of-churn", "of-scoring"}}
    for path in (fleet.folder("virginia") / WORKSPACE / "record").rglob("*.gz"):
        assert b"scoring" not in gzip.decompress(path.read_bytes())
    assert copy_at(fleet, "amsterdam").model("scoring") is not None
    assert copy_at(fleet, "virginia").model("scoring") is None
    assert {document.name for document in copy_at(fleet, "virginia").models()} == {"churn"}


def test_a_copy_that_was_changed_or_is_not_of_a_trusted_key_is_refused(fleet: Fleet) -> None:
    register(fleet, "churn", b"one")
    publish(fleet)
    other = public_key_of(generate_signing_key())
    with pytest.raises(BadSignature):
        RecordCopy.open(store_at(fleet, "virginia"), WORKSPACE, {key_id_of(other): other})
    folder = fleet.folder("virginia") / WORKSPACE / "record"
    for path in (folder / "plain").iterdir():
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(CorruptObject):
        copy_at(fleet, "virginia").model("churn")
    for path in (folder / "index").iterdir():
        path.write_bytes(path.read_bytes().replace(b'"signature":"', b'"signature":"AA'))
    with pytest.raises(BadSignature):
        copy_at(fleet, "virginia")


def test_a_rolled_back_copy_is_refused_by_those_who_saw_a_newer_one(fleet: Fleet) -> None:
    register(fleet, "churn", b"one")
    publish(fleet)
    old = record_objects(fleet, "virginia")
    point(fleet, "churn", "champion", 1)
    publish(fleet)
    seen = copy_at(fleet, "amsterdam").index.sequence
    folder = fleet.folder("virginia") / WORKSPACE / "record"
    for name in record_objects(fleet, "virginia").keys() - old.keys():
        (folder / name).unlink()
    assert copy_at(fleet, "virginia").index.sequence < seen
    with pytest.raises(StaleRevision):
        copy_at(fleet, "virginia", seen=seen)


def test_a_location_that_was_wiped_gets_its_copy_again(fleet: Fleet) -> None:
    digest = register(fleet, "churn", b"one")
    publish(fleet)
    fleet.wipe("amsterdam")
    with pytest.raises(ObjectNotFound):
        copy_at(fleet, "amsterdam")
    fleet.artifacts.verify(ADMIN, digest)
    fleet.settle()
    publish(fleet)
    assert copy_at(fleet, "amsterdam").model("churn") is not None


def test_where_the_workspace_encrypts_the_copy_is_encrypted_and_the_refs_name_nothing(
    fleet: Fleet, tmp_path: Path
) -> None:
    make_key_file(tmp_path / "key")
    keys = Keys(fleet.database, fleet.clock, providers={"file": KeyFiles([tmp_path / "key"])})
    fleet.keyring = UnwrappingKeyring({"file": KeyFiles([tmp_path / "key"])}, keys.look_up)
    key = keys.create(ADMIN, provider="file")
    register(fleet, "secret-churn", b"one")
    point(fleet, "secret-churn", "champion", 1)
    publish(fleet)
    folder = fleet.folder("virginia") / WORKSPACE
    for path in [*(folder / "record").rglob("*.json*"), *(folder / "refs").iterdir()]:
        assert b"secret-churn" not in path.read_bytes()
        assert path.parent.name in {"index", "refs"} or path.read_bytes().startswith(b"\x89FLENCR\x01")
    copy = copy_at(fleet, "virginia", key_files=[tmp_path / "key"])
    assert copy.index.key_id == key.id
    assert copy.model("secret-churn") is not None
    with pytest.raises(KeyUnavailable):
        copy_at(fleet, "virginia").model("secret-churn")


def rows_of(database: Database, *tables: str) -> dict[str, list[dict[str, object]]]:
    volatile = {"published_refs_revision", "published_record_sequence"}
    with database.read() as session:
        return {
            name: [
                {column: value for column, value in row.items() if column not in volatile}
                for row in session.execute(
                    select(metadata().tables[name]).order_by(*metadata().tables[name].primary_key.columns)
                ).mappings()
            ]
            for name in tables
        }


RESTORED = (
    "registered_models",
    "model_versions",
    "version_tags",
    "aliases",
    "alias_moves",
    "artifacts",
    "locations",
    "encryption_keys",
)


def empty_database(path: Path) -> Database:
    path.write_bytes(migrated_sqlite_file())
    return Database(f"sqlite:///{path}")


def test_a_registry_is_made_again_from_a_bucket(fleet: Fleet, migrated_database_url: str) -> None:
    files = {"churn": b"one", "fraud": b"two"}
    digests = {model: register(fleet, model, content) for model, content in files.items()}
    point(fleet, "churn", "champion", 1)
    publish(fleet)
    before = rows_of(fleet.database, *RESTORED)
    database = Database(migrated_database_url)
    try:
        told = restore_record(None, fleet.clock, [copy_at(fleet, "eemshaven")])
        done = restore_record(database, fleet.clock, [copy_at(fleet, "eemshaven")])
        assert told == done
        assert done.rows["registered_models"] == 2
        assert any("tokens" in each for each in done.lost)
        assert rows_of(database, *RESTORED) == before
        with pytest.raises(AlreadyExists):
            restore_record(database, fleet.clock, [copy_at(fleet, "eemshaven")])

        again = Fleet(root=fleet.root, database=database, clock=fleet.clock, signing_key=fleet.signing_key)
        moved = {name: len(again.packs(name)) for name in ("virginia", "amsterdam", "eemshaven")}
        # Nothing is believed to be there until a worker has read it.
        assert set(again.states(digests["churn"]).values()) == {"PENDING"}
        again.settle()
        for model, digest in digests.items():
            assert set(again.states(digest).values()) == {"VERIFIED"}
            assert again.read(digest, "amsterdam") == {"model": files[model]}
        assert {name: len(again.packs(name)) for name in moved} == moved
        resolved = Versions(database, fleet.clock).resolve(ADMIN, "churn@champion")
        assert resolved.version.artifact_digest == digests["churn"]
        # It goes on where the copies end, and its own are the newer ones.
        seen = copy_at(fleet, "virginia").index.sequence
        point(again, "fraud", "champion", 1)
        publish(again)
        assert copy_at(again, "virginia", seen=seen + 1).index.sequence > seen
        assert register(again, "churn", b"three") not in digests.values()
    finally:
        database.close()


def test_a_restored_replica_that_cannot_be_read_yet_is_pending_and_not_corrupt(fleet: Fleet, tmp_path: Path) -> None:
    digest = register(fleet, "churn", b"one")
    publish(fleet)
    database = empty_database(tmp_path / "restored.db")
    try:
        restore_record(database, fleet.clock, [copy_at(fleet, "eemshaven")])
        again = Fleet(root=fleet.root, database=database, clock=fleet.clock, signing_key=fleet.signing_key)
        for name in ("virginia", "amsterdam", "eemshaven"):
            fleet.folder(name).rename(tmp_path / name)
        again.run()
        assert set(again.states(digest).values()) == {"PENDING"}
        for name in ("virginia", "amsterdam", "eemshaven"):
            (tmp_path / name).rename(fleet.folder(name))
        again.settle()
        assert set(again.states(digest).values()) == {"VERIFIED"}
    finally:
        database.close()


def test_copies_of_several_locations_make_the_whole(fleet: Fleet, tmp_path: Path) -> None:
    scoring = register(fleet, "scoring", b"eu", residency="eu", near="amsterdam")
    churn = register(fleet, "churn", b"one")
    publish(fleet)
    database = empty_database(tmp_path / "restored.db")
    try:
        copies = [copy_at(fleet, "virginia"), copy_at(fleet, "amsterdam")]
        done = restore_record(database, fleet.clock, copies)
        assert done.rows["registered_models"] == 2
        again = Fleet(root=fleet.root, database=database, clock=fleet.clock, signing_key=fleet.signing_key)
        again.settle()
        assert again.states(scoring) == {"amsterdam": "VERIFIED", "eemshaven": "VERIFIED"}
        assert len(again.states(churn)) == 3
    finally:
        database.close()


def test_a_version_that_was_not_read_back_comes_back_failed(fleet: Fleet, tmp_path: Path) -> None:
    register(fleet, "churn", b"one")
    upload_id, _ = fleet.register({"model": b"two"})
    Versions(fleet.database, fleet.clock).register(ADMIN, "churn", VersionDraft(upload_id=upload_id))
    Sealer(fleet.database, fleet.clock).seal_once()
    # Only the copy is made, before anything is read back.
    with fleet.database.read() as session:
        location = session.scalars(select(LocationRow).where(LocationRow.name == "virginia")).one()
    with fleet.database.read() as session:
        state = collect_record(session, WORKSPACE, to_location(location), [registry_rows], fleet.clock.now())
    index, objects = build_copy(state)
    store = store_at(fleet, "virginia")
    for data in objects.values():
        write_document(store, WORKSPACE, index.key_id, data)
    write_index(store, index, fleet.signing_key)
    database = empty_database(tmp_path / "restored.db")
    try:
        done = restore_record(database, fleet.clock, [copy_at(fleet, "virginia")])
        assert any("1 versions that were not READY" in each for each in done.lost)
        versions = rows_of(database, "model_versions")["model_versions"]
        assert [row["state"] for row in versions] == ["READY", "FAILED"]
    finally:
        database.close()


def test_an_index_is_listed_by_its_sequence(fleet: Fleet) -> None:
    register(fleet, "churn", b"one")
    publish(fleet)
    (newest, *_) = list_sequences(store_at(fleet, "virginia"), WORKSPACE)
    assert store_at(fleet, "virginia").size(index_key(WORKSPACE, newest))


@pytest.mark.parametrize("harm", ["flipped", "missing", "rolled-back"])
def test_a_scrub_finds_a_damaged_copy_and_has_it_written_again(fleet: Fleet, harm: str) -> None:
    register(fleet, "churn", b"one")
    publish(fleet)
    point(fleet, "churn", "champion", 1)
    publish(fleet)
    folder = fleet.folder("virginia") / WORKSPACE / "record"
    newest = max((folder / "index").iterdir())
    assert run_task(fleet, "scrub").findings == []
    for path in [newest] if harm == "rolled-back" else list((folder / "plain").iterdir()):
        if harm == "flipped":
            flip_a_byte(path)
        else:
            path.unlink()
    (finding,) = run_task(fleet, "scrub").findings
    assert (finding["harm"], finding["action"]) == (harm, "written again")
    publish(fleet)
    assert run_task(fleet, "scrub").findings == []
    document = copy_at(fleet, "virginia").model("churn")
    assert document is not None
    assert document.rows["aliases"][0]["name"] == "champion"


def test_a_copy_that_is_made_while_a_scrub_lists_is_not_taken_for_rolled_back(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(fleet, "churn", b"one")
    publish(fleet)

    def list_and_publish(store: ObjectStore, workspace_id: str) -> list[StoredObject]:
        found = list(list_objects(store, workspace_id))
        monkeypatch.undo()
        point(fleet, "churn", "champion", 1)
        Sealer(fleet.database, fleet.clock).seal_once()
        fleet.clock.advance(timedelta(seconds=6))
        fleet.run()
        return found

    monkeypatch.setattr("fairlead.sync.scrub.list_objects", list_and_publish)
    assert run_task(fleet, "scrub").findings == []


def test_copies_that_supersede_one_while_a_scrub_reads_it_are_no_damage(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(fleet, "churn", b"one")
    publish(fleet)
    opened = RecordCopy.open

    def open_and_supersede(*arguments: Any, **options: Any) -> RecordCopy:
        copy = opened(*arguments, **options)
        monkeypatch.undo()
        for turn in range(KEPT_COPIES + 1):
            point(fleet, "churn", "champion", 1, turn)
            publish(fleet)
        return copy

    monkeypatch.setattr("fairlead.sync.scrub.RecordCopy.open", open_and_supersede)
    assert run_task(fleet, "scrub").findings == []


def test_a_worker_that_lost_its_lease_deletes_nothing(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    register(fleet, "churn", b"one")
    names = ("virginia", "amsterdam", "eemshaven")
    for turn in range(KEPT_COPIES + 1):
        point(fleet, "churn", "champion", 1, turn)
        publish(fleet)
    before = {name: set(record_objects(fleet, name)) for name in names}

    def write_and_lose(*arguments: Any) -> None:
        write_index(*arguments)
        monkeypatch.undo()
        with fleet.database.write() as session:
            session.execute(update(WorkRow).values(lease_token=WorkRow.lease_token + 1))

    monkeypatch.setattr("fairlead.sync.record_publication.write_index", write_and_lose)
    point(fleet, "churn", "champion", 1, KEPT_COPIES + 1)
    Sealer(fleet.database, fleet.clock).seal_once()
    fleet.clock.advance(timedelta(seconds=6))
    fleet.run()
    assert sum(before[name] <= set(record_objects(fleet, name)) for name in names) == 1
