"""`fairlead signer` and `fairlead model sign`: who may sign, signing, and what is signed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from fairlead.cli.context import command, connected, current_output, group
from fairlead.cli.model import Reference
from fairlead.cli.model import app as model_app
from fairlead.cli.parsing import parse_moment, read_document
from fairlead.core.clock import format_time
from fairlead.core.errors import InvalidInput

if TYPE_CHECKING:
    from fairlead.core.errors import JsonValue

app = group("Signers: whose signatures of versions count, for which models, from when until when.")

_Name = Annotated[str, typer.Argument(help="Signer.")]
_Revision = Annotated[int | None, typer.Option(help="Refuse unless the signer still has this revision.", min=0)]
_Passphrase = Annotated[
    Path | None, typer.Option("--passphrase-file", help="File whose first line opens the private key.")
]


@command(app, "create-key")
def create_key(
    file: Annotated[Path, typer.Argument(help="File to make for the private key; the public one goes to FILE.pub.")],
    *,
    kind: Annotated[Literal["ed25519", "ecdsa-p256"], typer.Option(help="What kind of key to make.")] = "ed25519",
    passphrase_file: _Passphrase = None,
) -> None:
    """Make a key to sign with, on this machine alone."""
    from fairlead.core.signatures import create_key as create
    from fairlead.core.signatures import parse_public_key
    from fairlead.sdk.signatures import write_key_pair

    private, public = create(kind, passphrase=_passphrase(passphrase_file))
    beside = write_key_pair(file, private, public)
    row = {"key_id": parse_public_key(public.decode())[1], "private_key": str(file), "public_key": str(beside)}
    current_output().record(row, name="key_id")


@command(app, "add", has_dry_run=True)
def add(
    name: _Name,
    *,
    public_key: Annotated[Path | None, typer.Option(help="PEM file: Ed25519, or ECDSA over P-256.")] = None,
    identity: Annotated[str | None, typer.Option(help="E-mail address or URI that a certificate is for.")] = None,
    issuer: Annotated[str | None, typer.Option(help="Who vouched for the identity, as a URL.")] = None,
    trusted_root: Annotated[
        Path | None, typer.Option(help="The sigstore instance's trusted root (JSON), for an identity.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="Pattern of models it signs; repeat; none: all.")] = None,
    not_before: Annotated[str | None, typer.Option(help="From when its signatures count.", metavar="TIME")] = None,
    not_after: Annotated[str | None, typer.Option(help="Until when it may sign.", metavar="TIME")] = None,
    revision: _Revision = None,
) -> None:
    """Let a key's or an identity's signatures count, or change for which models and how long."""
    spec: dict[str, JsonValue] = {
        "public_key": None if public_key is None else _read(public_key).decode(errors="replace"),
        "identity": identity,
        "issuer": issuer,
        "trusted_root": None if trusted_root is None else read_document(trusted_root),
        "models": [*(model or [])],
        "not_before": None if not_before is None else format_time(parse_moment(not_before)),
        "not_after": None if not_after is None else format_time(parse_moment(not_after)),
    }
    with connected() as (client, output):
        output.record(_shown(client.signers.add(name, spec, revision=revision).to_json()), name="name")


@command(app, "list")
def list_() -> None:
    """List the signers by name, revoked ones among them."""
    with connected() as (client, output):
        columns = ["name", "key_id", "identity", "models", "not_before", "not_after", "revoked_at", "revision"]
        output.table(client.signers.list(), columns)


@command(app, "show")
def show(name: _Name) -> None:
    """Show one signer."""
    with connected() as (client, output):
        found = client.signers.get(name)
        output.record(found if output.form == "json" else _shown(found.to_json()))


@command(app, "revoke", has_dry_run=True)
def revoke(
    name: _Name,
    *,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit trail.")],
    revision: _Revision = None,
) -> None:
    """Let nothing count any more that a signer ever signed."""
    with connected() as (client, output):
        output.record(_shown(client.signers.revoke(name, reason=reason, revision=revision).to_json()), name="name")


@command(model_app, "sign", has_dry_run=True)
def sign(
    reference: Reference,
    *,
    key: Annotated[Path | None, typer.Option(help="Private key (PEM); it never leaves this machine.")] = None,
    passphrase_file: _Passphrase = None,
    keyless: Annotated[
        bool, typer.Option("--keyless", help="Sign as an identity, by a sigstore instance: needs --trust-config.")
    ] = False,
    trust_config: Annotated[
        Path | None, typer.Option(help="The instance's client trust configuration (JSON): addresses and trusted root.")
    ] = None,
    identity_token: Annotated[
        Path | None,
        typer.Option(help="File with the OIDC token (audience sigstore); none: the token of this CI job."),
    ] = None,
    files: Annotated[Path | None, typer.Option(help="Sign only if the version is made of exactly these files.")] = None,
) -> None:
    """Sign a version: its name, number, digest and a sequence that grows with each signature of the model."""
    if (key is None) == (not keyless) or keyless == (trust_config is None):
        raise typer.BadParameter("Give either --key FILE, or --keyless with --trust-config FILE.")
    digest = None if files is None else _digest_of(files)
    with connected() as (client, output):
        if key is not None:
            from fairlead.core.signatures import read_private_key

            private = read_private_key(_read(key), passphrase=_passphrase(passphrase_file))
            signature = client.signatures.sign(reference, private, digest=digest)
        else:
            token = _identity_token(identity_token, client.settings)
            config = _read(cast("Path", trust_config)).decode(errors="replace")
            signature = client.signatures.sign_as_identity(reference, token, config, digest=digest)
        row = signature.to_json()
        if output.form != "json":
            del row["envelope"]
        output.record(row, name="reference")


@command(model_app, "signatures")
def signatures(reference: Reference) -> None:
    """List a version's signatures, and why one does not count."""
    with connected() as (client, output):
        columns = ["sequence", "signer", "artifact_digest", "refusal", "created_by", "created_at"]
        output.table(client.signatures.list(reference), columns)


def _identity_token(file: Path | None, settings: Any) -> str:
    from fairlead.core.keyless import AUDIENCE
    from fairlead.sdk.identity_tokens import IdentitySource

    if file is not None:
        return _read(file).decode(errors="replace").strip()
    source = IdentitySource(
        id_token=settings.sigstore_id_token,
        request_url=settings.actions_request_url,
        request_token=settings.actions_request_token,
    )
    if not source.is_there:
        raise InvalidInput(
            "There is no identity to sign as.",
            hint=f"Give an OIDC token for the audience {AUDIENCE}: --identity-token FILE, or SIGSTORE_ID_TOKEN.",
        )
    return source.token(AUDIENCE)


def _digest_of(files: Path) -> str:
    from fairlead.sync.store.manifest import build_manifest

    return build_manifest(files).digest


def _passphrase(file: Path | None) -> bytes | None:
    return None if file is None else _read(file).partition(b"\n")[0].rstrip(b"\r")


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{str(file)!r} cannot be read: {error.strerror}.", hint="Check the path.") from None


def _shown(row: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Without what is long and says little to people."""
    if current_output().form == "json":
        return row
    return {name: value for name, value in row.items() if name not in {"public_key", "trusted_root"}}
