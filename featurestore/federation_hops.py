"""The hops of a federated read: what each sends and brings, what it costs, and who stands in where nobody answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy.orm import Session

from fairlead.catalog import Catalog
from fairlead.core.errors import InvalidInput
from fairlead.featurestore.agents import FeatureAgent
from fairlead.featurestore.federation_plan import FederatedRequest, Hop, HopView, Joiner, StandIn
from fairlead.featurestore.federation_sizes import ROW_NUMBER_BYTES, bytes_back, moving
from fairlead.featurestore.federation_views import ChosenViews, ViewParts, older_parts
from fairlead.featurestore.joins import EVENT_TIMESTAMP
from fairlead.featurestore.replica_rows import ArtifactName, verified_regions
from fairlead.featurestore.services import Projection
from fairlead.featurestore.tickets import Ticket, TicketView, seal_ticket
from fairlead.registry import ledger
from fairlead.registry.identity import Caller


@dataclass(frozen=True, slots=True, kw_only=True)
class HopPlanner:
    """Plans the hops of one read; `agents` are those that serve, by region."""

    session: Session
    caller: Caller
    wanted: FederatedRequest
    chosen: ChosenViews
    catalog: Catalog
    agents: Mapping[str, FeatureAgent]
    signing_key: bytes
    read: str
    token_sha256: str
    now: datetime
    expires_at: datetime

    def hop(self, region: str | None, projections: Sequence[Projection]) -> Hop:
        """The hop to a region (None: the reader says of none, and this service joins).

        Raises:
            InvalidInput: if the entity rows lack a column that is sent.
        """
        reader = self.wanted.region
        is_away = region not in {None, reader}
        agent = self.agents.get(region or "")
        joiner: Joiner = "agent" if is_away or agent is not None else "service"
        columns = self._columns(projections)
        sizes = {column.name: column.bytes for column in self.wanted.columns}
        out = sum(sizes[name] for name in columns) + ROW_NUMBER_BYTES * self.wanted.rows
        views = [self._view(region, projection, self.chosen.parts[projection.view]) for projection in projections]
        back = sum(view.bytes_back for view in views) + ROW_NUMBER_BYTES * self.wanted.rows
        usd_out, usd_back, source = Decimal(0), Decimal(0), "nothing leaves the reader's region"
        if is_away:
            there, here = region or "", reader or ""
            usd_out = ledger.transfer_cost(self.catalog, source_region=here, region=there, size_bytes=out).usd
            cost = ledger.transfer_cost(self.catalog, source_region=there, region=here, size_bytes=back)
            usd_back, source = cost.usd, cost.price_source
        return Hop(
            region=region,
            joiner=joiner,
            agent=agent,
            ticket=None
            if joiner == "agent" and agent is None
            else self._ticket(region, joiner, projections, self.chosen.parts, out=out, back=back),
            views=tuple(views),
            columns=columns,
            bytes_out=out,
            bytes_back=back,
            usd_out=usd_out,
            usd_back=usd_back,
            price_source=source,
            problem=f"No feature agent of {region} says that it serves." if joiner == "agent" and not agent else None,
            stand_in=self._stand_in(projections, out) if is_away else None,
        )

    def _columns(self, projections: Sequence[Projection]) -> tuple[str, ...]:
        needed = [
            projection.join_key_map.get(key.name, key.name)
            for projection in projections
            for key in self.chosen.views[projection.view].asked_keys
        ]
        known = {column.name for column in self.wanted.columns}
        for name, what in [*((each, "a join key") for each in needed), (EVENT_TIMESTAMP, "as of when a row is meant")]:
            if name not in known:
                raise InvalidInput(
                    f"The entity rows have no column {name!r}, {what} of view {projections[0].view!r}.",
                    hint=f"They have: {', '.join(sorted(known))[:400]}.",
                )
        return tuple(dict.fromkeys([*needed, EVENT_TIMESTAMP]))

    def _view(self, region: str | None, projection: Projection, found: ViewParts) -> HopView:
        view, reader = self.chosen.views[projection.view], self.wanted.region
        parts = found.of(projection.features)
        asked = [column for column in view.features if column.name in projection.features]
        back = bytes_back(asked, self.wanted.rows, found.lengths)
        alternative = None
        if region is not None and reader is not None and region != reader:
            usd = ledger.transfer_cost(self.catalog, source_region=region, region=reader, size_bytes=back).usd
            stored = found
            if found.snapshot is None:
                # What is read live would be moved as a snapshot: the newest says how large that is about.
                newest = older_parts(self.session, self.caller.workspace_id, view, projection.features)
                stored = next(newest, found)
            alternative = moving(
                self.session,
                self.catalog,
                workspace_id=self.caller.workspace_id,
                parts=stored.of(projection.features),
                home=region,
                region=reader,
                usd_a_read=usd,
            )
        return HopView(
            alias=projection.alias,
            view=projection.view,
            residencies=tuple(sorted({part.residency for part in parts})),
            features=projection.features,
            bytes_back=back,
            snapshot=found.snapshot,
            as_of=found.as_of,
            moving=alternative,
        )

    def _ticket(
        self,
        region: str | None,
        joiner: Joiner,
        projections: Sequence[Projection],
        parts: Mapping[str, ViewParts],
        *,
        out: int,
        back: int,
    ) -> str:
        views = tuple(
            TicketView(
                alias=projection.alias,
                view=projection.view,
                view_digest=self.chosen.views[projection.view].digest,
                features=projection.features,
                join_key_map=projection.join_key_map,
                parts=parts[projection.view].of(projection.features),
            )
            for projection in projections
        )
        ticket = Ticket(
            read=self.read,
            workspace_id=self.caller.workspace_id,
            principal=self.caller.principal,
            token_sha256=self.token_sha256,
            region=region if joiner == "agent" else None,
            reader_region=self.wanted.region,
            residency=self.wanted.residency,
            rows=self.wanted.rows,
            service=self.chosen.service.name,
            views=views,
            live_until=self.wanted.live_until,
            planned_out=out,
            planned_back=back,
            labels=self.chosen.labels,
            expires_at=self.expires_at,
        )
        return seal_ticket(ticket, self.signing_key)

    def _stand_in(self, projections: Sequence[Projection], out: int) -> StandIn | None:
        """What the reader asked for where a region does not answer; None for an error, or if there is nothing older."""
        if self.wanted.on_unavailable == "error":
            return None
        if self.wanted.on_unavailable == "missing":
            views = [self._view(None, each, ViewParts(snapshot=None, as_of=None, parts=())) for each in projections]
            return StandIn(joiner=None, agent=None, ticket=None, views=tuple(views), age_seconds=None)
        region = self.wanted.region or ""
        parts: dict[str, ViewParts] = {}
        for projection in projections:
            older = older_parts(
                self.session, self.caller.workspace_id, self.chosen.views[projection.view], projection.features
            )
            found = next((each for each in older if self._is_in(each, projection, region)), None)
            if found is None:
                return None
            parts[projection.view] = found
        agent = self.agents.get(region)
        joiner: Joiner = "service" if agent is None else "agent"
        views = [self._view(None, each, parts[each.view]) for each in projections]
        oldest = min(each.as_of for each in parts.values() if each.as_of is not None)
        return StandIn(
            joiner=joiner,
            agent=agent,
            ticket=self._ticket(region, joiner, projections, parts, out=out, back=sum(v.bytes_back for v in views)),
            views=tuple(views),
            age_seconds=(self.now - oldest).total_seconds(),
        )

    def _is_in(self, found: ViewParts, projection: Projection, region: str) -> bool:
        """Whether every part that has the features has a verified replica in a region."""
        covered = {feature for part in found.parts for feature in part.features}
        return set(projection.features) <= covered and all(
            part.digest is not None
            and region
            in verified_regions(
                self.session,
                ArtifactName(workspace_id=self.caller.workspace_id, residency=part.residency, digest=part.digest),
            )
            for part in found.of(projection.features)
        )
