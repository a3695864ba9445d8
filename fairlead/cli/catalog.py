"""`fairlead catalog`: what is known of regions, private regions, and the feeds that bring newer figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli.context import command, connected, group
from fairlead.cli.output import reach
from fairlead.cli.parsing import read_named_resource

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fairlead.cli.output import Output
    from fairlead.sdk.records import Record

app = group("The catalog: regions, prices, tariffs, distances and carbon; private regions; feeds that refresh it.")

_Region = Annotated[str, typer.Argument(help="Region, such as aws:eu-central-1 or onprem:rotterdam-1.")]
_RegionOption = Annotated[str | None, typer.Option(help="Of this region alone.")]
_KindOption = Annotated[str | None, typer.Option(help="Of this kind alone: on-demand, spot, carbon, egress ...")]
_Revision = Annotated[int | None, typer.Option(help="Refuse unless the region still has this revision.")]
_CHANGE_COLUMNS = ["region", "kind", "item", "was", "is", "change"]
_ITEMS_SHOWN = 4


@command(app, "regions")
def regions(
    search: Annotated[str | None, typer.Argument(help="A part of an id, a place or a country.")] = None,
    *,
    cloud: Annotated[str | None, typer.Option(help="Of this cloud alone.")] = None,
    jurisdiction: Annotated[str | None, typer.Option(help="Under this jurisdiction alone: EU, US, JPN ...")] = None,
    private: Annotated[bool, typer.Option("--private", help="The workspace's own alone.")] = False,
) -> None:
    """List regions: the clouds', and the workspace's own."""
    with connected() as (client, output):
        found = client.catalog.regions(
            search=search, cloud=cloud, jurisdiction=jurisdiction, private=True if private else None
        )
        columns = ["region", "place.name", "place.country", "jurisdiction", "carbon.value", "instance_types"]
        _table(output, found, columns, {"carbon.value": "carbon_g_per_kwh"})


@command(app, "show")
def show(region: _Region) -> None:
    """Show all that the catalog says of a region alone, each figure with source, date and licence."""
    with connected() as (client, output):
        output.record(client.catalog.region(region), human=_render_region)


@command(app, "prices")
def prices(
    region: Annotated[str | None, typer.Argument(help="Region; none given: all.")] = None,
    *,
    sku: Annotated[str | None, typer.Option(help="Of this instance type alone.")] = None,
    accelerator: Annotated[
        str | None, typer.Option(help="With an accelerator: `any`, or how its name begins (A100, TPU, Inferentia).")
    ] = None,
    cloud: Annotated[str | None, typer.Option(help="Of this cloud alone.")] = None,
) -> None:
    """List prices of instance types, on demand and spot, in US dollars an hour."""
    with connected() as (client, output):
        found = client.catalog.prices(region=region, sku=sku, accelerator=accelerator, cloud=cloud)
        columns = ["region", "sku", "vcpus", "memory_gib", "accelerator", "accelerator_count"]
        headings = {"on_demand.value": "on_demand_usd", "spot.value": "spot_usd", "on_demand.source": "source"}
        _table(output, found, [*columns, *headings], headings)


@command(app, "carbon")
def carbon(
    search: Annotated[str | None, typer.Argument(help="A part of an id, a place or a country.")] = None,
    *,
    cloud: Annotated[str | None, typer.Option(help="Of this cloud alone.")] = None,
) -> None:
    """List regions by the carbon intensity of their grid, the cleanest first."""
    with connected() as (client, output):
        found = sorted(
            client.catalog.regions(search=search, cloud=cloud), key=lambda each: (each.carbon.value, each.region)
        )
        headings = {
            "carbon.value": "g_per_kwh",
            "carbon.is_estimate": "is_estimate",
            "carbon_free_share.value": "carbon_free",
            "pue.value": "pue",
            "carbon.date": "date",
            "carbon.source": "source",
        }
        _table(output, found, ["region", *headings], headings)


@command(app, "egress")
def egress(
    source: Annotated[str, typer.Argument(help="Region that sends.")],
    destination: Annotated[str, typer.Argument(help="Region that receives.")],
    *,
    gigabytes: Annotated[float | None, typer.Option(min=0, max=1e9, help="What so many gigabytes cost.")] = None,
) -> None:
    """Show what it takes to send bytes from one region to another."""
    with connected() as (client, output):
        found = client.catalog.path(
            source, destination, size_bytes=None if gigabytes is None else round(gigabytes * 10**9)
        )
        output.record(found, human=_render_path)


@command(app, "gaps")
def gaps(*, region: _RegionOption = None, kind: _KindOption = None) -> None:
    """List what no source says, and what is answered instead."""
    with connected() as (client, output):
        rows: list[dict[str, Any]] = []
        for gap in client.catalog.gaps(region=region, kind=kind):
            more = len(gap.items) - _ITEMS_SHOWN
            shown = ", ".join(gap.items[:_ITEMS_SHOWN]) + (f" and {more} more" if more > 0 else "")
            rows.append({**gap.to_json(), "missing": shown or None})
        output.table(rows, ["region", "kind", "missing", "stand_in"])


@command(app, "age")
def age() -> None:
    """Show how old what the catalog says is, by kind of figure and source."""
    with connected() as (client, output):
        columns = ["kind", "source", "licence", "figures", "oldest", "newest", "age_days"]
        output.table(client.catalog.ages(), columns)


@command(app, "diff")
def diff(
    before: Annotated[str, typer.Argument(help="`bundled`, `now`, or a day like 2024-01-01.")] = "bundled",
    after: Annotated[str, typer.Argument(help="`bundled`, `now`, or a day.")] = "now",
    *,
    region: _RegionOption = None,
    kind: _KindOption = None,
) -> None:
    """List the figures that differ between two states of the catalog."""
    with connected() as (client, output):
        found = client.catalog.changes(before=before, after=after, region=region, kind=kind)
        output.table([_change(each.to_json()) for each in found], _CHANGE_COLUMNS)


@command(app, "feeds")
def feeds() -> None:
    """List the feeds, how their last refreshes went, and how old what they brought is."""
    with connected() as (client, output):
        columns = [
            "feed",
            "is_configured",
            "is_regular",
            "figures",
            "missing",
            "succeeded_at",
            "age_days",
            "error_detail",
        ]
        output.table(client.catalog.feeds(), columns)


@command(app, "refresh", has_dry_run=True)
def refresh(
    *,
    feed: Annotated[str, typer.Option(help="Feed: aws, azure, google, electricity-maps, watttime or file.")],
    region: Annotated[list[str] | None, typer.Option(help="Of this region alone; may be repeated.")] = None,
) -> None:
    """Have the server read a feed now, keep what it brings, and list what that changes."""
    with connected() as (client, output):
        found = client.catalog.refresh(feed, regions=region)
        if output.form == "json":
            output.record(found)
            return
        output.table([_change(each.to_json()) for each in found.changes], _CHANGE_COLUMNS)
        output.message(
            f"{feed} brought {found.figures} figures; {len(found.changes)} are other ones than before, "
            f"{len(found.missing)} were missing."
        )


@command(app, "apply", has_dry_run=True)
def apply(
    file: Annotated[Path, typer.Argument(help="YAML or JSON resource of kind Region.")], *, revision: _Revision = None
) -> None:
    """Add or replace a private region from a file."""
    with connected() as (client, output):
        region, spec = read_named_resource(file, "Region")
        output.record(client.catalog.apply_region(region, spec, revision=revision))


@command(app, "delete", has_dry_run=True)
def delete(region: _Region, *, revision: _Revision = None) -> None:
    """Forget a private region that has neither a location nor a deployment."""
    with connected() as (client, output):
        client.catalog.delete_region(region, revision=revision)
        output.message(f"Forgot {region}.")


def _render_region(row: dict[str, Any]) -> str:
    place = row["place"]
    owned = ", private" if row["is_private"] else ""
    lines = [
        f"{row['region']}: {place['name']}, {place['country']}, under {row['jurisdiction']}{owned}",
        f"  at {place['latitude']:g}, {place['longitude']:g} ({row['coordinate_source']})",
        "",
    ]
    for name, figure in (
        ("carbon", row["carbon"]),
        ("carbon-free share", row["carbon_free_share"]),
        ("PUE", row["pue"]),
        *((f"egress from {tier['from_gb']:g} GB", tier["tariff"]) for tier in row["internet_egress_tiers"]),
    ):
        lines.append(f"{name:<22}{'no source says' if figure is None else _with_source(figure)}")
    lines += ["", f"{'instance type':<28}{'USD/h':>10}{'spot':>10}  source"]
    for price in row["prices"]:
        board = f" {price['accelerator_count']}x {price['accelerator']}" if price["accelerator"] else ""
        spot = "-" if price["spot"] is None else f"{price['spot']['value']:.4f}"
        demand = price["on_demand"]
        lines.append(f"{price['sku'] + board:<28}{demand['value']:>10.4f}{spot:>10}  {demand['source']}")
    lines += ["", "Gaps:" if row["gaps"] else "No gaps."]
    for gap in row["gaps"]:
        items = f" ({len(gap['items'])})" if gap["items"] else ""
        lines.append(f"  {gap['kind']}{items}: {gap['stand_in']} instead")
    return "\n".join(lines)


def _render_path(row: dict[str, Any]) -> str:
    lines = [f"{row['source']} -> {row['destination']}"]
    names = ("egress", "round_trip", "throughput", "cost", "carbon", "internet_egress")
    lines += [f"{name.replace('_', ' '):<18}{_with_source(row[name])}" for name in names if row[name] is not None]
    return "\n".join(lines)


def _with_source(figure: Mapping[str, Any]) -> str:
    facts = [figure["source"], figure.get("date"), figure.get("licence")]
    return f"{_text(figure):<22}{'; '.join(str(fact) for fact in facts if fact)}"


def _text(figure: Mapping[str, Any]) -> str:
    return f"{'~' if figure['is_estimate'] else ''}{figure['value']:g} {figure['unit']}"


def _change(row: Mapping[str, Any]) -> dict[str, Any]:
    before, after, percent = row["before"], row["after"], row["percent"]
    return {
        **row,
        "was": None if before is None else _text(before),
        "is": None if after is None else _text(after),
        "change": None if percent is None else f"{percent:+g} %",
    }


def _table(output: Output, found: Iterable[Record], columns: Sequence[str], headings: Mapping[str, str]) -> None:
    """A table in which members of figures stand under headings that say their unit; JSON has the figures whole."""
    rows = [each.to_json() for each in found]
    if output.form != "json":
        rows = [{headings.get(path, path): reach(row, path) for path in columns} for row in rows]
    output.table(rows, [headings.get(path, path) for path in columns])
