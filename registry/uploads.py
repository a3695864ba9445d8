"""Uploads: a client's leave to write one artifact into one location, and what became of it.

`begin` settles once and for all under which residency class the bytes come in and which location takes them. The
client then writes packs, layout and manifest itself, hands over with `complete`, and a worker of the location's region
reads every byte back. Only that makes anything READY. An upload is used once: its id is what fences off a client that
comes back after its time, and what it left behind belongs to nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal, cast, get_args

from sqlalchemy import select
from sqlalchemy.orm import Session

from fairlead.catalog import Catalog, Residency, check, parse_residency
from fairlead.core.db import Database
from fairlead.core.errors import (
    Conflict,
    FairleadError,
    InvalidInput,
    JsonValue,
    LeaseLost,
    LocationNotFound,
    ResidencyViolation,
    UploadNotFound,
)
from fairlead.core.ids import digest_hex, parse_digest
from fairlead.core.ports import Clock
from fairlead.registry import audit, garbage, version_states, work
from fairlead.registry.bases import BaseCandidate, find_bases
from fairlead.registry.blocks import BlockPlace, BlockShelf, find_blocks
from fairlead.registry.idempotency import IdempotencyKey, run_once
from fairlead.registry.identity import Caller
from fairlead.registry.keys import active_key_id
from fairlead.registry.limits import parse_row_id, parse_tags
from fairlead.registry.locations import Location, get_location, traffic_locations
from fairlead.registry.tables import UploadRow

VERIFY_UPLOAD = "verify-upload"
"""The work of reading an upload back; its subject is the upload's id."""

UPLOAD_LEASE = timedelta(hours=1)
DIGESTS_AT_ONCE = 10_000

ArtifactKind = Literal["model", "snapshot", "bundle", "feature-log"]
UploadState = Literal["OPEN", "VERIFYING", "READY", "FAILED", "EXPIRED"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One upload. `sent_bytes` is what the client says it put on the wire; errors are those of the verification."""

    id: str
    state: UploadState
    kind: ArtifactKind
    residency: str
    key_id: str
    regions: tuple[str, ...] | None
    labels: Mapping[str, str]
    location: Location
    artifact_digest: str | None
    layout_key: str | None
    sent_bytes: int | None
    error_code: str | None
    error_detail: str | None
    created_by: str
    created_at: datetime
    expires_at: datetime


class Uploads:
    """Begins uploads, answers what the location holds already, and takes them over."""

    def __init__(self, database: Database, clock: Clock, *, catalog: Catalog, lease: timedelta = UPLOAD_LEASE) -> None:
        self._database = database
        self._clock = clock
        self._catalog = catalog
        self._lease = lease

    def begin(
        self,
        caller: Caller,
        *,
        kind: str,
        residency: str,
        regions: Sequence[str] | None = None,
        labels: Mapping[str, str] | None = None,
        region: str | None = None,
        key: IdempotencyKey | None = None,
    ) -> Upload:
        """Choose the location that takes the bytes, and open it to the caller for an hour (see `known_blocks`).

        `regions` narrows where the artifact will be. `region` says where the bytes are now: the permitted location
        nearest to it is chosen, and without it the first by name.

        Raises:
            InvalidInput: if the kind, residency class or labels are not valid.
            UnknownRegion: if a region is not in the catalog.
            ResidencyViolation: if the residency class forbids a wanted region, or every location there is.
            LocationNotFound: if no location is in a wanted region.
        """
        if kind not in get_args(ArtifactKind):
            raise InvalidInput(
                f"{kind[:40]!r} is no kind of artifact.", hint="Use model, snapshot, bundle or feature-log."
            )
        rule = parse_residency(residency)
        wanted = self._parse_regions(rule, regions)
        near = None if region is None else self._catalog.region(region).id
        checked_labels = parse_tags(labels or {}, what="label")

        def begin(session: Session) -> Upload:
            permitted = _permitted(traffic_locations(session, caller.workspace_id), rule, wanted)
            location = min(permitted, key=lambda each: self._distance(near, each))
            now = self._clock.now()
            row = UploadRow(
                workspace_id=caller.workspace_id,
                residency=rule,
                key_id=active_key_id(session, caller.workspace_id),
                kind=kind,
                location_id=location.id,
                state="OPEN",
                regions=wanted,
                labels=checked_labels,
                created_by=caller.principal,
                created_at=now,
                expires_at=now + self._lease,
            )
            session.add(row)
            session.flush()
            facts: dict[str, JsonValue] = {"kind": kind, "location": location.name, "region": location.region}
            audit.record(
                session, caller, self._clock, action="upload.begin", subject=row.id, residency=rule, facts=facts
            )
            return _to_upload(row, location)

        with self._database.write() as session:
            return run_once(session, caller, self._clock, key, result_type=Upload, action=lambda: begin(session))

    def known_blocks(self, caller: Caller, upload_id: str, digests: Sequence[str]) -> list[BlockPlace]:
        """Which of these blocks the upload's location holds in its domain; asking also prolongs the upload's time.

        Raises:
            InvalidInput: if a digest is not valid or there are more than 10,000.
            UploadNotFound: if the workspace has no such upload.
            LeaseLost: if the upload is over.
        """
        if len(digests) > DIGESTS_AT_ONCE:
            raise InvalidInput(f"{len(digests)} digests are more than {DIGESTS_AT_ONCE}.", hint="Ask in parts.")
        parsed = [parse_digest(digest) for digest in digests]
        with self._database.write() as session:
            row = _find_upload(session, caller.workspace_id, upload_id, for_update=True)
            _require_open(row, self._clock.now())
            row.expires_at = self._clock.now() + self._lease
            shelf = shelf_of(row)
            known = find_blocks(session, shelf, parsed)
            # What nothing refers to yet is spared: the answer may be built on.
            garbage.touch_packs(session, shelf, {place.pack for place in known})
            return known

    def bases(
        self,
        caller: Caller,
        upload_id: str,
        *,
        model: str | None = None,
        parent_version: int | None = None,
        tensor_signature: str | None = None,
    ) -> list[BaseCandidate]:
        """What the upload's location holds that the new files may differ little from, the likeliest first.

        `model` is the registered model that they become a version of, `parent_version` the one they were made from,
        `tensor_signature` says which tensors they have (see `sync.store.split`).

        Raises:
            UploadNotFound: if the workspace has no such upload.
            LeaseLost: if the upload is over.
        """
        with self._database.read() as session:
            row = _find_upload(session, caller.workspace_id, upload_id)
            _require_open(row, self._clock.now())
            return find_bases(
                session, row, model=model, parent_version=parent_version, tensor_signature=tensor_signature
            )

    def complete(
        self, caller: Caller, upload_id: str, *, artifact_digest: str, layout_key: str, sent_bytes: int
    ) -> Upload:
        """Hand what was written over to be read back. Repeating the same call changes nothing.

        Raises:
            InvalidInput: if the digest or the layout's key is not valid.
            UploadNotFound: if the workspace has no such upload.
            LeaseLost: if the upload's time is over.
            Conflict: if it was handed over as something else.
        """
        digest = parse_digest(artifact_digest)
        if sent_bytes < 0:
            raise InvalidInput(f"An upload cannot have sent {sent_bytes} bytes.")
        with self._database.write() as session:
            row = _find_upload(session, caller.workspace_id, upload_id, for_update=True)
            location = get_location(session, caller.workspace_id, row.location_id)
            if row.state in {"VERIFYING", "READY"}:
                if (row.artifact_digest, row.layout_key) == (digest, layout_key):
                    return _to_upload(row, location)
                raise Conflict(f"The upload {upload_id} was handed over as {row.artifact_digest} already.")
            _require_open(row, self._clock.now())
            expected = f"{row.workspace_id}/{row.residency}/{row.key_id}/layouts/{digest_hex(digest)}/"
            if not layout_key.startswith(expected) or len(layout_key) > len(expected) + 100:
                raise InvalidInput(
                    f"{layout_key[:200]!r} is no key of a layout of {digest} in this upload's domain.",
                    hint="Hand over what was written under the domain that the upload was begun with.",
                )
            row.state = "VERIFYING"
            row.artifact_digest = digest
            row.layout_key = layout_key
            row.sent_bytes = sent_bytes
            _require_verification(session, row, location.region, self._clock.now())
            return _to_upload(row, location)

    def give_up(self, caller: Caller, upload_id: str, error: FairleadError) -> None:
        """End an upload whose files cannot be stored, and the versions that wait for it; one that is over stays so.

        Raises:
            UploadNotFound: if the workspace has no such upload.
        """
        now = self._clock.now()
        with self._database.write() as session:
            row = _find_upload(session, caller.workspace_id, upload_id, for_update=True)
            if row.state != "OPEN":
                return
            row.state, row.error_code, row.error_detail = "FAILED", error.code, error.detail
            session.flush()
            version_states.mark_failed(session, row.workspace_id, row.id, code=error.code, detail=error.detail, now=now)
            facts: dict[str, JsonValue] = {"code": error.code}
            audit.record_at(
                session, caller, now, action="upload.fail", subject=row.id, residency=row.residency, facts=facts
            )

    def get(self, caller: Caller, upload_id: str) -> Upload:
        """One upload.

        Raises:
            UploadNotFound: if the workspace has no such upload.
        """
        with self._database.read() as session:
            row = _find_upload(session, caller.workspace_id, upload_id)
            location = get_location(session, caller.workspace_id, row.location_id)
            upload = _to_upload(row, location)
        is_over = upload.state == "OPEN" and upload.expires_at <= self._clock.now()
        return replace(upload, state="EXPIRED") if is_over else upload

    def _parse_regions(self, residency: Residency, regions: Sequence[str] | None) -> list[str] | None:
        if regions is None:
            return None
        if not regions:
            raise InvalidInput("An artifact that may be in no region cannot be stored.", hint="Leave `regions` out.")
        for region in regions:
            check(residency, region)
        return sorted({self._catalog.region(region).id for region in regions})

    def _distance(self, near: str | None, location: Location) -> tuple[float, str]:
        if near is None or near == location.region:
            return 0.0, location.name
        return self._catalog.round_trip(near, location.region).value, location.name


def derive_verifications(session: Session, now: datetime) -> None:
    """Require the work of every upload that was handed over; end those whose client never came back."""
    rows = session.scalars(select(UploadRow).where(UploadRow.state == "VERIFYING")).all()
    for row in rows:
        location = get_location(session, row.workspace_id, row.location_id)
        _require_verification(session, row, location.region, now)
    late = select(UploadRow).where(UploadRow.state == "OPEN", UploadRow.expires_at <= now)
    # Locked, since its client may be about to prolong it or to hand it over.
    for row in session.scalars(late.with_for_update(skip_locked=True)).all():
        row.state = "EXPIRED"
        detail = "The upload's time was over before it was handed over."
        version_states.mark_failed(session, row.workspace_id, row.id, code="lease-lost", detail=detail, now=now)


def shelf_of(row: UploadRow) -> BlockShelf:
    """The dedup domain and location that an upload writes to."""
    return BlockShelf(
        workspace_id=row.workspace_id, residency=row.residency, location_id=row.location_id, key_id=row.key_id
    )


def _permitted(locations: Sequence[Location], residency: Residency, regions: list[str] | None) -> list[Location]:
    if not locations:
        raise LocationNotFound(
            "The workspace has no active location yet.",
            hint="Add one: fairlead location add NAME --region REGION --url URL",
        )
    lawful = [location for location in locations if location.permits(residency, None)]
    if not lawful:
        raise ResidencyViolation(
            f"No location may hold data of residency class {residency!r}.",
            hint="Add a location inside: fairlead location add NAME --region REGION --url URL",
            residency=residency,
            regions=cast("list[JsonValue]", sorted({location.region for location in locations})),
        )
    wanted = [location for location in lawful if location.permits(residency, regions)]
    if not wanted:
        raise LocationNotFound(
            f"No location is in {' or '.join(regions or [])}.",
            hint="Add one there, or name another region; see: fairlead location list",
            regions=cast("list[JsonValue]", regions),
        )
    return wanted


def _find_upload(session: Session, workspace_id: str, upload_id: str, *, for_update: bool = False) -> UploadRow:
    key = (workspace_id, parse_row_id(upload_id, UploadNotFound, what="upload"))
    row = session.get(UploadRow, key, with_for_update=for_update)
    if row is None:
        raise UploadNotFound(f"There is no upload {upload_id!r}.", hint="Begin a new one.", upload=upload_id)
    return row


def _require_open(row: UploadRow, now: datetime) -> None:
    if row.state != "OPEN" or row.expires_at <= now:
        state = row.state if row.state != "OPEN" else "EXPIRED"
        raise LeaseLost(f"The upload {row.id} is {state}.", hint="Begin a new upload.", state=state)


def _require_verification(session: Session, row: UploadRow, region: str, now: datetime) -> None:
    work.require_work(
        session,
        workspace_id=row.workspace_id,
        residency=row.residency,
        kind=VERIFY_UPLOAD,
        subject=row.id,
        region=region,
        priority=work.URGENT,
        now=now,
    )


def _to_upload(row: UploadRow, location: Location) -> Upload:
    return Upload(
        id=row.id,
        state=cast("UploadState", row.state),
        kind=cast("ArtifactKind", row.kind),
        residency=row.residency,
        key_id=row.key_id,
        regions=None if row.regions is None else tuple(row.regions),
        labels=cast("dict[str, str]", row.labels),
        location=location,
        artifact_digest=row.artifact_digest,
        layout_key=row.layout_key,
        sent_bytes=row.sent_bytes,
        error_code=row.error_code,
        error_detail=row.error_detail,
        created_by=row.created_by,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )
