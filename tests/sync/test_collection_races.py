"""Every point of a collection meets every kind of upload, and every read of a verification meets a collection."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from fairlead.core.ports import ObjectInfo, ObjectStore
from fairlead.registry.tables import ArtifactRow, ReplicaRow, UploadRow
from fairlead.registry.uploads import Upload
from fairlead.sync.collection import GRACE
from fairlead.sync.store.writer import WrittenArtifact
from fairlead.sync.upkeep import UPKEEP, Upkeeps
from fairlead.sync.worker import Worker
from tests.fleet import ADMIN, Fleet, open_fleet

ONE = ["aws:us-east-1"]
AGED = GRACE + timedelta(minutes=1)
POINTS = [("list", 1), ("read", 1), ("read", 2), ("delete", 1), ("delete", 3)]


class InterruptedStore:
    """Any store; before its n-th call of some kind, something else happens."""

    def __init__(self, store: ObjectStore, operation: str, call: int, meanwhile: Callable[[], None]) -> None:
        self._store = store
        self._operation = operation
        self._left = call
        self._meanwhile = meanwhile

    @property
    def has_create_only(self) -> bool:
        return self._store.has_create_only

    def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        self._count("read")
        return self._store.read(key, start=start, length=length)

    def write(self, key: str, data: bytes | bytearray | memoryview, *, create_only: bool = False) -> bool:
        self._count("write")
        return self._store.write(key, data, create_only=create_only)

    def size(self, key: str) -> int | None:
        return self._store.size(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self._count("list")
        return self._store.list(prefix)

    def delete(self, key: str) -> None:
        self._count("delete")
        self._store.delete(key)

    def _count(self, operation: str) -> None:
        if operation == self._operation:
            self._left -= 1
            if self._left == 0:
                self._meanwhile()


@pytest.fixture
def fleet(tmp_path: Path) -> Generator[Fleet]:
    with open_fleet(tmp_path, names=("virginia",)) as fleet:
        yield fleet


def collect(fleet: Fleet) -> None:
    """One pass by a worker that does nothing else."""
    Upkeeps(fleet.database, fleet.clock).request(ADMIN, "collect", location="virginia")
    handlers = {UPKEEP: fleet.duties.handlers[UPKEEP]}
    Worker(fleet.database, fleet.clock, regions=None, handlers=handlers, derivers=[]).run_until_idle()


def work_on(fleet: Fleet) -> None:
    """All that a worker does but collecting."""
    handlers = {kind: handler for kind, handler in fleet.duties.handlers.items() if kind != UPKEEP}
    Worker(
        fleet.database, fleet.clock, regions=None, handlers=handlers, derivers=fleet.duties.derivers
    ).run_until_idle()


def forget(fleet: Fleet, digest: str) -> None:
    """Somebody removes an artifact from the record; its objects are garbage from now on."""
    with fleet.database.write() as session:
        for table, column in ((ReplicaRow, ReplicaRow.artifact_digest), (ArtifactRow, ArtifactRow.digest)):
            for row in session.scalars(select(table).where(column == digest)).all():
                session.delete(row)
            session.flush()


def hold_on(fleet: Fleet) -> None:
    """Let the time of open uploads go on, as asking every half an hour would."""
    with fleet.database.write() as session:
        later = fleet.clock.now() + timedelta(days=30)
        session.execute(update(UploadRow).where(UploadRow.state == "OPEN").values(expires_at=later))


def interrupt(fleet: Fleet, operation: str, call: int, meanwhile: Callable[[], None]) -> None:
    def once() -> None:
        fleet.wrap = lambda _name, store: store
        meanwhile()

    fleet.wrap = lambda _name, store: InterruptedStore(store, operation, call, once)


class Scene:
    """An artifact that is forgotten, and an upload that was told of a pack of it before."""

    def __init__(self, fleet: Fleet, seed: int) -> None:
        draw = random.Random(seed)
        self.fleet = fleet
        shared = draw.randbytes(3_000)
        self.old = {"shared": shared, "old": draw.randbytes(200)}
        self.new = {"shared": shared, "new": draw.randbytes(200)}
        _, gone = fleet.register(self.old, regions=ONE)
        work_on(fleet)
        self.slow = self.write(self.new)
        assert self.slow[1].reused_blocks == 1
        forget(fleet, gone.digest)
        hold_on(fleet)

    def write(self, files: dict[str, bytes]) -> tuple[Upload, WrittenArtifact]:
        upload = self.fleet.begin(near="virginia", regions=ONE)
        return upload, self.fleet.write(upload, files)

    def finish(self, upload: Upload, written: WrittenArtifact) -> None:
        """Hand over, and let a worker read it back."""
        self.fleet.complete(upload, written)
        work_on(self.fleet)

    def state(self, upload: Upload) -> str:
        """What became of an upload; one that is READY can be read."""
        for _ in range(3):
            self.fleet.clock.advance(timedelta(minutes=20))
            work_on(self.fleet)
        found = self.fleet.uploads.get(ADMIN, upload.id)
        if found.state == "READY":
            digest = found.artifact_digest or ""
            with self.fleet.database.read() as session:
                assert (
                    session.scalar(select(ReplicaRow.state).where(ReplicaRow.artifact_digest == digest)) == "VERIFIED"
                )
            assert self.fleet.read(digest, "virginia") in (self.old, self.new)
        return found.state


@pytest.mark.parametrize("passes", [0, 1, 2])
def test_an_upload_that_ends_within_a_collection_keeps_what_it_was_told_of(fleet: Fleet, passes: int) -> None:
    for seed, (operation, call) in enumerate(POINTS if passes == 2 else POINTS[1:2]):
        scene = Scene(fleet, seed)
        for _ in range(passes):
            fleet.clock.advance(AGED)
            collect(fleet)
        fleet.clock.advance(AGED)
        interrupt(fleet, operation, call, lambda scene=scene: scene.finish(*scene.slow))
        collect(fleet)
        fleet.wrap = lambda _name, store: store
        if fleet.uploads.get(ADMIN, scene.slow[0].id).state == "OPEN":
            scene.finish(*scene.slow)
        assert scene.state(scene.slow[0]) == "READY"
        for _ in range(3):
            fleet.clock.advance(AGED)
            collect(fleet)
        assert scene.state(scene.slow[0]) == "READY"


@pytest.mark.parametrize("passes", [0, 1, 2])
def test_a_pack_that_is_born_again_within_a_collection_is_whole_or_not_ready(fleet: Fleet, passes: int) -> None:
    for seed, (operation, call) in enumerate(POINTS if passes == 2 else POINTS[1:2]):
        scene = Scene(fleet, seed)
        with fleet.database.write() as session:
            session.execute(update(UploadRow).where(UploadRow.state == "OPEN").values(state="EXPIRED"))
        for _ in range(passes):
            fleet.clock.advance(AGED)
            collect(fleet)
        fleet.clock.advance(AGED)
        again: list[Upload] = []

        def upload_again(scene: Scene = scene, again: list[Upload] = again) -> None:
            upload, written = scene.write(scene.old)
            again.append(upload)
            scene.finish(upload, written)

        interrupt(fleet, operation, call, upload_again)
        collect(fleet)
        fleet.wrap = lambda _name, store: store
        for upload in again:
            state = scene.state(upload)
            for _ in range(3):
                fleet.clock.advance(AGED)
                collect(fleet)
            assert scene.state(upload) == state != "VERIFYING"
        # Whatever became of that, the next one succeeds.
        upload, written = scene.write(scene.old)
        scene.finish(upload, written)
        assert scene.state(upload) == "READY"


@pytest.mark.parametrize("passes", [1, 2])
def test_a_verification_that_meets_collections_records_only_what_is_still_there(fleet: Fleet, passes: int) -> None:
    for seed, call in enumerate((1, 3, 6)):
        scene = Scene(fleet, seed)
        for _ in range(passes):
            fleet.clock.advance(AGED)
            collect(fleet)
        upload, written = scene.write(scene.old)
        fleet.complete(upload, written)
        fleet.complete(*scene.slow)

        def meanwhile() -> None:
            for _ in range(2):
                fleet.clock.advance(AGED)
                collect(fleet)

        interrupt(fleet, "read", call, meanwhile)
        work_on(fleet)
        fleet.wrap = lambda _name, store: store
        assert scene.state(upload) != "VERIFYING"
        assert scene.state(scene.slow[0]) == "READY"
