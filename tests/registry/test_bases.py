"""Which artifacts an upload is told that its files may differ little from."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from fairlead.core.errors import LeaseLost, UploadNotFound
from fairlead.registry.models import Labels, Models
from fairlead.registry.tables import ArtifactRow, ReplicaRow
from fairlead.registry.uploads import UPLOAD_LEASE
from fairlead.registry.version_registration import VersionDraft
from fairlead.registry.versions import Versions
from tests.fleet import ADMIN, Fleet, open_fleet


@pytest.fixture
def fleet(tmp_path: Path, database_url: str) -> Generator[Fleet]:
    with open_fleet(tmp_path, database_url, names=("virginia", "amsterdam")) as fleet:
        Models(fleet.database, fleet.clock).create(
            ADMIN, name="churn", labels=Labels(owner="ana", team="risk", cost_centre="cc-7")
        )
        yield fleet


def tensors(fill: int, *, name: str = "layer") -> dict[str, bytes]:
    """A model of one tensor, as a safetensors file."""
    header = json.dumps({name: {"dtype": "F32", "shape": [300], "data_offsets": [0, 1200]}}).encode()
    return {"model.safetensors": len(header).to_bytes(8, "little") + header + bytes([fill]) * 1200}


def version(fleet: Fleet, files: dict[str, bytes], **place: str) -> str:
    upload, written = fleet.register(files, **place)  # pyright: ignore[reportArgumentType]
    Versions(fleet.database, fleet.clock).register(ADMIN, "churn", VersionDraft(upload_id=upload))
    fleet.run()
    return written.digest


def bases(fleet: Fleet, **about: object) -> list[tuple[str, str]]:
    upload = fleet.begin(near="virginia")
    found = fleet.uploads.bases(ADMIN, upload.id, **about)  # pyright: ignore[reportArgumentType]
    for candidate in found:
        assert candidate.layout_key == fleet.replica(candidate.digest, "virginia").layout_key
    return [(candidate.digest, candidate.reason) for candidate in found]


def signature(fleet: Fleet, digest: str) -> str:
    with fleet.database.read() as session:
        row = session.get_one(ArtifactRow, (ADMIN.workspace_id, "unrestricted", digest))
        assert row.tensor_signature is not None
        return row.tensor_signature


def test_lineage_comes_first_then_earlier_versions_then_equal_tensors(fleet: Fleet) -> None:
    digests = [version(fleet, tensors(fill)) for fill in (1, 2, 3)]
    _, other = fleet.register(tensors(9))
    _, unlike = fleet.register(tensors(9, name="another"))
    fleet.run()
    assert bases(fleet, model="churn", parent_version=1, tensor_signature=signature(fleet, other.digest)) == [
        (digests[0], "parent"),
        (digests[2], "previous"),
        (digests[1], "previous"),
        (other.digest, "tensors"),
    ]
    assert bases(fleet, model="nobody", parent_version=1) == []
    assert bases(fleet, tensor_signature=signature(fleet, unlike.digest)) == [(unlike.digest, "tensors")]
    assert bases(fleet) == []


def test_only_what_the_location_holds_verified_in_the_same_class_is_a_base(fleet: Fleet) -> None:
    digest = version(fleet, tensors(1))
    about: dict[str, Any] = {"model": "churn", "tensor_signature": signature(fleet, digest)}
    assert [each for each, _ in bases(fleet, **about)] == [digest]
    restricted = fleet.begin(residency="us", near="virginia")
    assert fleet.uploads.bases(ADMIN, restricted.id, **about) == []
    with fleet.database.write() as session:
        identity = (ADMIN.workspace_id, "unrestricted", digest, fleet.location("virginia").id)
        session.get_one(ReplicaRow, identity).state = "CORRUPT"
    assert bases(fleet, **about) == []


def test_files_without_tensors_have_no_signature(fleet: Fleet) -> None:
    _, written = fleet.register({"notes.txt": b"nothing like a tensor"})
    fleet.run()
    with fleet.database.read() as session:
        row = session.get_one(ArtifactRow, (ADMIN.workspace_id, "unrestricted", written.digest))
        assert row.tensor_signature is None


def test_an_upload_that_is_over_has_no_bases(fleet: Fleet) -> None:
    upload = fleet.begin(near="virginia")
    with pytest.raises(UploadNotFound):
        fleet.uploads.bases(ADMIN, "no-upload")
    fleet.clock.advance(2 * UPLOAD_LEASE)
    with pytest.raises(LeaseLost):
        fleet.uploads.bases(ADMIN, upload.id)
