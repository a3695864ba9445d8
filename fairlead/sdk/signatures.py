"""Signatures: made here, where the private key is, and checked here before a version is used.

What counts is either what the workspace trusts (its signers, as the server or a copy of the record says), or public
keys that this machine has: those no server can exchange.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import quote

from fairlead.core.errors import InvalidInput, JsonValue, NotSigned, ServerUnavailable, SignatureReplayed
from fairlead.core.ids import new_row_id, parse_model_reference, parse_name
from fairlead.core.signatures import (
    CountedSignature,
    RecordedSignature,
    SignaturePolicy,
    Statement,
    TrustedSigner,
    count_signatures,
    parse_public_key,
    require_signatures,
    sign,
)
from fairlead.sdk.identity_tokens import require_safe
from fairlead.sdk.records import JsonObject, ModelVersion, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from fairlead.core.signatures import PrivateKey
    from fairlead.sdk.record_copies import RecordCopies
    from fairlead.sdk.transport import Transport

_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer(Record):
    """Whose signatures count: a public key (PEM), or an identity that an issuer and a sigstore instance vouch for."""

    name: str
    public_key: str | None = None
    key_id: str | None = None
    identity: str | None = None
    issuer: str | None = None
    trusted_root: JsonObject | None = None
    models: tuple[str, ...] = ()
    not_before: datetime | None = None
    not_after: datetime | None = None
    revoked_at: datetime | None = None
    revision: int = 0
    updated_by: str = ""
    updated_at: datetime | None = None

    def trusted(self) -> TrustedSigner:
        """The signer, as signatures are checked against it."""
        return TrustedSigner(
            name=self.name,
            public_key=self.public_key,
            identity=self.identity,
            issuer=self.issuer,
            trusted_root=self.trusted_root,
            models=self.models,
            not_before=self.not_before,
            not_after=self.not_after,
            revoked_at=self.revoked_at,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature(Record):
    """A signature of a version; `refusal` says why it does not count by the server's word, None where it does."""

    id: str = ""
    reference: str = ""
    sequence: int = 0
    artifact_digest: str = ""
    signer: str = ""
    envelope: JsonObject
    refusal: str | None = None
    created_by: str = ""
    created_at: datetime | None = None

    def recorded(self) -> RecordedSignature:
        """The signature, as it is checked."""
        return RecordedSignature(envelope=self.envelope, recorded_at=self.created_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What must have signed a version before it is used.

    `count` different signers, of those whose names match `signers` (none: all). With `public_keys` (PEM) only those
    count, whatever the workspace says; each is a signer by the name that it has there.
    """

    count: int = 1
    signers: tuple[str, ...] = ()
    public_keys: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InvalidInput("At least one signature has to be asked for.", hint="Leave verify out to ask for none.")

    def local_signers(self) -> tuple[TrustedSigner, ...] | None:
        """The signers that this machine knows by itself, if it is to ask nobody."""
        if self.public_keys is None:
            return None
        return tuple(
            TrustedSigner(name=name, public_key=parse_public_key(pem)[0]) for name, pem in self.public_keys.items()
        )


Verify = Literal["signed"] | Verification
"""What `load` and `download` ask of signatures; `signed` is one signature of any signer that the workspace trusts."""


class Signers:
    """Whose signatures count."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Iterator[Signer]:
        """All signers by name, revoked ones among them."""
        return map(Signer.from_json, self._transport.items("/api/v1/signers"))

    def get(self, name: str) -> Signer:
        """One signer.

        Raises:
            SignerNotFound: if there is none of that name.
        """
        return Signer.from_json(self._transport.get(_signer_path(name)))

    def add(self, name: str, spec: Mapping[str, JsonValue], *, revision: int | None = None) -> Signer:
        """Trust a signer, or change for which models and how long: public_key, or identity, issuer and trusted_root.

        Raises:
            InvalidInput: if a part is not valid.
            Conflict: if the name has another key, or is revoked.
            StaleRevision: if a revision is given and the signer is not at it (0: not there yet).
        """
        return Signer.from_json(self._transport.request("PUT", _signer_path(name), body=dict(spec), if_match=revision))

    def revoke(self, name: str, *, reason: str = "", revision: int | None = None) -> Signer:
        """Let nothing count that a signer ever signed.

        Raises:
            SignerNotFound: if there is none of that name.
        """
        return Signer.from_json(
            self._transport.post(f"{_signer_path(name)}/revoke", {"reason": reason}, if_match=revision)
        )


class Signatures:
    """Signs versions, and checks who did."""

    def __init__(self, transport: Transport, record: RecordCopies, *, home: Path, server: str | None) -> None:
        self._transport = transport
        self._record = record
        place = hashlib.sha256((server or "embedded").encode()).hexdigest()[:16]
        self._seen_file = home / "signatures" / f"{place}.json"

    def sign(self, reference: str, private_key: PrivateKey, *, digest: str | None = None) -> Signature:
        """Sign a version. `digest` is what it must be, where the signer has the files to tell it from.

        Raises:
            NotReady: if its bytes are not verified.
            SignatureReplayed: if the version is of another digest.
            SignerNotTrusted: if the workspace does not trust the key for this model.
        """
        return self._sign(reference, lambda statement: sign(statement, private_key), digest)

    def sign_as_identity(
        self, reference: str, token: str, trust_config: str, *, digest: str | None = None
    ) -> Signature:
        """Sign a version as whoever an OIDC token is for; `trust_config` says by which sigstore instance (JSON).

        A dry run signs nothing, since the instance's log would keep it; so whether it would count is not said.

        Raises:
            MissingExtra: without `fairlead[sigstore]`.
            InvalidInput: if the token or the configuration is none, the way to the instance is open to others, or it
                refuses the token.
            Unavailable: if the instance does not sign.
            SignatureReplayed, SignerNotTrusted: as `sign`.
        """
        from fairlead.core.keyless import authorities_of, check_means, sign_as_identity

        for url in authorities_of(trust_config):
            require_safe(url, hint="Use an instance that speaks TLS.")
        if self._transport.is_dry_run:
            check_means(token, trust_config)
            version = self._ask(reference)
            statement = self._statement(version, digest)
            return Signature(
                reference=version.reference,
                sequence=statement.sequence,
                artifact_digest=statement.digest,
                envelope={},
            )
        return self._sign(reference, lambda statement: sign_as_identity(statement, token, trust_config), digest)

    def list(self, reference: str) -> Iterator[Signature]:
        """A version's signatures, oldest first."""
        return iter(self.of(self._ask(reference)))

    def of(self, version: ModelVersion) -> tuple[Signature, ...]:
        """A version's signatures, oldest first; while the server is away, as its copies have them."""
        try:
            return self._by_server(version)
        except ServerUnavailable as away:
            rows, _ = self._record.signatures(version.name, version.version, away)
            return tuple(Signature.from_json(dict(row)) for row in rows)

    def check(self, reference: str, version: ModelVersion, verify: Verify) -> tuple[CountedSignature, ...]:
        """Who signed a version, if they are whom `verify` asks for. While the server is away, its copies are asked.

        Raises:
            NotSigned: if there are too few signatures that count, or one that only seems to.
            SignatureReplayed: if the version is not the one that was asked for, or a signer's newest signature of it
                is older than one that was seen here before.
        """
        wanted = Verification() if verify == "signed" else verify
        asked = parse_model_reference(reference)
        if asked.name != version.name or asked.version not in {None, version.version}:
            raise SignatureReplayed(f"{reference} was answered with {version.reference}.", reference=version.reference)
        if version.artifact_digest is None:
            raise NotSigned(f"{version.reference} has no files yet.", hint="Wait until it is READY.")
        try:
            signatures = self._by_server(version)
            of_workspace = [] if wanted.public_keys is not None else [*Signers(self._transport).list()]
        except ServerUnavailable as away:
            rows, signer_rows = self._record.signatures(version.name, version.version, away)
            signatures = tuple(Signature.from_json(dict(row)) for row in rows)
            of_workspace = [Signer.from_json(dict(row)) for row in signer_rows]
        local = wanted.local_signers()
        counted, refused = count_signatures(
            # What a machine's own keys signed needs nobody's word for when.
            [each.recorded() if local is None else RecordedSignature(envelope=each.envelope) for each in signatures],
            [each.trusted() for each in of_workspace] if local is None else local,
            model=version.name,
            version=version.version,
            digest=version.artifact_digest,
        )
        # A machine's own keys have names of their own.
        place = version.reference if local is None else f"own {version.reference}"
        found = require_signatures(
            SignaturePolicy(count=wanted.count, signers=wanted.signers),
            counted,
            refused,
            reference=version.reference,
            seen=self._seen().get(place),
        )
        self._remember(place, {each.signer: each.sequence for each in found})
        return found

    def _sign(self, reference: str, make: Callable[[Statement], dict[str, Any]], digest: str | None) -> Signature:
        version = self._ask(reference)
        for tried in range(1, _TRIES + 1):
            statement = self._statement(version, digest)
            try:
                answer = self._transport.post(f"{_version_path(version)}/signatures", {"envelope": make(statement)})
                return Signature.from_json(answer)
            except SignatureReplayed as replayed:
                # Someone else's signature came first and took the sequence.
                if tried == _TRIES or replayed.attributes.get("sequence") is None:
                    raise
        raise AssertionError

    def _statement(self, version: ModelVersion, digest: str | None) -> Statement:
        """What is to be signed next about a version."""
        asked = self._transport.get(f"{_version_path(version)}/statement")
        statement = Statement(
            model=version.name,
            version=version.version,
            digest=cast("str", asked["digest"]),
            sequence=cast("int", asked["sequence"]),
        )
        # Nothing is signed on a server's word alone that the signer knows better.
        if statement.digest != (digest or version.artifact_digest or statement.digest):
            raise SignatureReplayed(
                f"{version.reference} is {statement.digest}, not {digest or version.artifact_digest}.",
                hint="Sign the version that these files were registered as.",
            )
        return statement

    def _by_server(self, version: ModelVersion) -> tuple[Signature, ...]:
        return tuple(map(Signature.from_json, self._transport.items(f"{_version_path(version)}/signatures")))

    def _ask(self, reference: str) -> ModelVersion:
        parsed = parse_model_reference(reference)
        return ModelVersion.from_json(self._transport.get("/api/v1/resolve", reference=str(parsed)))

    def _seen(self) -> dict[str, dict[str, int]]:
        """The highest sequence seen, by version and signer."""
        try:
            members: object = json.loads(self._seen_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        rows = cast("dict[str, object]", members) if isinstance(members, dict) else {}
        return {place: cast("dict[str, int]", row) for place, row in rows.items() if isinstance(row, dict)}

    def _remember(self, place: str, sequences: dict[str, int]) -> None:
        seen = self._seen()
        known = seen.get(place, {})
        if known | sequences == known:
            return
        # A machine that cannot write its home checks no less; it only remembers nothing.
        with contextlib.suppress(OSError):
            self._seen_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft = self._seen_file.with_name(f"{self._seen_file.name}.{new_row_id()}")
            draft.write_text(json.dumps(seen | {place: known | sequences}), encoding="utf-8")
            draft.replace(self._seen_file)


def read_public_keys(files: Sequence[Path]) -> dict[str, str]:
    """Public keys by the names of their files.

    Raises:
        InvalidInput: if one cannot be read, or two files have one name.
    """
    keys: dict[str, str] = {}
    for file in files:
        try:
            keys[file.stem] = parse_public_key(file.read_text(encoding="utf-8"))[0]
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"{str(file)!r} cannot be read: {error}.", hint="Name a PEM file.") from None
    if len(keys) != len(files):
        raise InvalidInput("Two of the public keys' files have one name.", hint="Rename one.")
    return keys


def write_key_pair(file: Path, private: bytes, public: bytes) -> Path:
    """Write a private key for its owner alone, and its public key beside it (`.pub`); the public key's file.

    Raises:
        InvalidInput: if there is something at one of the two, or nothing can be written there.
    """
    beside = file.with_name(f"{file.name}.pub")
    try:
        for place, content, mode in ((file, private, 0o600), (beside, public, 0o644)):
            with os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as opened:
                opened.write(content)
    except OSError as error:
        raise InvalidInput(
            f"{error.filename!r} cannot be written: {error.strerror}.", hint="Name a file that does not exist."
        ) from None
    return beside


def _signer_path(name: str) -> str:
    return f"/api/v1/signers/{quote(parse_name(name, what='signer'), safe='')}"


def _version_path(version: ModelVersion) -> str:
    return f"/api/v1/models/{quote(version.name, safe='')}/versions/{version.version}"
