"""While the server is away: names from the nearest copy, labelled; bytes verified as ever; old copies refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import stamina

from fairlead.core.errors import (
    AliasNotFound,
    ArtifactNotFound,
    KeyUnavailable,
    ModelNotFound,
    ModelVersionNotFound,
    NotSigned,
    ServerUnavailable,
)
from fairlead.core.keyless import sign_as_identity
from fairlead.core.signatures import create_key, read_private_key, sign
from fairlead.registry.aliases import Aliases
from fairlead.registry.audit import Sealer
from fairlead.registry.keys import Keys
from fairlead.registry.models import Labels, Models
from fairlead.registry.signers import SignerDraft, Signers
from fairlead.registry.version_registration import VersionDraft
from fairlead.registry.version_signatures import VersionSignatures
from fairlead.registry.versions import Versions
from fairlead.sdk.client import Fairlead
from fairlead.sdk.record_copies import OfflineWarning
from fairlead.sdk.settings import ClientSettings
from fairlead.sdk.signatures import Verification
from fairlead.sync.store.keyring import KeyFiles, UnwrappingKeyring, make_key_file
from fairlead.sync.store.refs import generate_signing_key, key_id_of, public_key_of
from tests.fleet import ADMIN, LABELS, REGIONS, Fleet, open_fleet
from tests.records import WORKSPACE
from tests.sdk.scripted_server import Answer, scripted_server
from tests.servers.identity_issuer import loopback_issuer
from tests.servers.sigstore_instance import sigstore_instance

VERSION = {"name": "churn", "version": 1, "reference": "churn/1", "state": "READY", "residency": "unrestricted"}


@dataclass(slots=True, kw_only=True)
class Away:
    """A record with copies, and clients that once talked to its server."""

    fleet: Fleet
    home: Path
    digest: str = ""
    key_files: tuple[Path, ...] = ()
    told: list[str] = field(default_factory=list[str])

    def publish(self) -> None:
        Sealer(self.fleet.database, self.fleet.clock).seal_once()
        self.fleet.clock.advance(timedelta(seconds=6))
        self.fleet.settle()

    def client(
        self, *, public_key: bytes | None = None, nearest: str = "virginia", home: Path | None = None
    ) -> Fairlead:
        """A client whose server has just gone away."""
        key = public_key or public_key_of(self.fleet.signing_key)
        names = sorted(("virginia", "amsterdam"), key=lambda name: name != nearest)
        copies = [
            {"location": name, "region": REGIONS[name], "url": self.fleet.folder(name).as_uri(), "sequence": 1}
            for name in names
        ]
        places = {"workspace": WORKSPACE, "public_keys": {key_id_of(key): key.hex()}, "copies": copies}
        with scripted_server([Answer(body=VERSION), Answer(body=places)]) as server:
            settings = ClientSettings(url=server.url, home=home or self.home, key_file=self.key_files)
            client = Fairlead.connect(settings)
            assert client.models.resolve("churn/1").as_of is None
            assert [asked.path.partition("?")[0] for asked in server.asked] == ["/api/v1/resolve", "/api/v1/record"]
        client.record.notify = self.told.append
        return client


@pytest.fixture(autouse=True)
def _no_patience() -> Iterator[None]:
    stamina.set_testing(True)
    yield
    stamina.set_testing(False)


@pytest.fixture
def away(tmp_path: Path) -> Generator[Away]:
    (tmp_path / "regions").mkdir()
    with open_fleet(tmp_path / "regions", names=("virginia", "amsterdam")) as fleet:
        yield Away(fleet=fleet, home=tmp_path / "home")


def register(away: Away) -> None:
    fleet = away.fleet
    upload_id, written = fleet.register({"model.txt": b"weights"})
    Models(fleet.database, fleet.clock).create(ADMIN, name="churn", labels=Labels(**LABELS), residency="unrestricted")
    Versions(fleet.database, fleet.clock).register(ADMIN, "churn", VersionDraft(upload_id=upload_id, tags={"a": "b"}))
    fleet.settle()
    Aliases(fleet.database, fleet.clock).set(ADMIN, "churn", "champion", 1, expected_revision=0)
    away.digest = written.digest
    away.publish()


def test_a_name_resolves_from_the_nearest_copy_and_says_so(away: Away) -> None:
    register(away)
    with away.client(nearest="amsterdam") as client:
        version = client.models.resolve("churn@champion")
        assert (version.reference, version.artifact_digest, version.tags) == ("churn/1", away.digest, {"a": "b"})
        assert (version.resolved_from, version.aliases) == ("amsterdam", ("champion",))
        assert version.as_of is not None
        assert len(away.told) == 1
        assert "churn@champion is what the copy at amsterdam says" in away.told[0]


def test_bytes_are_read_without_the_server(away: Away, tmp_path: Path) -> None:
    register(away)
    with away.client() as client:
        client.models.download("churn@champion", tmp_path / "out")
        assert (tmp_path / "out" / "model.txt").read_bytes() == b"weights"
        assert {replica.state for replica in client.models.where("churn/1")} == {"VERIFIED"}
        # A damaged replica is passed over, though there is nobody to report it to.
        for pack in away.fleet.packs("virginia"):
            pack.write_bytes(b"damaged")
        client.models.download("churn@champion", tmp_path / "again")


def test_the_sdk_warns_unless_it_is_told_how_to_notify(away: Away) -> None:
    register(away)
    with away.client() as client:
        unset = Fairlead.connect(client.settings)
        with unset, pytest.warns(OfflineWarning, match="The server does not answer"):
            unset.models.resolve("churn@champion")


def test_what_the_copy_does_not_have_is_told_as_ever(away: Away) -> None:
    register(away)
    with away.client() as client:
        with pytest.raises(AliasNotFound):
            client.models.resolve("churn@nobody")
        with pytest.raises(ModelVersionNotFound):
            client.models.resolve("churn/9")
        with pytest.raises(ModelNotFound) as caught:
            client.models.resolve("fraud@champion")
        assert "the server is away" in (caught.value.hint or "")
        assert client.artifacts.get(away.digest).kind == "model"
        with pytest.raises(ArtifactNotFound):
            client.artifacts.get("sha256:" + "0" * 64)


def test_what_changes_something_is_never_answered_by_a_copy(away: Away) -> None:
    register(away)
    with away.client() as client:
        for call in (
            lambda: client.models.promote("churn/1", "production"),
            lambda: client.models.wait_ready("churn/1"),
            lambda: client.models.set_alias("churn", "champion", 1),
        ):
            with pytest.raises(ServerUnavailable):
                call()
    assert away.told == []


def test_a_copy_that_was_put_back_is_refused_and_the_next_one_answers(away: Away, tmp_path: Path) -> None:
    register(away)
    folder = away.fleet.folder("virginia") / WORKSPACE / "record"
    shutil.copytree(folder, tmp_path / "old")
    Aliases(away.fleet.database, away.fleet.clock).set(ADMIN, "churn", "late", 1, expected_revision=0)
    away.publish()
    with away.client() as client:
        assert client.models.resolve("churn@late").resolved_from == "virginia"
        settings = client.settings
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "old", folder)
    with Fairlead.connect(settings) as client:
        client.record.notify = away.told.append
        assert client.models.resolve("churn@late").resolved_from == "amsterdam"
    shutil.rmtree(away.fleet.folder("amsterdam"))
    with Fairlead.connect(settings) as client, pytest.raises(ServerUnavailable) as caught:
        client.models.resolve("churn@late")
    assert "virginia: stale-revision" in caught.value.detail


def test_a_copy_of_another_signer_is_not_believed(away: Away) -> None:
    register(away)
    with away.client(public_key=public_key_of(generate_signing_key())) as client:
        with pytest.raises(ServerUnavailable) as caught:
            client.models.resolve("churn@champion")
        assert "virginia: bad-signature" in caught.value.detail


def test_a_client_that_knows_no_copy_says_what_it_always_said(away: Away, tmp_path: Path) -> None:
    register(away)
    with away.client() as client:
        url = client.url
    with Fairlead.connect(ClientSettings(url=url, home=tmp_path / "fresh")) as client:
        with pytest.raises(ServerUnavailable) as caught:
            client.models.resolve("churn@champion")
        assert "does not answer" in caught.value.detail


def test_signatures_are_verified_by_what_the_copy_has(away: Away, tmp_path: Path) -> None:
    database, clock = away.fleet.database, away.fleet.clock
    private, public = create_key()
    for name, key in (("release", public), ("other", create_key()[1])):
        draft = SignerDraft(public_key=key.decode())
        Signers(database, clock).put(ADMIN, name, draft, expected_revision=None)
    register(away)
    signatures = VersionSignatures(database, clock)
    with away.client() as client, pytest.raises(NotSigned):
        client.models.download("churn@champion", tmp_path / "unsigned", verify="signed")
    envelope = sign(signatures.statement(ADMIN, "churn", 1), read_private_key(private))
    signatures.record(ADMIN, "churn", 1, envelope)
    with loopback_issuer() as issuer, sigstore_instance(issuer) as instance:
        draft = SignerDraft(identity="ci@acme.example", issuer=issuer.url, trusted_root=instance.trusted_root)
        Signers(database, clock).put(ADMIN, "ci", draft, expected_revision=None)
        token = issuer.token(datetime.now(UTC), audience="sigstore", sub="ci@acme.example")
        statement = signatures.statement(ADMIN, "churn", 1)
        bundle = sign_as_identity(statement, token, json.dumps(instance.trust_config))
        signatures.record(ADMIN, "churn", 1, bundle)
    away.publish()
    with away.client() as client:
        client.models.download("churn@champion", tmp_path / "out", verify=Verification(count=2))
        client.models.download("churn/1", tmp_path / "job", verify=Verification(signers=("ci",)))
        client.models.download("churn/1", tmp_path / "own", verify=Verification(public_keys={"k": public.decode()}))
        with pytest.raises(NotSigned):
            client.models.download("churn/1", tmp_path / "others", verify=Verification(signers=("other",)))
    assert (tmp_path / "out" / "model.txt").read_bytes() == b"weights"
    Signers(database, clock).revoke(ADMIN, "release", reason="Lost.")
    away.publish()
    with away.client() as client:
        client.models.download("churn/1", tmp_path / "still", verify="signed")
        with pytest.raises(NotSigned, match="0 of 1 signatures by release"):
            client.models.download("churn/1", tmp_path / "revoked", verify=Verification(signers=("release",)))
    assert not any((tmp_path / name).exists() for name in ("unsigned", "others", "revoked"))


def test_what_the_client_keeps_is_its_owners_alone(away: Away) -> None:
    register(away)
    with away.client():
        (kept,) = (away.home / "record").iterdir()
    assert kept.stat().st_mode & 0o077 == 0


def test_an_encrypted_record_is_read_with_the_key_and_not_without(away: Away, tmp_path: Path) -> None:
    make_key_file(tmp_path / "key")
    providers = {"file": KeyFiles([tmp_path / "key"])}
    keys = Keys(away.fleet.database, away.fleet.clock, providers=providers)
    away.fleet.keyring = UnwrappingKeyring(providers, keys.look_up)
    keys.create(ADMIN, provider="file")
    register(away)
    away.key_files = (tmp_path / "key",)
    with away.client() as client:
        client.models.download("churn@champion", tmp_path / "out")
    assert (tmp_path / "out" / "model.txt").read_bytes() == b"weights"
    away.key_files = ()
    with away.client(home=tmp_path / "stranger") as client, pytest.raises(KeyUnavailable) as caught:
        client.models.resolve("churn@champion")
    assert "FAIRLEAD_KEY_FILE" in (caught.value.hint or "")
