"""`fairlead model`: register, find, promote, roll back, verify."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from fairlead.cli.context import command, connected, current_output, group
from fairlead.cli.parsing import parse_numbers, parse_pairs, read_document
from fairlead.core.errors import PartialFailure
from fairlead.core.ids import parse_model_reference
from fairlead.sdk.artifacts import Upload
from fairlead.sdk.features import PinnedData

app = group("Models: register, find, promote, roll back.")

Reference = Annotated[str, typer.Argument(help="NAME/VERSION or NAME@ALIAS.", metavar="REFERENCE")]
State = Annotated[
    Literal["active", "archived", "deleted"], typer.Option(help="Show what is archived, or what can be restored.")
]
TrustedKey = Annotated[
    list[Path] | None,
    typer.Option(help="Public key (PEM) whose signature counts, in place of the workspace's signers; repeat."),
]


@command(app, "register")
def register(
    name: Annotated[str, typer.Argument(help="Name of the registered model.")],
    path: Annotated[
        Path, typer.Argument(help="File or folder of the model (an MLflow model folder keeps its signature).")
    ],
    *,
    metric: Annotated[list[str] | None, typer.Option(help="NAME=NUMBER; repeat for more.")] = None,
    param: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; repeat for more.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; repeat for more.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="owner=, team=, cost_centre=: needed with a new name.")
    ] = None,
    residency: Annotated[str | None, typer.Option(help="Residency class of a new name, such as eu.")] = None,
    snapshot: Annotated[str | None, typer.Option(help="Digest of the feature snapshot it was trained on.")] = None,
    parent: Annotated[
        int | None, typer.Option(help="The version it was made from; what differs little from it is sent so.", min=1)
    ] = None,
    run: Annotated[str | None, typer.Option(help="Id of the training run that made it.")] = None,
    commit: Annotated[
        str | None,
        typer.Option(
            help="Commit of the code that made it; a CI job's own, if any.", envvar=["GITHUB_SHA", "CI_COMMIT_SHA"]
        ),
    ] = None,
    description: Annotated[str, typer.Option(help="What this version is.")] = "",
    wait: Annotated[bool, typer.Option(help="Wait until every byte was read back.")] = True,
) -> None:
    """Register a version; only blocks that the location does not hold are sent, as differences where that is less."""
    with connected() as (client, output):
        trained_on = None
        if snapshot is not None:
            pinned = client.features.get_snapshot(snapshot)
            trained_on = PinnedData.of(pinned)
        uploads: list[Upload] = []
        with output.progress(f"register {name}") as progress:
            version = client.models.register(
                name,
                path,
                trained_on=trained_on,
                metrics=parse_numbers(metric),
                params=dict(parse_pairs(param)),
                tags=parse_pairs(tag),
                labels=parse_pairs(label),
                residency=residency,
                description=description,
                run_id=run,
                code_commit=commit,
                parent_version=parent,
                wait=wait,
                progress=progress,
                uploaded=uploads.append,
            )
        (upload,) = uploads
        if output.form == "json":
            output.record(version.to_json() | {"upload": asdict(upload)})
            return
        output.record(version, name="reference")
        output.message(_describe_upload(upload))


@command(app, "list")
def list_(
    name_prefix: Annotated[str | None, typer.Option("--prefix", help="Only names that begin so.")] = None,
    *,
    state: State = "active",
) -> None:
    """List registered models."""
    with connected() as (client, output):
        columns = ["name", "last_version", "residency", "labels.owner", "labels.team", "created_at"]
        output.table(client.models.list(name_prefix=name_prefix, state=state), columns)


@command(app, "show")
def show(
    reference: Annotated[str, typer.Argument(help="NAME, NAME/VERSION or NAME@ALIAS.")], *, state: State = "active"
) -> None:
    """Show a model with its versions, or one version."""
    with connected() as (client, output):
        if "@" in reference or "/" in reference:
            output.record(client.models.resolve(reference), name="reference")
            return
        registered = client.models.get(reference)
        if output.form != "human":
            versions = [version.to_json() for version in client.models.versions(reference, state=state)]
            output.record(registered.to_json() | {"versions": versions})
            return
        output.record(registered)
        columns = ["reference", "state", "aliases", "metrics", "artifact_digest", "created_by", "created_at"]
        output.table(client.models.versions(reference, state=state), columns, title="versions")


@command(app, "rollback", has_dry_run=True)
def rollback(
    reference: Annotated[str, typer.Argument(help="NAME@ENVIRONMENT, such as churn@production.")],
    *,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit trail.")],
    to: Annotated[
        int | None, typer.Option(help="A version that held it recently; none: the one before.", min=1)
    ] = None,
) -> None:
    """Move an environment back to its previous holder, at once."""
    parsed = parse_model_reference(reference)
    if parsed.alias is None:
        raise typer.BadParameter("Write NAME@ENVIRONMENT.", param_hint="REFERENCE")
    with connected() as (client, output):
        output.record(client.models.rollback(parsed.name, parsed.alias, reason=reason, to_version=to))


@command(app, "alias", has_dry_run=True)
def alias(
    reference: Annotated[str, typer.Argument(help="NAME@ALIAS to set.")],
    version: Annotated[int, typer.Argument(help="Version it is to point at.", min=1)],
    *,
    revision: Annotated[int | None, typer.Option(help="Refuse unless it still has this revision.", min=0)] = None,
) -> None:
    """Point an alias at a version (environments move by promotion only)."""
    parsed = parse_model_reference(reference)
    if parsed.alias is None:
        raise typer.BadParameter("Write NAME@ALIAS.", param_hint="REFERENCE")
    with connected() as (client, output):
        output.record(client.models.set_alias(parsed.name, parsed.alias, version, revision=revision))


@command(app, "where")
def where(
    reference: Reference,
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is everywhere it should be.")] = False,
) -> None:
    """Show where a version's bytes are, in what state."""
    with connected() as (client, output):
        replicas = client.models.wait_replicated(reference) if wait else client.models.where(reference)
        columns = [
            "region",
            "location",
            "state",
            "stored_bytes",
            "moved_bytes",
            "source_region",
            "verified_at",
            "error",
        ]
        output.table(replicas, columns)


@command(app, "download")
def download(
    reference: Reference,
    destination: Annotated[Path | None, typer.Argument(help="Folder to make; none: the cache.")] = None,
    *,
    verify: Annotated[
        bool, typer.Option("--verify", help="Only if a signer signed it whom the workspace trusts.")
    ] = False,
    trusted_key: TrustedKey = None,
    signer: Annotated[
        list[str] | None, typer.Option(help="Only signers of this name (a pattern) count; repeat.")
    ] = None,
    signatures: Annotated[int, typer.Option(help="How many different signers must have signed it.", min=1)] = 1,
) -> None:
    """Bring a version's files here, each byte verified, and with --verify only if it is signed."""
    wanted = None
    if verify or trusted_key or signer or signatures > 1:
        from fairlead.sdk.signatures import Verification, read_public_keys

        wanted = Verification(
            count=signatures,
            signers=tuple(signer or ()),
            public_keys=read_public_keys(trusted_key) if trusted_key else None,
        )
    with connected() as (client, output):
        with output.progress(f"download {reference}") as progress:
            path = client.models.download(reference, destination, verify=wanted, progress=progress)
        output.record({"path": str(path)}, human=lambda row: str(row["path"]))


@command(app, "verify")
def verify(reference: Reference) -> None:
    """Read every byte of every replica; corrupt ones are reported and mended."""
    with connected() as (client, output):
        rows = client.models.verify(reference)
        output.table(rows, ["region", "location", "verdict"])
        bad = [str(row["region"]) for row in rows if row["verdict"] != "verified"]
        if bad:
            raise PartialFailure(
                f"{reference} is not verified in {', '.join(bad)}.",
                hint=f"Corrupt replicas are being mended. See: fairlead model where {reference}",
            )


@command(app, "record-examples")
def record_examples(
    folder: Annotated[Path, typer.Argument(help="Folder that mlflow.*.save_model wrote.")],
    *,
    examples: Annotated[
        Path | None, typer.Option(help="JSON or YAML file {rows: [...], predictions: [...]}; none: the input example.")
    ] = None,
) -> None:
    """Write rows and what the model answers into its folder, so that its bundles' smoke tests can compare.

    This loads the model here where no predictions are given.
    """
    from fairlead.sdk.examples import record_examples as record

    given = {} if examples is None else read_document(examples)
    count = record(folder, given.get("rows"), given.get("predictions"))
    current_output().message(f"Recorded {count} examples in {folder}. Register it now.")


def _describe_upload(upload: Upload) -> str:
    """What went over the wire, against what the files weigh."""
    if upload.sent_bytes <= upload.plain_bytes:
        share = f" ({upload.sent_bytes / upload.plain_bytes:.1%})" if upload.plain_bytes else ""
        text = f"Sent {upload.sent_bytes:,} of {upload.plain_bytes:,} bytes{share}"
    else:  # a few bytes of files weigh less than the index of the pack that holds them
        text = f"Sent {upload.sent_bytes:,} bytes, index included, for {upload.plain_bytes:,} bytes of files"
    if upload.base is not None:
        text += f", {upload.delta_blocks} of {upload.new_blocks} new blocks as differences to {upload.base[:19]}"
    return text + "."
