"""`fairlead location`: where bytes may be."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli.amounts import render_cost, render_size
from fairlead.cli.budget import parse_rate
from fairlead.cli.context import command, connected, current_output, group, is_dry_run
from fairlead.cli.output import render_value
from fairlead.cli.parsing import parse_pairs
from fairlead.core.errors import InvalidInput

if TYPE_CHECKING:
    from fairlead.core.errors import JsonValue

app = group("Locations: buckets and prefixes, each in a region.")

_Option = Annotated[
    list[str] | None, typer.Option(help="NAME=VALUE for the filesystem, such as project=...; no secrets.")
]
_Endpoint = Annotated[str | None, typer.Option(help="URL of a store other than the cloud's own.")]
_StorageClass = Annotated[str | None, typer.Option(help="Class that new objects get, such as STANDARD_IA.")]
_EncryptionKey = Annotated[
    str | None, typer.Option(help="KMS key (S3, GCS) or encryption scope (Azure) that new objects are encrypted with.")
]
_RateLimit = Annotated[str | None, typer.Option(help="How fast one worker may move bytes, such as 200MB/s.")]
_Identity = Annotated[
    list[str] | None,
    typer.Option(help="NAME=VALUE of who opens it, such as kind=workload role_arn=...; no secrets."),
]
_CreateOnly = Annotated[
    bool | None, typer.Option("--create-only/--no-create-only", help="Whether the store is true to create-only writes.")
]
_MinWarm = Annotated[
    float | None, typer.Option(min=0, max=1, help="Share of what should be there that makes it ACTIVE; all if unset.")
]
_ClientAccess = Annotated[
    str | None,
    typer.Option(help="direct: clients bring identities of their own; signed: the server signs addresses for them."),
]
_Size = Annotated[int | None, typer.Option(min=1, help="Bytes that a cache keeps at most.")]
_Offline = Annotated[
    int | None,
    typer.Option(min=1, help="Seconds that a token is served on the registry's last word."),
]
_Public = Annotated[bool | None, typer.Option("--public/--private", help="Whether a cache serves without a token.")]


@command(app, "add", has_dry_run=True)
def add(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    *,
    region: Annotated[str, typer.Option(help="CLOUD:REGION, such as aws:us-east-1.")],
    url: Annotated[str, typer.Option(help="A folder, s3://, gs:// or abfs://; of a cache, where it is reached.")],
    option: _Option = None,
    kind: Annotated[str, typer.Option(help="storage, or cache.")] = "storage",
    endpoint: _Endpoint = None,
    storage_class: _StorageClass = None,
    encryption_key: _EncryptionKey = None,
    rate_limit: _RateLimit = None,
    identity: _Identity = None,
    client_access: _ClientAccess = None,
    create_only: _CreateOnly = None,
    min_warm: _MinWarm = None,
    size_bytes: _Size = None,
    public: _Public = None,
    offline_seconds: _Offline = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is warm.")] = False,
) -> None:
    """Add a location, and show what is brought there and what that costs; it takes traffic once it is warm."""
    settings = _settings(
        endpoint=endpoint,
        storage_class=storage_class,
        encryption_key=encryption_key,
        rate_limit=rate_limit,
        identity=identity,
        client_access=client_access,
        has_create_only=create_only,
        min_warm=min_warm,
        size_bytes=size_bytes,
        is_public=public,
        offline_seconds=offline_seconds,
    )
    options = dict(parse_pairs(option))
    with connected() as (client, output):
        plan = client.locations.plan(name, region, url, options=options, kind=kind, settings=settings)
        added = client.locations.add(name, region, url, options=options, kind=kind, settings=settings)
        if wait and not is_dry_run():
            added = client.locations.wait(name, "ACTIVE")
        shown = {**added.to_json(), "backfill": _without_location(plan.to_json())}
        output.record(shown, human=_describe_added)


@command(app, "set", has_dry_run=True)
def set_(
    name: Annotated[str, typer.Argument(help="Which one.")],
    *,
    endpoint: _Endpoint = None,
    storage_class: _StorageClass = None,
    encryption_key: _EncryptionKey = None,
    rate_limit: _RateLimit = None,
    identity: _Identity = None,
    client_access: _ClientAccess = None,
    create_only: _CreateOnly = None,
    min_warm: _MinWarm = None,
    size_bytes: _Size = None,
    public: _Public = None,
    offline_seconds: _Offline = None,
    unset: Annotated[list[str] | None, typer.Option(help="A setting to take back, such as storage_class.")] = None,
) -> None:
    """Change a location's settings, after it was tried out with them; region and URL never change."""
    settings = _settings(
        endpoint=endpoint,
        storage_class=storage_class,
        encryption_key=encryption_key,
        rate_limit=rate_limit,
        identity=identity,
        client_access=client_access,
        has_create_only=create_only,
        min_warm=min_warm,
        size_bytes=size_bytes,
        is_public=public,
        offline_seconds=offline_seconds,
    )
    settings |= dict.fromkeys(unset or ())
    if not settings:
        raise InvalidInput("There is no setting to change.", hint="See: fairlead location set --help")
    with connected() as (client, output):
        output.record(client.locations.set(name, settings))


@command(app, "terraform")
def terraform(
    name: Annotated[str, typer.Argument(help="What the location will be called.")],
    *,
    region: Annotated[str, typer.Option(help="CLOUD:REGION, such as aws:us-east-1.")],
    url: Annotated[str, typer.Option(help="The bucket, with the location's prefix: s3://, gs:// or abfs://.")],
    issuer: Annotated[str, typer.Option(help="Who issues the workers' tokens: an https address (OpenID Connect).")],
    subject: Annotated[list[str], typer.Option(help="Whose tokens count: their subject, such as a service account.")],
    option: _Option = None,
    storage_class: _StorageClass = None,
    encryption_key: _EncryptionKey = None,
    out: Annotated[Path | None, typer.Option(help="Write the files to this folder.")] = None,
) -> None:
    """Write Terraform for a location's bucket, and for workers that open it without a key; asks no server."""
    from fairlead.serving.terraform.locations import Bucket, location_files

    bucket = Bucket(
        location=name,
        region=region,
        url=url,
        issuer=issuer,
        subjects=tuple(subject),
        account=parse_pairs(option).get("account_name"),
        storage_class=storage_class,
        encryption_key=encryption_key,
    )
    files = location_files(bucket)
    output = current_output()
    if out is None:
        text = "\n".join(f"# {path}\n{text}" for path, text in files.items())
        output.record({"files": dict(files)}, human=lambda _: text)
        return
    out.mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        (out / path).write_text(text, encoding="utf-8")
    output.table([{"path": str(out / path)} for path in files], ["path"])


@command(app, "show")
def show(name: Annotated[str, typer.Argument(help="Which one.")]) -> None:
    """Show a location, its settings, and what it lacks or, if it is being retired, waits for."""
    with connected() as (client, output):
        location = client.locations.get(name)
        shown = location.to_json()
        if location.kind == "storage" and location.state in {"WARMING", "ACTIVE"}:
            shown["backfill"] = _without_location(client.locations.backfill(name).to_json())
        elif location.state == "DRAINING":
            shown["retirement"] = _without_location(client.locations.retirement(name).to_json())
        output.record(shown)


@command(app, "list")
def list_() -> None:
    """List locations."""
    with connected() as (client, output):
        output.table(client.locations.list(), ["name", "region", "jurisdiction", "kind", "state", "url"])


@command(app, "retire", has_dry_run=True)
def retire(
    name: Annotated[str, typer.Argument(help="Which one.")],
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until nothing needs it any more.")] = False,
) -> None:
    """Give a location up: what only it holds is copied elsewhere first, then its objects are taken away."""
    with connected() as (client, output):
        found = client.locations.retirement(name) if is_dry_run() else client.locations.retire(name)
        if is_dry_run():
            # Refused where the real call would be.
            client.locations.retire(name)
        elif wait:
            client.locations.wait(name, "RETIRED")
            found = client.locations.retirement(name)
        output.record(found, human=_describe_retirement)


@command(app, "lost", has_dry_run=True)
def lost(
    name: Annotated[str, typer.Argument(help="Which one.")],
    *,
    reason: Annotated[str, typer.Option(help="What happened; certificates of erasures quote it.")],
    whole_region: Annotated[
        bool, typer.Option("--whole-region", help="All else in its region is lost too: online stores and logs.")
    ] = False,
) -> None:
    """Say that a location will never come back: nothing is read from it, and no erasure waits for it."""
    with connected() as (client, output):
        output.record(client.locations.give_up(name, reason=reason, has_region=whole_region), human=_describe_loss)


@command(app, "keep", has_dry_run=True)
def keep(name: Annotated[str, typer.Argument(help="Which one.")]) -> None:
    """Take back a retirement that is not over."""
    with connected() as (client, output):
        output.record(client.locations.keep(name))


def _settings(
    *, rate_limit: str | None, identity: list[str] | None, **plain: str | float | bool | None
) -> dict[str, JsonValue]:
    settings: dict[str, JsonValue] = {name: value for name, value in plain.items() if value is not None}
    if rate_limit is not None:
        settings["rate_limit_bytes_per_second"] = parse_rate(rate_limit)
    if identity:
        settings["identity"] = dict(parse_pairs(identity))
    return settings


def _without_location(plan: dict[str, JsonValue]) -> dict[str, JsonValue]:
    return {name: value for name, value in plan.items() if name != "location"}


def _describe_added(row: dict[str, Any]) -> str:
    plan: dict[str, Any] = row["backfill"]
    count, note = plan["wanted"] - plan["verified"], " (estimates)" if plan["is_estimate"] else ""
    lines = [
        f"{row['name']}: {row['kind']} in {row['region']} at {row['url']}, {row['state']}",
        f"  backfill: {_artifacts(count)}, {render_cost(plan)}{note}",
    ]
    lines += [
        f"    from {source['location']} ({source['region']}): {_artifacts(source['artifacts'])}, {render_cost(source)}"
        for source in plan["sources"]
    ]
    if plan["waiting"]:
        lines.append(f"    until they are verified somewhere, {_artifacts(plan['waiting'])} must wait")
    if row["state"] == "WARMING":
        lines.append(f"  It takes traffic once it is warm. See: fairlead location show {row['name']}")
    return "\n".join(lines)


def _describe_retirement(row: dict[str, Any]) -> str:
    location: dict[str, Any] = row["location"]
    lines = [
        f"{location['name']} ({location['region']}) is {location['state']}",
        f"  taken away: {_count(row['replicas'], 'replica')}, {render_size(row['stored_bytes'])}",
    ]
    if row["last_replica_count"]:
        lines.append(f"  copied first, being nowhere else: {_artifacts(row['last_replica_count'])}")
    lines += [
        f"    {render_value(each['artifact'], is_short=True)} ({each['residency']}, "
        f"{render_size(each['size_bytes'])}) to "
        f"{' or '.join(each['copied_to']) or 'nowhere: it may be in no other location'}"
        for each in row["last_replicas"]
    ]
    if row["open_uploads"]:
        lines.append(f"  waited for: {_count(row['open_uploads'], 'open upload')}")
    for user in row["used_by"]:
        lines.append(f"  waited for: {user['name']}, which runs in {location['region']} and reads from it")
        if user["goes_on_in"]:
            lines.append(f"    it leaves by itself, and goes on in {', '.join(user['goes_on_in'])}")
        elif user["command"] is not None:
            lines.append(f"    it runs nowhere else; to move it: {user['command']}")
    return "\n".join(lines)


def _describe_loss(row: dict[str, Any]) -> str:
    location: dict[str, Any] = row["location"]
    rest = f", with all else in {location['region']}" if row["has_region"] else ""
    lines = [f"{location['name']} is given up for lost{rest}: {row['reason']}"]
    if row["artifact_count"]:
        lines.append(f"  held nowhere else: {_artifacts(row['artifact_count'])}")
    lines += [f"    {render_value(each, is_short=True)}" for each in row["artifacts"]]
    return "\n".join(lines)


def _artifacts(count: int) -> str:
    return _count(count, "artifact")


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
