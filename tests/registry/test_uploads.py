from __future__ import annotations

import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from fairlead.core.errors import (
    Conflict,
    InvalidDigest,
    InvalidInput,
    LeaseLost,
    LocationNotFound,
    ResidencyViolation,
    UnknownRegion,
    UnknownResidency,
    UploadNotFound,
)
from fairlead.core.ids import sha256_digest
from fairlead.registry.blocks import PLAIN_KEY_ID
from fairlead.registry.idempotency import IdempotencyKey
from fairlead.registry.tables import UploadRow, WorkRow
from fairlead.registry.uploads import UPLOAD_LEASE, derive_verifications
from fairlead.sync.store import domain
from tests.fleet import ADMIN, Fleet, open_fleet
from tests.records import WORKSPACE

FILES = {"model.txt": b"weights" * 1000}


@pytest.fixture
def fleet(tmp_path: Path, database_url: str) -> Generator[Fleet]:
    with open_fleet(tmp_path, database_url) as fleet:
        yield fleet


@pytest.fixture
def local(tmp_path: Path) -> Generator[Fleet]:
    with open_fleet(tmp_path) as fleet:
        yield fleet


def test_the_index_and_the_store_mean_the_same_key() -> None:
    assert domain.PLAIN_KEY_ID == PLAIN_KEY_ID


def test_bytes_go_to_the_nearest_permitted_location(local: Fleet) -> None:
    assert local.begin(near="virginia").location.name == "virginia"
    assert local.begin(near="eemshaven").location.name == "eemshaven"
    assert local.begin(residency="eu", near="virginia").location.name in {"amsterdam", "eemshaven"}
    assert local.begin(regions=["azure:westeurope"], near="virginia").location.name == "amsterdam"


def test_without_a_region_the_first_permitted_location_by_name_is_taken(local: Fleet) -> None:
    upload = local.uploads.begin(ADMIN, kind="model", residency="us")
    assert upload.location.name == "virginia"


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"kind": "cake", "residency": "eu"}, InvalidInput),
        ({"kind": "model", "residency": "atlantis"}, UnknownResidency),
        ({"kind": "model", "residency": "eu", "region": "aws:nowhere"}, UnknownRegion),
        ({"kind": "model", "residency": "eu", "regions": ["aws:nowhere"]}, UnknownRegion),
        ({"kind": "model", "residency": "eu", "regions": ["aws:us-east-1"]}, ResidencyViolation),
        ({"kind": "model", "residency": "eu", "regions": []}, InvalidInput),
        ({"kind": "model", "residency": "jpn"}, ResidencyViolation),
        ({"kind": "model", "residency": "eu", "regions": ["aws:eu-west-1"]}, LocationNotFound),
        ({"kind": "model", "residency": "eu", "labels": {"a/\0": "b"}}, InvalidInput),
    ],
)
def test_what_cannot_be_uploaded_is_refused_with_a_hint(
    local: Fleet, asked: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        local.uploads.begin(ADMIN, **asked)  # pyright: ignore[reportArgumentType]  (as a request may carry it)
    assert getattr(caught.value, "hint", None)


def test_a_workspace_without_locations_says_how_to_add_one(tmp_path: Path) -> None:
    with open_fleet(tmp_path, names=()) as fleet, pytest.raises(LocationNotFound, match="fairlead location add"):
        fleet.begin(near="virginia")


def test_beginning_twice_with_one_idempotency_key_opens_one_upload(fleet: Fleet) -> None:
    key = IdempotencyKey(key="one", request_sha256="0" * 64)
    first = fleet.uploads.begin(ADMIN, kind="model", residency="eu", key=key)
    assert fleet.uploads.begin(ADMIN, kind="model", residency="eu", key=key) == first


def test_handing_over_asks_for_verification_once(fleet: Fleet) -> None:
    upload = fleet.begin(near="virginia")
    written = fleet.write(upload, FILES)
    assert fleet.complete(upload, written).state == "VERIFYING"
    assert fleet.complete(upload, written).state == "VERIFYING"
    assert fleet.count(WorkRow) == 1
    with pytest.raises(Conflict):
        fleet.uploads.complete(
            ADMIN, upload.id, artifact_digest=sha256_digest(b"x"), layout_key=written.layout_key, sent_bytes=1
        )


def test_work_of_a_handed_over_upload_that_was_lost_is_derived_again(fleet: Fleet) -> None:
    upload_id, _ = fleet.register(FILES)
    with fleet.database.write() as session:
        for row in session.query(WorkRow):
            session.delete(row)
    fleet.run()
    assert fleet.uploads.get(ADMIN, upload_id).state == "READY"


def test_an_upload_whose_time_is_over_takes_nothing(fleet: Fleet) -> None:
    upload = fleet.begin(near="virginia")
    written = fleet.write(upload, FILES)
    fleet.clock.advance(UPLOAD_LEASE)
    assert fleet.uploads.get(ADMIN, upload.id).state == "EXPIRED"
    with pytest.raises(LeaseLost, match="EXPIRED"):
        fleet.complete(upload, written)
    fleet.run()
    with pytest.raises(LeaseLost, match="EXPIRED"):
        fleet.complete(upload, written)
    with pytest.raises(LeaseLost):
        fleet.uploads.known_blocks(ADMIN, upload.id, [])


def test_asking_for_known_blocks_keeps_an_upload_open(local: Fleet) -> None:
    upload = local.begin(near="virginia")
    for _ in range(3):
        local.clock.advance(UPLOAD_LEASE - timedelta(minutes=1))
        assert local.uploads.known_blocks(ADMIN, upload.id, [sha256_digest(b"x")]) == []
    assert local.complete(upload, local.write(upload, FILES)).state == "VERIFYING"


def test_known_blocks_are_those_of_verified_artifacts_in_the_same_class_and_place(local: Fleet) -> None:
    _, written = local.register(FILES, near="amsterdam")
    digests = list(written.layout.blocks)

    def known(residency: str, near: str) -> int:
        upload = local.begin(residency=residency, near=near)
        return len(local.uploads.known_blocks(ADMIN, upload.id, digests))

    assert known("unrestricted", "amsterdam") == 0, "nobody has read them back yet"
    local.run()
    assert known("unrestricted", "amsterdam") == len(digests)
    assert known("unrestricted", "virginia") == len(digests), "a copy was read back there too"
    assert known("eu", "amsterdam") == 0


def test_bad_hand_overs_are_refused(local: Fleet) -> None:
    upload = local.begin(near="virginia")
    written = local.write(upload, FILES)
    for layout_key in (
        written.layout_key.replace("unrestricted", "eu"),
        "../" + written.layout_key,
        "",
        written.layout_key + "x" * 200,
    ):
        with pytest.raises(InvalidInput):
            local.uploads.complete(
                ADMIN, upload.id, artifact_digest=written.digest, layout_key=layout_key, sent_bytes=1
            )
    with pytest.raises(InvalidDigest):
        local.uploads.complete(ADMIN, upload.id, artifact_digest="sha256:zz", layout_key="x", sent_bytes=1)
    with pytest.raises(InvalidDigest):
        local.uploads.known_blocks(ADMIN, upload.id, ["sha256:zz"])
    with pytest.raises(InvalidInput):
        local.uploads.known_blocks(ADMIN, upload.id, [sha256_digest(b"x")] * 10_001)


@pytest.mark.parametrize("upload_id", ["", "x", "../..", "01a1ff8f-c06e-7a55-b697-be9177949992"])
def test_an_upload_that_does_not_exist_is_not_found(local: Fleet, upload_id: str) -> None:
    with pytest.raises(UploadNotFound):
        local.uploads.get(ADMIN, upload_id)


def test_another_workspace_sees_no_upload_of_this_one(local: Fleet) -> None:
    upload = local.begin(near="virginia")
    stranger = type(ADMIN)(workspace_id="other", principal="eve", scopes=ADMIN.scopes)
    with pytest.raises(UploadNotFound):
        local.uploads.get(stranger, upload.id)


def test_an_upload_that_is_prolonged_at_the_last_moment_does_not_expire(fleet: Fleet) -> None:
    upload = fleet.begin(near="virginia")
    late = upload.expires_at + timedelta(seconds=1)

    def expire() -> None:
        with fleet.database.write() as session:
            derive_verifications(session, late)

    with ThreadPoolExecutor(1) as pool:
        with fleet.database.write() as session:
            row = session.get_one(UploadRow, (WORKSPACE, upload.id), with_for_update=True)
            expiry = pool.submit(expire)
            time.sleep(0.3)
            row.expires_at = late + UPLOAD_LEASE
        expiry.result(timeout=30)
    assert fleet.uploads.get(ADMIN, upload.id).state == "OPEN"
