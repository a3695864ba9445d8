from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from fairlead.core.errors import AliasNotFound, BadSignature, ObjectNotFound
from fairlead.registry.aliases import Aliases
from fairlead.registry.models import Labels, Models, RegisteredModel
from fairlead.registry.paging import PageRequest
from fairlead.registry.version_registration import VersionDraft
from fairlead.registry.versions import Versions
from fairlead.sync.store.objects import open_store
from fairlead.sync.store.refs import RefSet, generate_signing_key, key_id_of, public_key_of, read_refs
from tests.fleet import ADMIN, LABELS, Fleet, open_fleet
from tests.records import WORKSPACE


@pytest.fixture
def fleet(tmp_path: Path, database_url: str) -> Generator[Fleet]:
    with open_fleet(tmp_path, database_url) as fleet:
        yield fleet


def register(
    fleet: Fleet, model: str, content: bytes, *, residency: str = "unrestricted", near: str = "virginia"
) -> str:
    upload_id, written = fleet.register({"model": content}, residency=residency, near=near)
    if not any(each.name == model for each in known_models(fleet)):
        Models(fleet.database, fleet.clock).create(ADMIN, name=model, labels=Labels(**LABELS), residency=residency)
    Versions(fleet.database, fleet.clock).register(ADMIN, model, VersionDraft(upload_id=upload_id))
    fleet.run()
    return written.digest


def known_models(fleet: Fleet) -> tuple[RegisteredModel, ...]:
    return Models(fleet.database, fleet.clock).list(ADMIN, PageRequest()).items


def move(fleet: Fleet, model: str, alias: str, version: int, revision: int) -> None:
    Aliases(fleet.database, fleet.clock).set(ADMIN, model, alias, version, expected_revision=revision)
    fleet.run()


def refs_at(fleet: Fleet, name: str, *, key: bytes | None = None) -> RefSet:
    public = public_key_of(key or fleet.signing_key)
    return read_refs(open_store(fleet.folder(name).as_uri()), WORKSPACE, {key_id_of(public): public})


def test_every_location_can_tell_where_a_name_points(fleet: Fleet) -> None:
    first = register(fleet, "churn", b"1")
    move(fleet, "churn", "champion", 1, 0)
    for name in ("virginia", "amsterdam", "eemshaven"):
        ref = refs_at(fleet, name).resolve("churn@champion")
        assert (ref.kind, ref.targets[0].digest, ref.revision) == ("alias", first, 1)

    second = register(fleet, "churn", b"2")
    move(fleet, "churn", "champion", 2, 1)
    for name in ("virginia", "amsterdam", "eemshaven"):
        ref = refs_at(fleet, name).resolve("churn@champion")
        assert (ref.targets[0].digest, ref.revision) == (second, 2)


def test_names_of_restricted_models_are_written_only_where_their_data_may_be(fleet: Fleet) -> None:
    register(fleet, "scoring", b"eu", residency="eu", near="amsterdam")
    register(fleet, "churn", b"1")
    move(fleet, "scoring", "champion", 1, 0)
    move(fleet, "churn", "champion", 1, 0)
    assert refs_at(fleet, "amsterdam").resolve("scoring@champion").targets[0].residency == "eu"
    with pytest.raises(AliasNotFound):
        refs_at(fleet, "virginia").resolve("scoring@champion")
    assert refs_at(fleet, "virginia").resolve("churn@champion")
    for path in (fleet.folder("virginia") / WORKSPACE / "refs").iterdir():
        assert b"scoring" not in path.read_bytes()


def test_refs_of_another_key_are_not_believed(fleet: Fleet) -> None:
    register(fleet, "churn", b"1")
    move(fleet, "churn", "champion", 1, 0)
    with pytest.raises(BadSignature):
        refs_at(fleet, "virginia", key=generate_signing_key())


def test_a_location_that_is_new_or_was_wiped_gets_them_too(fleet: Fleet) -> None:
    digest = register(fleet, "churn", b"1")
    move(fleet, "churn", "champion", 1, 0)
    fleet.wipe("amsterdam")
    with pytest.raises(ObjectNotFound):
        refs_at(fleet, "amsterdam")
    fleet.artifacts.verify(ADMIN, digest)
    fleet.run()
    assert refs_at(fleet, "amsterdam").resolve("churn@champion")


def test_nothing_is_written_while_nothing_moved(fleet: Fleet) -> None:
    fleet.run()
    with pytest.raises(ObjectNotFound):
        refs_at(fleet, "virginia")
