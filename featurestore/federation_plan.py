"""What a federated read is planned from, and what its plan says."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

from fairlead.featurestore.agents import FeatureAgent

OnUnavailable = Literal["error", "stale", "missing"]
"""What becomes of the views of a region that does not answer: an error, an older snapshot, or no values."""

Joiner = Literal["agent", "service"]
"""Who joins: a region's feature agent, or the service that made the plan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityColumn:
    """A column of the entity rows and what it weighs in Arrow; none of its values."""

    name: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FederatedRequest:
    """What is asked for: a `service` (of a `snapshot`, else its newest), or `features` as `view:feature`.

    `region` is where the reader is and the result goes. `residency` is the class of the entity rows, of which there are
    `rows`. `live_until` reads the sources up to then in place of snapshots.
    """

    service: str | None
    features: tuple[str, ...]
    snapshot: str | None
    live_until: datetime | None
    region: str | None
    residency: str
    rows: int
    columns: tuple[EntityColumn, ...]
    on_unavailable: OnUnavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A column of the result, of Feast's type; `alias` and `feature` say what it is called in a hop's answer."""

    column: str
    alias: str
    feature: str
    type: str
    is_hidden: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Moving:
    """The alternative to sending entity rows: a replica of the view's snapshot in the reader's region.

    `bytes` are those that the region lacks of it, and 0 where it has all. `pays_after` is after how many reads like
    this one the replica would have been cheaper; None: never, or nobody may put it there (`refused` says why).
    """

    bytes: int
    usd: Decimal
    pays_after: int | None
    refused: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HopView:
    """One view of a hop; `bytes_back` is an estimate. `snapshot` and `as_of` are of what is joined, None if live."""

    alias: str
    view: str
    residencies: tuple[str, ...]
    features: tuple[str, ...]
    bytes_back: int
    snapshot: str | None
    as_of: datetime | None
    moving: Moving | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StandIn:
    """What answers for a hop whose region does not: an older snapshot, joined where the reader is, or no values.

    `age_seconds` is how old what is oldest of it is.
    """

    joiner: Joiner | None
    agent: FeatureAgent | None
    ticket: str | None
    views: tuple[HopView, ...]
    age_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """Views that are joined in one region: what goes there and comes back, and what that costs.

    `columns` are the entity rows' columns that are sent, beside a row number. `problem` says why nobody answers there.
    Bytes out are those of the columns; rows, bytes back and so dollars are estimates of the schema.
    """

    region: str | None
    joiner: Joiner
    agent: FeatureAgent | None
    ticket: str | None
    views: tuple[HopView, ...]
    columns: tuple[str, ...]
    bytes_out: int
    bytes_back: int
    usd_out: Decimal
    usd_back: Decimal
    price_source: str
    problem: str | None
    stand_in: StandIn | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FederatedPlan:
    """A federated read as it is going to be: who joins which views where, and what crosses each hop."""

    read: str
    service: str
    service_digest: str | None
    snapshot: str | None
    live_until: datetime | None
    region: str | None
    residency: str
    on_unavailable: OnUnavailable
    rows: int
    outputs: tuple[Output, ...]
    hops: tuple[Hop, ...]
    expires_at: datetime

    @property
    def usd(self) -> Decimal:
        """What all hops cost together."""
        return sum((hop.usd_out + hop.usd_back for hop in self.hops), Decimal(0))
