"""Federated reads: who joins which views where, planned before anything leaves.

Each view is joined in its home region, by that region's feature agent; a view without a home, and one whose home is the
reader's region, where the reader is. The plan says what crosses each hop and what that costs, and holds a ticket for
whoever joins. It is refused where a residency rule forbids any of its hops:

    rule `entity-rows`   the entity rows' class permits every region that they are sent to
    rule `results`       the class of every feature that is asked for permits the region that joins, and the reader's

A plan is made of names, types and sizes: no key or value of an entity row is in the request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from fairlead.catalog import UNRESTRICTED, Catalog, Residency, parse_residency, permits
from fairlead.core.db import Database
from fairlead.core.errors import InvalidInput, ResidencyViolation
from fairlead.core.ids import new_row_id
from fairlead.core.ports import Clock
from fairlead.featurestore.agents import FeatureAgents
from fairlead.featurestore.federation_hops import HopPlanner
from fairlead.featurestore.federation_plan import FederatedPlan, FederatedRequest, Output
from fairlead.featurestore.federation_views import ChosenViews, choose_views
from fairlead.featurestore.joins import output_names
from fairlead.featurestore.services import Projection
from fairlead.featurestore.tickets import LIFE
from fairlead.registry.identity import Caller
from fairlead.registry.tables import WorkspaceRow

MAX_ROWS = 100_000_000
Rule = Literal["entity-rows", "results"]


class FederatedReads:
    """Plans reads over views of several regions.

    Args:
        database: the record.
        clock: the time.
        catalog: regions and tariffs.
        agents: who joins where.
        signing_key: signs tickets.
        is_local: whether this service runs on its only user's machine, so that nothing leaves by coming here.
        region: where this service runs; None where nobody says.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        catalog: Catalog,
        agents: FeatureAgents,
        signing_key: bytes,
        is_local: bool,
        region: str | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._catalog = catalog
        self._agents = agents
        self._signing_key = signing_key
        self._is_local = is_local
        self._region = region

    def plan(self, caller: Caller, wanted: FederatedRequest, *, token_sha256: str) -> FederatedPlan:
        """Plan a read for whoever shows the token of this hash.

        Raises:
            InvalidInput: if the entity rows lack a column, or no region is stated where one is needed.
            FeatureServiceNotFound, FeatureViewNotFound, SnapshotNotFound, NotReady: as for what is read.
            UnknownRegion, UnknownResidency: if the request names one that there is not.
            ResidencyViolation: naming the rule, the view, the class and the region.
        """
        now = self._clock.now()
        catalog = self._catalog.within(caller.workspace_id)
        _check_request(wanted)
        if wanted.live_until is not None and wanted.live_until > now:
            raise InvalidInput("A live read goes up to a time that has come.", hint="Leave the time out for now.")
        if wanted.region is not None:
            catalog.region(wanted.region)
        with self._database.read() as session:
            planner = HopPlanner(
                session=session,
                caller=caller,
                wanted=wanted,
                chosen=choose_views(session, caller.workspace_id, wanted),
                catalog=catalog,
                agents=self._agents.serving(session, caller.workspace_id),
                signing_key=self._signing_key,
                read=new_row_id(),
                token_sha256=token_sha256,
                now=now,
                expires_at=now + LIFE,
            )
            regions = _by_region(planner.chosen, wanted.region)
            for region, projections in regions.items():
                self._check_residency(planner, region, projections)
            hops = tuple(planner.hop(region, projections) for region, projections in regions.items())
        return FederatedPlan(
            read=planner.read,
            service=planner.chosen.service.name,
            service_digest=planner.chosen.service_digest,
            snapshot=planner.chosen.snapshot,
            live_until=wanted.live_until,
            region=wanted.region,
            residency=wanted.residency,
            on_unavailable=wanted.on_unavailable,
            rows=wanted.rows,
            outputs=_outputs(planner.chosen),
            hops=hops,
            expires_at=planner.expires_at,
        )

    def _check_residency(self, planner: HopPlanner, region: str | None, projections: Sequence[Projection]) -> None:
        wanted, first = planner.wanted, projections[0].view
        if region is not None:
            _check(planner.catalog, "entity-rows", first, wanted.residency, region)
        is_joined_here = region in {None, wanted.region} or wanted.on_unavailable == "stale"
        if is_joined_here and wanted.region not in planner.agents:
            self._check_service(planner, projections)
        for projection in projections:
            for part in planner.chosen.parts[projection.view].of(projection.features):
                if part.residency != UNRESTRICTED and wanted.region is None:
                    raise ResidencyViolation(
                        f"View {projection.view!r} is under the residency class {part.residency!r}, and the request "
                        "does not say where the result goes.",
                        hint="State the region that you read from: region=REGION.",
                        rule="results",
                        view=projection.view,
                        residency=part.residency,
                    )
                for where in dict.fromkeys((region, wanted.region)):
                    if where is not None:
                        _check(planner.catalog, "results", projection.view, part.residency, where)

    def _check_service(self, planner: HopPlanner, projections: Sequence[Projection]) -> None:
        """What is under a rule, rows or features, comes to this service only where it is known to be inside."""
        under: list[tuple[Rule, str, str]] = [("entity-rows", projections[0].view, planner.wanted.residency)]
        for projection in projections:
            parts = planner.chosen.parts[projection.view].of(projection.features)
            under.extend(("results", projection.view, part.residency) for part in parts)
        workspace = planner.session.get_one(WorkspaceRow, planner.caller.workspace_id)
        for rule, view, residency in under:
            if self._region is not None:
                _check(planner.catalog, rule, view, residency, self._region)
            elif not self._is_local and not permits(Residency(residency), workspace.jurisdiction or ""):
                what = "The entity rows are" if rule == "entity-rows" else f"Features of view {view!r} are"
                raise ResidencyViolation(
                    f"{what} under the residency class {residency!r}; view {view!r} would be joined by this service, "
                    f"which is not known to be inside: rule {rule!r}.",
                    hint="Run a feature agent in your region: fairlead agent serve --region REGION",
                    rule=rule,
                    view=view,
                    residency=residency,
                    region=planner.wanted.region,
                )


def _check_request(wanted: FederatedRequest) -> None:
    if not 0 <= wanted.rows <= MAX_ROWS:
        raise InvalidInput(f"A read has 0 to {MAX_ROWS} entity rows.", hint="Read them in parts.")
    if any(column.bytes < 0 for column in wanted.columns):
        raise InvalidInput("A column of less than no bytes there is not.", hint="State what each column weighs.")
    parse_residency(wanted.residency)


def _by_region(chosen: ChosenViews, reader: str | None) -> dict[str | None, list[Projection]]:
    """The projections by where they are joined, the reader's own region first."""
    found: dict[str | None, list[Projection]] = {}
    for projection in chosen.service.projections:
        home = chosen.views[projection.view].home
        if home is not None and reader is None:
            raise InvalidInput(
                f"View {projection.view!r} has its home in {home}, and the request does not say where the reader is.",
                hint="State the region that you read from: region=REGION, or FAIRLEAD_REGION.",
                view=projection.view,
            )
        found.setdefault(home or reader, []).append(projection)
    return dict(sorted(found.items(), key=lambda item: (item[0] != reader, item[0] or "")))


def _outputs(chosen: ChosenViews) -> tuple[Output, ...]:
    types = {(view.name, column.name): column.type for view in chosen.views.values() for column in view.features}
    return tuple(
        Output(
            column=column,
            alias=projection.alias,
            feature=feature,
            type=types[projection.view, feature],
            is_hidden=feature in projection.hidden,
        )
        for projection, feature, column in output_names(chosen.service)
    )


def _check(catalog: Catalog, rule: Rule, view: str, residency: str, region: str) -> None:
    """Refuse a region where data of this class may not be."""
    jurisdiction = catalog.region(region).jurisdiction
    if permits(Residency(residency), jurisdiction):
        return
    what = (
        f"The entity rows are under the residency class {residency!r} and may not be sent to {region} for view {view!r}"
        if rule == "entity-rows"
        else f"Features of view {view!r} are under the residency class {residency!r} and may not go to {region}"
    )
    raise ResidencyViolation(
        f"{what}, which is in {jurisdiction}: rule {rule!r}.",
        hint="Read from inside, or leave the view out."
        if rule == "results"
        else "Leave the view out, or read it where its data may be moved to.",
        rule=rule,
        view=view,
        residency=residency,
        region=region,
        jurisdiction=jurisdiction,
    )
