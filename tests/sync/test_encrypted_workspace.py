"""A workspace with an encryption key: nothing that it stores says anything, and all of it is read back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Mapping
from datetime import timedelta
from pathlib import Path

import fsspec
import pytest

from fairlead.catalog import load_catalog
from fairlead.core.errors import FairleadError, KeyUnavailable
from fairlead.core.ids import Digest
from fairlead.core.ports import ObjectStore
from fairlead.registry.audit import Sealer
from fairlead.registry.keys import EncryptionKey, Keys
from fairlead.registry.tables import LocationRow
from fairlead.serving.artifacts import RegionArtifacts
from fairlead.sync.store.encryption import EncryptedStore, Keyring
from fairlead.sync.store.keyring import KeyFiles, UnwrappingKeyring, make_key_file
from fairlead.sync.store.objects import open_store
from fairlead.sync.store.offline import list_artifacts, verify_artifact
from fairlead.sync.store.record import open_with_own_keys
from tests.fleet import ADMIN, REGIONS, Fleet, flip_a_byte, open_fleet
from tests.records import WORKSPACE
from tests.servers.object_stores import ObjectStoreServer

SECRET = b"the weights of the model, which are nobody's business; "
FILES = {"config.json": json.dumps({"secret-name": 1}).encode(), "weights.bin": SECRET * 4000}


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    make_key_file(tmp_path / "key")
    return tmp_path / "key"


@pytest.fixture
def fleet(tmp_path: Path, key_file: Path) -> Generator[Fleet]:
    (tmp_path / "regions").mkdir()
    with open_fleet(tmp_path / "regions") as fleet:
        fleet.keyring = keyring_of(fleet, [key_file])
        yield fleet


def keys_of(fleet: Fleet, files: list[Path]) -> Keys:
    return Keys(fleet.database, fleet.clock, providers={"file": KeyFiles(files)})


def keyring_of(fleet: Fleet, files: list[Path]) -> Keyring:
    return UnwrappingKeyring({"file": KeyFiles(files)}, keys_of(fleet, files).look_up)


def encrypt(fleet: Fleet, key_file: Path) -> EncryptionKey:
    return keys_of(fleet, [key_file]).create(ADMIN, provider="file")


def everything_stored(fleet: Fleet) -> dict[str, bytes]:
    root = fleet.root
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def check_secrecy(stored: Mapping[str, bytes], key_id: str) -> None:
    objects = {key: data for key, data in stored.items() if f"/{key_id}/" in key}
    assert {key.split(f"/{key_id}/")[1].partition("/")[0] for key in objects} == {"packs", "layouts", "manifests"}
    for key, data in objects.items():
        assert data.startswith(b"\x89FLENCR\x01"), key
        for word in (b"weights", b"secret-name", b"fairlead/", b"FLB", b"sha256"):
            assert word not in data, key


def test_a_model_is_registered_replicated_deployed_and_read_and_nothing_of_it_is_stored_in_the_clear(
    fleet: Fleet, key_file: Path, tmp_path: Path
) -> None:
    key = encrypt(fleet, key_file)
    _, written = fleet.register(FILES)
    fleet.settle()
    assert set(fleet.states(written.digest).values()) == {"VERIFIED"}
    stored = everything_stored(fleet)
    check_secrecy(stored, key.id)
    assert not any("/plain/" in name for name in stored)
    for name in REGIONS:
        assert fleet.read(written.digest, name) == FILES
    # What a deployment reads its bundle and model through.
    artifacts = RegionArtifacts(fleet.database, fleet.clock, uploads=fleet.uploads, open_store=fleet.open_store)
    digest = Digest(written.digest)
    artifacts.download(WORKSPACE, "unrestricted", digest, REGIONS["amsterdam"], tmp_path / "deployed")
    assert (tmp_path / "deployed" / "weights.bin").read_bytes() == FILES["weights.bin"]


def test_without_the_key_the_error_says_what_to_set_and_no_replica_is_blamed(fleet: Fleet, key_file: Path) -> None:
    encrypt(fleet, key_file)
    _, written = fleet.register(FILES)
    fleet.settle()
    fleet.keyring = keyring_of(fleet, [])
    with pytest.raises(KeyUnavailable) as caught:
        fleet.read(written.digest, "virginia")
    assert "FAIRLEAD_KEY_FILE" in (caught.value.hint or "")
    fleet.artifacts.verify(ADMIN, written.digest)
    fleet.run()
    assert set(fleet.states(written.digest).values()) == {"VERIFIED"}


def test_after_a_rotation_everything_is_read_with_the_new_key_file_alone(
    fleet: Fleet, key_file: Path, tmp_path: Path
) -> None:
    key = encrypt(fleet, key_file)
    _, written = fleet.register(FILES)
    fleet.settle()
    before = everything_stored(fleet)
    make_key_file(tmp_path / "new")
    keys_of(fleet, [tmp_path / "new", key_file]).rotate(ADMIN, key.id)
    key_file.unlink()
    fleet.keyring = keyring_of(fleet, [tmp_path / "new"])
    assert fleet.read(written.digest, "amsterdam") == FILES
    packs = {name: data for name, data in everything_stored(fleet).items() if "/packs/" in name}
    assert packs == {name: data for name, data in before.items() if "/packs/" in name}


def test_equal_blocks_are_sent_once_under_one_key_and_again_under_another(fleet: Fleet, key_file: Path) -> None:
    weights = os.urandom(300_000)
    encrypt(fleet, key_file)
    fleet.register({"weights.bin": weights})
    fleet.settle()
    _, same_key = fleet.register({"weights.bin": weights, "notes.txt": b"one"})
    fleet.settle()
    encrypt(fleet, key_file)
    _, other_key = fleet.register({"weights.bin": weights, "notes.txt": b"two"})
    fleet.settle()
    assert same_key.sent_bytes < 20_000
    assert other_key.sent_bytes > len(weights)
    assert fleet.read(other_key.digest, "amsterdam")["notes.txt"] == b"two"


def test_registering_again_moves_an_artifact_to_the_key_of_now(fleet: Fleet, key_file: Path) -> None:
    _, plain = fleet.register(FILES)
    fleet.settle()
    assert {replica.key_id for replica in fleet.artifact(plain.digest).replicas} == {"plain"}
    key = encrypt(fleet, key_file)
    upload_id, again = fleet.register(FILES)
    fleet.settle()
    assert again.digest == plain.digest
    assert fleet.uploads.get(ADMIN, upload_id).state == "READY"
    replicas = fleet.artifact(plain.digest).replicas
    assert {(replica.state, replica.key_id) for replica in replicas} == {("VERIFIED", key.id)}
    assert all(f"/{key.id}/layouts/" in str(replica.layout_key) for replica in replicas)
    for name in REGIONS:
        assert fleet.read(plain.digest, name) == FILES


def test_a_copy_that_was_under_way_when_its_artifact_moved_is_made_again(fleet: Fleet, key_file: Path) -> None:
    upload_id, plain = fleet.register(FILES)
    moved: list[bool] = []

    def wrap(name: str, store: ObjectStore) -> ObjectStore:
        # The first copy to Amsterdam finds the artifact moved when it is done.
        if name == "amsterdam" and not moved and fleet.uploads.get(ADMIN, upload_id).state == "READY":
            moved.append(True)
            encrypt(fleet, key_file)
            fleet.register(FILES)
        return store

    fleet.wrap = wrap
    fleet.settle()
    assert moved
    assert set(fleet.states(plain.digest).values()) == {"VERIFIED"}
    assert len({replica.key_id for replica in fleet.artifact(plain.digest).replicas}) == 1
    assert fleet.read(plain.digest, "amsterdam") == FILES


@pytest.mark.parametrize("damage", [flip_a_byte, cut, Path.unlink])
def test_a_damaged_encrypted_pack_is_found_and_mended(
    fleet: Fleet, key_file: Path, damage: Callable[[Path], object]
) -> None:
    encrypt(fleet, key_file)
    _, written = fleet.register(FILES)
    fleet.settle()
    damage(fleet.packs("eemshaven")[0])
    fleet.artifacts.verify(ADMIN, written.digest)
    fleet.settle()
    assert set(fleet.states(written.digest).values()) == {"VERIFIED"}
    assert fleet.read(written.digest, "eemshaven") == FILES


def test_a_model_is_encrypted_in_three_clouds(
    tmp_path: Path,
    key_file: Path,
    moto_server: ObjectStoreServer,
    gcs_server: ObjectStoreServer,
    azurite_server: ObjectStoreServer,
) -> None:
    servers = {"virginia": moto_server, "eemshaven": gcs_server, "amsterdam": azurite_server}
    urls = {name: f"{server.new_bucket()}/fairlead" for name, server in servers.items()}
    with open_fleet(tmp_path, names=()) as fleet:
        fleet.keyring = keyring_of(fleet, [key_file])
        for name, server in servers.items():
            add_cloud(fleet, name, urls[name], server)
        key = encrypt(fleet, key_file)
        _, written = fleet.register(FILES)
        fleet.settle()
        assert set(fleet.states(written.digest).values()) == {"VERIFIED"}
        for name, server in servers.items():
            assert fleet.read(written.digest, name) == FILES
            files = fsspec.filesystem(server.scheme, **server.options)
            found = files.find(urls[name].partition("://")[2])
            check_secrecy({path: files.cat_file(path) for path in found}, key.id)


def add_cloud(fleet: Fleet, name: str, url: str, server: ObjectStoreServer) -> None:
    """A location of an emulator, with the credentials that a real process would have in its environment."""
    region = load_catalog().region(REGIONS[name])
    options = server.options | ({"has_create_only": False} if server.scheme == "gs" else {})
    with fleet.database.write() as session:
        session.add(
            LocationRow(
                workspace_id=WORKSPACE,
                name=name,
                region=region.id,
                jurisdiction=region.jurisdiction,
                url=url,
                options=options,
                created_at=fleet.clock.now(),
            )
        )


def test_the_error_of_a_reader_without_access_is_one_of_ours(fleet: Fleet) -> None:
    store = EncryptedStore(open_store(fleet.folder("virginia").as_uri()), keyring_of(fleet, []))
    with pytest.raises(FairleadError) as caught:
        store.read(f"{WORKSPACE}/eu/{'0' * 8}-0000-7000-8000-{'0' * 12}/manifests/x.json")
    assert caught.value.code == "encryption-key-not-found"


def test_a_location_is_verified_offline_with_the_keys_that_its_own_copy_names(fleet: Fleet, key_file: Path) -> None:
    encrypt(fleet, key_file)
    _, written = fleet.register(FILES)
    Sealer(fleet.database, fleet.clock).seal_once()
    fleet.clock.advance(timedelta(seconds=6))
    fleet.settle()
    raw = open_store(fleet.folder("virginia").as_uri())
    store = open_with_own_keys(raw, {"file": KeyFiles([key_file])})
    ((domain, artifact),) = list_artifacts(store)
    assert artifact == written.digest
    verdict = verify_artifact(store, domain, artifact)
    assert (verdict.verdict, verdict.files) == ("verified", len(FILES))
    for blind in (raw, open_with_own_keys(raw, {"file": KeyFiles([])})):
        assert verify_artifact(blind, domain, artifact).verdict == "encrypted"
    cut(fleet.packs("virginia")[0])
    assert verify_artifact(store, domain, artifact).verdict == "corrupt-object"
