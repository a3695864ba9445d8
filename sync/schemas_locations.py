"""What crosses the wire about locations' settings, backfills, retirements and losses."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from fairlead.registry.ledger import decimal_text
from fairlead.registry.limits import REASON_MAX_LENGTH
from fairlead.registry.location_losses import Loss
from fairlead.registry.retirement import Retirement
from fairlead.sync.backfill import Backfill
from fairlead.sync.schemas import LocationAnswer


class SettingsRequest(BaseModel):
    """Settings to change; one that is null is taken back."""

    model_config = ConfigDict(extra="forbid")

    settings: dict[str, Any]


class BackfillSourceAnswer(BaseModel):
    """What comes from one location. Dollars are decimal text."""

    location: str
    region: str
    artifacts: int
    bytes: int
    usd: str
    seconds: float
    is_estimate: bool


class BackfillAnswer(BaseModel):
    """What a location lacks, and what bringing it there moves, costs and takes at most. Dollars are decimal text."""

    location: LocationAnswer
    wanted: int
    verified: int
    waiting: int
    bytes: int
    usd: str
    seconds: float
    is_estimate: bool
    sources: list[BackfillSourceAnswer]

    @classmethod
    def of(cls, backfill: Backfill) -> BackfillAnswer:
        """Render a plan."""
        return cls(
            location=LocationAnswer.of(backfill.location),
            wanted=backfill.wanted,
            verified=backfill.verified,
            waiting=backfill.waiting,
            bytes=backfill.bytes,
            usd=decimal_text(backfill.usd),
            seconds=backfill.seconds,
            is_estimate=backfill.is_estimate,
            sources=[
                BackfillSourceAnswer(
                    location=source.location,
                    region=source.region,
                    artifacts=source.artifacts,
                    bytes=source.bytes,
                    usd=decimal_text(source.usd),
                    seconds=source.seconds,
                    is_estimate=source.is_estimate,
                )
                for source in backfill.sources
            ],
        )


class LastReplicaAnswer(BaseModel):
    """An artifact that no other location holds, and where it is to be copied first."""

    model_config = ConfigDict(from_attributes=True)

    artifact: str
    kind: str
    residency: str
    size_bytes: int
    copied_to: list[str]


class RegionUserAnswer(BaseModel):
    """What reads from the location, and leaves by itself for `goes_on_in`, or else after `command` was typed."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    goes_on_in: list[str]
    command: str | None


class RetirementAnswer(BaseModel):
    """What retiring a location takes away, and what still needs it. `last_replicas` lists at most 100."""

    location: LocationAnswer
    replicas: int
    stored_bytes: int
    last_replica_count: int
    last_replicas: list[LastReplicaAnswer]
    open_uploads: int
    used_by: list[RegionUserAnswer]

    @classmethod
    def of(cls, retirement: Retirement) -> RetirementAnswer:
        """Render a record."""
        return cls(
            location=LocationAnswer.of(retirement.location),
            replicas=retirement.replicas,
            stored_bytes=retirement.stored_bytes,
            last_replica_count=retirement.last_replica_count,
            last_replicas=[LastReplicaAnswer.model_validate(each) for each in retirement.last_replicas],
            open_uploads=retirement.open_uploads,
            used_by=[RegionUserAnswer.model_validate(each) for each in retirement.used_by],
        )


class LossRequest(BaseModel):
    """That a location is lost for good, and why."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[
        str,
        StringConstraints(min_length=1, max_length=REASON_MAX_LENGTH),
        Field(description="Certificates of erasures quote it.", examples=["the data centre burnt down"]),
    ]
    has_region: Annotated[
        bool, Field(description="Whether all else in its region is lost too: online stores, and logs of pushed rows.")
    ] = False


class LossAnswer(BaseModel):
    """A location that was given up for lost. `artifacts` names at most 100 of those that no other location holds."""

    location: LocationAnswer
    has_region: bool
    reason: str
    lost_by: str
    lost_at: datetime
    artifact_count: int
    artifacts: list[str]

    @classmethod
    def of(cls, loss: Loss) -> LossAnswer:
        """Render a record."""
        return cls(
            location=LocationAnswer.of(loss.location),
            has_region=loss.has_region,
            reason=loss.reason,
            lost_by=loss.lost_by,
            lost_at=loss.lost_at,
            artifact_count=loss.artifact_count,
            artifacts=list(loss.artifacts),
        )
