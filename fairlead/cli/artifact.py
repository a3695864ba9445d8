"""`fairlead artifact` and `fairlead verify`: artifacts as single files, and reading back with no server to ask."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli.context import command, connected, current_output, group
from fairlead.cli.model import TrustedKey
from fairlead.cli.parsing import parse_pairs
from fairlead.core.errors import InvalidInput, NotSigned, PartialFailure
from fairlead.sdk.settings import ClientSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from fairlead.core.ids import Digest
    from fairlead.sync.store.offline import ArtifactVerdict

app = group("Artifacts as single files, to carry where no network leads.")
verify_app = group("Reading back with no server to ask.")


@command(app, "export")
def export(
    reference: Annotated[
        str, typer.Argument(help="NAME/VERSION, NAME@ALIAS or an artifact's digest.", metavar="REFERENCE")
    ],
    file: Annotated[Path, typer.Argument(help="File to make, such as churn.fairlead.")],
) -> None:
    """Write an artifact into one file, each byte verified."""
    with connected() as (client, output):
        signatures: list[dict[str, Any]] = []
        if reference.startswith("sha256:"):
            digest = reference
        else:
            version = client.models.resolve(reference)
            digest = _digest_of(version)
            signatures = [each.envelope for each in client.signatures.of(version)]
        with output.progress(f"export {reference}") as progress:
            exported = client.artifacts.export(digest, file, signatures=signatures, progress=progress)
        row: dict[str, Any] = {
            "artifact_digest": digest,
            "kind": exported.header.kind,
            "residency": exported.header.residency,
            "file": str(file),
            "size_bytes": exported.size_bytes,
            "plain_bytes": exported.plain_bytes,
            "signatures": len(signatures),
        }
        output.record(row)


@command(app, "import", has_dry_run=True)
def import_(
    file: Annotated[Path, typer.Argument(help="A file that `fairlead artifact export` wrote.")],
    *,
    model: Annotated[str | None, typer.Option(help="Register it as a new version of this model, too.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="owner=, team=, cost_centre=: needed with a new name.")
    ] = None,
    description: Annotated[str, typer.Option(help="What this version is.")] = "",
) -> None:
    """Bring an exported artifact into a location, under the residency class that it was exported from."""
    from fairlead.cli.context import is_dry_run
    from fairlead.sync.store.archive import ArchiveStore

    with ArchiveStore(file) as archive:
        header = archive.header
    with connected() as (client, output):
        if is_dry_run():
            row: dict[str, Any] = {
                "artifact_digest": header.artifact,
                "kind": header.kind,
                "residency": header.residency,
                "size_bytes": file.stat().st_size,
            }
            output.record(row)
            return
        with output.progress(f"import {file.name}") as progress:
            upload = client.artifacts.import_archive(file, labels=dict(parse_pairs(label)), progress=progress)
        if model is None:
            output.record(asdict(upload), name="digest")
            return
        version = client.models.register(
            model,
            client.artifacts.download(upload.digest),
            labels=parse_pairs(label),
            residency=header.residency,
            description=description,
        )
        output.record(version, name="reference")


@command(verify_app, "verify")
def verify(
    target: Annotated[
        str,
        typer.Argument(help="Exported file, folder of files, or location (folder or URL).", metavar="TARGET"),
    ],
    *,
    digest: Annotated[
        str | None, typer.Option(help="What it should be: of a folder of files the artifact, else one of those held.")
    ] = None,
    trusted_key: TrustedKey = None,
) -> None:
    """Read everything back and compare it with its digests; no server is asked.

    Of an exported file, the signatures that came with it are shown; with --trusted-key, one of them must be that key's.
    """
    output = current_output()

    def progress_of(_: Digest) -> Callable[[int, int], None]:
        return progress

    with output.progress(f"verify {target}") as progress:
        rows = [_row(verdict) for verdict in _verdicts(target, digest, progress_of)]
    signed = _signatures_of(target, trusted_key or [])
    rows = [row | {"signatures": signed} for row in rows]
    if not rows:
        raise InvalidInput(
            f"There is no artifact in {target!r}.", hint="Name an exported file, a folder or a location."
        )
    output.table(
        rows,
        ["artifact_digest", "residency", "verdict", "files", "plain_bytes", "stored_bytes", "signatures", "detail"],
    )
    bad = [str(row["artifact_digest"]) for row in rows if row["verdict"] != "verified"]
    if bad:
        raise PartialFailure(
            f"{len(bad)} of {len(rows)} are not verified: {', '.join(bad[:3])}{' ...' if len(bad) > 3 else ''}.",
            hint="What a registry's location holds is mended by: fairlead scrub. Of a file, export or fetch it again.",
        )


def _signatures_of(target: str, trusted_keys: list[Path]) -> list[str]:
    """What an exported file's signatures say, each as `churn/3, sequence 2, by release`."""
    from fairlead.core.ids import parse_digest
    from fairlead.core.signatures import RecordedSignature, TrustedSigner, check_signature, read_statement
    from fairlead.sdk.signatures import read_public_keys
    from fairlead.sync.store.archive import ArchiveStore, is_archive

    if not (Path(target).is_file() and is_archive(Path(target))):
        if trusted_keys:
            raise InvalidInput(
                f"{target!r} is no exported file, and only those hold signatures.", hint="Leave --trusted-key out."
            )
        return []
    signers = [TrustedSigner(name=name, public_key=pem) for name, pem in read_public_keys(trusted_keys).items()]
    with ArchiveStore(Path(target)) as archive:
        artifact, envelopes = archive.header.artifact, archive.signatures()
    said: list[str] = []
    refused: list[NotSigned] = []
    counted = 0
    for envelope in envelopes:
        try:
            statement = read_statement(envelope)
            about = f"{statement.model}/{statement.version}, sequence {statement.sequence}"
            if not signers:
                said.append(f"{about}, not checked")
                continue
            found = check_signature(
                RecordedSignature(envelope=envelope),
                signers,
                model=statement.model,
                version=statement.version,
                digest=parse_digest(artifact),
            )
            counted += 1
            said.append(f"{about}, by {found.signer}")
        except NotSigned as error:
            refused.append(error)
            said.append(error.code)
    if signers and not counted:
        if refused:
            raise refused[0]
        raise NotSigned(f"{target!r} holds no signature.", hint="Sign the version, and export it again.")
    return said


def _verdicts(
    target: str, digest: str | None, progress_of: Callable[[Digest], Callable[[int, int], None]]
) -> list[ArtifactVerdict]:
    from fairlead.core.ids import parse_digest
    from fairlead.sync.store.archive import ArchiveStore, is_archive
    from fairlead.sync.store.keyring import open_key_providers
    from fairlead.sync.store.objects import open_store
    from fairlead.sync.store.offline import list_artifacts, verify_artifact, verify_files
    from fairlead.sync.store.record import open_with_own_keys

    wanted = None if digest is None else parse_digest(digest)
    path = Path(target)
    if path.is_file() and is_archive(path):
        with ArchiveStore(path) as archive:
            artifact = archive.header.artifact
            if wanted not in {None, artifact}:
                raise InvalidInput(f"{target!r} holds {artifact}.", hint="Leave --digest out, or name that.")
            return [verify_artifact(archive, archive.domain, artifact, progress_of(artifact))]
    if "://" not in target and not path.exists():
        raise InvalidInput(f"There is no file or folder {target!r}.")
    if "://" in target or path.is_dir():
        providers = open_key_providers(ClientSettings.read().key_file)
        store = open_with_own_keys(open_store(target if "://" in target else path.absolute().as_uri()), providers)
        held = [each for each in list_artifacts(store) if wanted in {None, each[1]}]
        if held or "://" in target:
            return [verify_artifact(store, domain, artifact, progress_of(artifact)) for domain, artifact in held]
    return [verify_files(path, wanted)]


def _row(verdict: ArtifactVerdict) -> dict[str, Any]:
    return {
        "artifact_digest": verdict.digest,
        "residency": None if verdict.domain is None else verdict.domain.residency,
        "verdict": verdict.verdict,
        "files": verdict.files,
        "plain_bytes": verdict.plain_bytes,
        "stored_bytes": verdict.stored_bytes,
        "detail": verdict.detail,
    }


def _digest_of(version: Any) -> str:
    if version.artifact_digest is None:
        raise InvalidInput(f"{version.reference} has no verified bytes yet.", hint="Wait until it is READY.")
    return version.artifact_digest
