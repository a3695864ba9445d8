"""Routes of the catalog, below `/api/v1/catalog`: what it knows, private regions, and feeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from fairlead.catalog import Catalog
from fairlead.catalog.ages import ages
from fairlead.catalog.catalog import Tables, bundled_tables
from fairlead.catalog.changes import changes
from fairlead.catalog.figures import Figure
from fairlead.catalog.gaps import gaps
from fairlead.catalog.observations import FigureKey, FigureKind, known_figures
from fairlead.catalog.regions import Region
from fairlead.core.errors import InvalidInput, RegionNotFound, UnknownRegion
from fairlead.core.ports import Clock
from fairlead.registry.access import MayAdmin, MayRead, MayRunServer
from fairlead.registry.identity import Caller
from fairlead.registry.wire import IfMatch, Listing, WantedPage, etag, listing
from fairlead.serving.catalog_feeds import CatalogFeeds
from fairlead.serving.catalog_state import CatalogState
from fairlead.serving.private_regions import PrivateRegions
from fairlead.serving.schemas_catalog import (
    AgeOut,
    AppliedRegionOut,
    ChangeOut,
    FeedOut,
    FigureOut,
    GapOut,
    PathOut,
    PriceOut,
    PrivateRegionIn,
    RefreshIn,
    RefreshOut,
    RegionDetailOut,
    RegionOut,
    TierOut,
)

Text = Annotated[str | None, Query(max_length=80)]
BYTES_MAX = 2**60
NOW, BUNDLED = "now", "bundled"


def catalog_routers(state: CatalogState, regions: PrivateRegions, feeds: CatalogFeeds, clock: Clock) -> list[APIRouter]:
    """The catalog's routers, to be mounted under `/api/v1`."""
    return [_regions_router(state, regions), _figures_router(state, clock), _feeds_router(feeds)]


def _regions_router(state: CatalogState, regions: PrivateRegions) -> APIRouter:
    router = APIRouter(prefix="/catalog/regions", tags=["catalog"])

    @router.get("", response_model=Listing[RegionOut])
    def list_regions(
        caller: MayRead,
        page: WantedPage,
        *,
        search: Annotated[str | None, Query(max_length=80, description="A part of its id, place or country.")] = None,
        cloud: Text = None,
        jurisdiction: Text = None,
        private: bool | None = None,
    ) -> Any:
        """List the regions by id: the clouds', and the workspace's own."""
        catalog = state.catalog.within(caller.workspace_id)
        wanted = [
            each
            for each in catalog.regions()
            if _is_like(search, each.id, each.place.name, each.place.country)
            and cloud in {None, each.cloud}
            and (jurisdiction or each.jurisdiction).upper() == each.jurisdiction
            and private in {None, each.owner is not None}
        ]
        bound = ("catalog-regions", caller.workspace_id, search, cloud, jurisdiction, private)
        shown = page.cut(wanted, lambda each: each.id, listing=bound)
        return listing(RegionOut, shown.map(lambda each: _region(catalog, each)))

    @router.get("/{region}", response_model=RegionDetailOut)
    def get_region(region: str, caller: MayRead, response: Response) -> Any:
        """Show all that the catalog says of a region alone; a private one's revision is the ETag."""
        catalog = state.catalog.within(caller.workspace_id)
        try:
            found = catalog.region(region)
        except UnknownRegion as error:
            raise RegionNotFound(error.detail, hint=error.hint, **error.attributes) from None
        applied = None if found.owner is None else regions.get(caller, found.id)
        if applied is not None:
            response.headers.update(etag(applied.revision))
        return {
            **_region(catalog, found),
            "internet_egress_tiers": [TierOut.model_validate(tier) for tier in catalog.internet_egress_tiers(found.id)],
            "prices": [PriceOut.model_validate(price) for price in catalog.prices(found.id)],
            "gaps": [_gap(gap) for gap in gaps(catalog.tables) if gap.region == found.id],
            "applied": None if applied is None else AppliedRegionOut.model_validate(applied),
        }

    @router.put("/{region}", response_model=AppliedRegionOut)
    def put_region(region: str, body: PrivateRegionIn, caller: MayAdmin, expected: IfMatch, response: Response) -> Any:
        """Apply a private region. With `If-Match`, only if it is still at that revision ("0": not there yet)."""
        document = body.model_dump(mode="json", exclude_none=True)
        applied = regions.put(caller, region, document, expected_revision=expected)
        response.headers.update(etag(applied.revision))
        return AppliedRegionOut.model_validate(applied)

    @router.delete("/{region}", status_code=204)
    def delete_region(region: str, caller: MayAdmin, expected: IfMatch) -> None:
        """Forget a private region that has neither a location nor a deployment."""
        regions.delete(caller, region, expected_revision=expected)

    return router


def _figures_router(state: CatalogState, clock: Clock) -> APIRouter:
    router = APIRouter(prefix="/catalog", tags=["catalog"])

    @router.get("/prices", response_model=Listing[PriceOut])
    def list_prices(
        caller: MayRead,
        page: WantedPage,
        *,
        region: Text = None,
        sku: Text = None,
        accelerator: Text = None,
        cloud: Text = None,
    ) -> Any:
        """List prices of instance types, by region and type."""
        catalog = state.catalog.within(caller.workspace_id)
        wanted = [catalog.region(region)] if region is not None else catalog.regions()
        offers = [
            offer
            for each in wanted
            for offer in catalog.prices(each.id)
            if cloud in {None, each.cloud} and sku in {None, offer.sku} and _is_board(accelerator, offer.accelerator)
        ]
        bound = ("catalog-prices", caller.workspace_id, region, sku, accelerator, cloud)
        return listing(PriceOut, page.cut(offers, lambda offer: f"{offer.region} {offer.sku}", listing=bound))

    @router.get("/path", response_model=PathOut)
    def get_path(
        caller: MayRead,
        source: Annotated[str, Query(max_length=80)],
        destination: Annotated[str, Query(max_length=80)],
        size_bytes: Annotated[int | None, Query(ge=0, le=BYTES_MAX)] = None,
    ) -> Any:
        """Say what it takes to send bytes from one region to another: tariff, distance, throughput, cost and carbon."""
        catalog = state.catalog.within(caller.workspace_id)
        pair = catalog.region(source).id, catalog.region(destination).id
        sized = size_bytes is not None
        return {
            "source": pair[0],
            "destination": pair[1],
            "egress": _figure(catalog.egress(*pair)),
            "internet_egress": _figure(catalog.internet_egress(pair[0])),
            "round_trip": _figure(catalog.round_trip(*pair)),
            "throughput": _figure(catalog.expected_throughput(*pair)),
            "cost": _figure(catalog.transfer_cost(*pair, size_bytes or 0)) if sized else None,
            "carbon": _figure(catalog.transfer_carbon(*pair, size_bytes or 0)) if sized else None,
        }

    @router.get("/gaps", response_model=Listing[GapOut])
    def list_gaps(caller: MayRead, page: WantedPage, region: Text = None, kind: Text = None) -> Any:
        """List what no source says, by region and kind, with what is answered instead."""
        catalog = state.catalog.within(caller.workspace_id)
        wanted = None if region is None else catalog.region(region).id
        found = [gap for gap in gaps(catalog.tables) if wanted in {None, gap.region} and kind in {None, gap.kind}]
        bound = ("catalog-gaps", caller.workspace_id, region, kind)
        shown = page.cut(found, lambda gap: f"{gap.region} {gap.kind} {','.join(gap.items)}", listing=bound)
        return {"items": [_gap(gap) for gap in shown.items], "next_page_token": shown.next_page_token}

    @router.get("/ages", response_model=Listing[AgeOut])
    def list_ages(caller: MayRead, page: WantedPage) -> Any:
        """List how old what the catalog says is, by kind of figure and source."""
        figures = known_figures(state.catalog.within(caller.workspace_id).tables)
        found = ages(figures, clock.now().date())
        bound = ("catalog-ages", caller.workspace_id)
        key: Callable[[Any], str] = lambda age: f"{age.kind} {age.source} {age.licence}"  # noqa: E731  (a sort key)
        return listing(AgeOut, page.cut(found, key, listing=bound))

    @router.get("/changes", response_model=Listing[ChangeOut])
    def list_changes(
        caller: MayRead,
        page: WantedPage,
        *,
        before: Annotated[str, Query(max_length=10, description="`bundled`, `now`, or a day.")] = BUNDLED,
        after: Annotated[str, Query(max_length=10, description="`bundled`, `now`, or a day.")] = NOW,
        region: Text = None,
        kind: FigureKind | None = None,
    ) -> Any:
        """List the figures that differ between two states of the catalog."""
        found = [
            change
            for change in changes(_state_at(state, caller, before), _state_at(state, caller, after))
            if region in {None, change.region} and kind in {None, change.kind}
        ]
        bound = ("catalog-changes", caller.workspace_id, before, after, region, kind)
        shown = page.cut(found, lambda change: f"{change.region} {change.kind} {change.item}", listing=bound)
        return listing(ChangeOut, shown)

    return router


def _feeds_router(feeds: CatalogFeeds) -> APIRouter:
    router = APIRouter(prefix="/catalog/feeds", tags=["catalog"])

    @router.get("", response_model=Listing[FeedOut])
    def list_feeds(caller: MayRead, page: WantedPage) -> Any:
        """List the feeds, how their last refreshes went, and how old what they brought is."""
        return listing(
            FeedOut, page.cut(feeds.list(), lambda each: each.feed, listing=("catalog-feeds", caller.workspace_id))
        )

    @router.post("/{feed}/refresh", response_model=RefreshOut)
    def refresh(feed: str, body: RefreshIn, caller: MayRunServer) -> Any:
        """Read a feed now and keep what it brings. The dry run reads it too, and keeps nothing."""
        return RefreshOut.model_validate(feeds.refresh(caller, feed, regions=body.regions))

    return router


def _region(catalog: Catalog, region: Region) -> dict[str, Any]:
    return {
        "region": region.id,
        "cloud": region.cloud,
        "place": region.place,
        "jurisdiction": region.jurisdiction,
        "coordinate_source": region.coordinate_source,
        "is_private": region.owner is not None,
        "carbon": region.carbon,
        "carbon_free_share": region.carbon_free_share,
        "pue": region.pue,
        "internet_egress": catalog.internet_egress(region.id),
        "instance_types": len(catalog.prices(region.id)),
    }


def _state_at(state: CatalogState, caller: Caller, moment: str) -> Mapping[FigureKey, Figure]:
    return known_figures(Catalog(_tables_at(state, moment)).within(caller.workspace_id).tables)


def _tables_at(state: CatalogState, moment: str) -> Tables:
    if moment == NOW:
        return state.catalog.tables
    if moment == BUNDLED:
        return bundled_tables()
    try:
        return state.on(date.fromisoformat(moment))
    except ValueError:
        raise InvalidInput(
            f"{moment!r} is no state of the catalog.", hint=f"Write {BUNDLED}, {NOW}, or a day like 2026-07-01."
        ) from None


def _gap(gap: Any) -> GapOut:
    return GapOut(region=gap.region, kind=gap.kind, items=list(gap.items), stand_in=gap.stand_in)


def _figure(figure: Figure) -> FigureOut:
    return FigureOut.model_validate(figure)


def _is_like(search: str | None, *texts: str) -> bool:
    return search is None or any(search.lower() in text.lower() for text in texts)


def _is_board(wanted: str | None, board: str | None) -> bool:
    """`any` wants an accelerator, a name the boards that begin with it: `A100`, `TPU`."""
    if wanted is None:
        return True
    return board is not None and (wanted == "any" or board.lower().startswith(wanted.lower()))
