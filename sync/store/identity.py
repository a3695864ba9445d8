"""Whose hand a store is opened with: a workload's own identity, keys from the environment, or nobody's.

Without an identity each cloud's library looks for credentials in its usual places. With one, a process proves who it is
with a short-lived *token* that its platform gives it (a file that Kubernetes renews, or the metadata service of its
machine) and each cloud's token service exchanges that for access: so a worker in one cloud reads another's bucket, and
no key is kept anywhere. Several identities work side by side in one process, one a store.

    {"kind": "workload"}                                      the cloud library's own way
    {"kind": "workload", "role_arn": ..., "token_from": ...}  a token exchanged for a role (S3)
    {"kind": "workload", "audience": ..., "service_account": ...}                           (Google Cloud Storage)
    {"kind": "workload", "tenant_id": ..., "client_id": ...}                                (Azure)
    {"kind": "static", "credentials": "partner"}              FAIRLEAD_CREDENTIALS_PARTNER_... of this process
    {"kind": "anonymous"}                                     an open bucket
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from fairlead.core.errors import InvalidInput, PermissionDenied

if TYPE_CHECKING:
    from collections.abc import Callable

Protocol = Literal["s3", "gs", "abfs"]

CREDENTIALS_PREFIX = "FAIRLEAD_CREDENTIALS_"
_METADATA_SECONDS = 10
_TOKEN_FILES: Mapping[Protocol, str] = {
    "s3": "AWS_WEB_IDENTITY_TOKEN_FILE",
    "gs": "AWS_WEB_IDENTITY_TOKEN_FILE",
    "abfs": "AZURE_FEDERATED_TOKEN_FILE",
}
# What a static identity's variables end in, and the option of the file system that each one is.
_STATIC: Mapping[Protocol, Mapping[str, str]] = {
    "s3": {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret", "SESSION_TOKEN": "token"},
    "gs": {"SERVICE_ACCOUNT_FILE": "token"},
    "abfs": {"CONNECTION_STRING": "connection_string", "ACCOUNT_KEY": "account_key", "SAS_TOKEN": "sas_token"},
}
_GOOGLE_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"


def options_of(protocol: Protocol, identity: Mapping[str, object], environ: Mapping[str, str]) -> dict[str, object]:
    """The options that make a file system of fsspec act under an identity.

    Nothing is exchanged yet: that happens at the first call, and again whenever what was given runs out.

    Raises:
        InvalidInput: if the identity is not complete, or a variable that it names is not set.
    """
    kind = identity.get("kind")
    if kind == "anonymous":
        return {"token": "anon"} if protocol == "gs" else {"anon": True}
    if kind == "static":
        return _static(protocol, str(identity.get("credentials", "")), environ)
    if kind != "workload":
        raise InvalidInput("An identity is of kind workload, static or anonymous.")
    members = {name: str(value) for name, value in identity.items() if name != "kind"}
    if not members:
        # Each library's own chain: variables of its platform, or the metadata service of its machine.
        return {"token": "google_default"} if protocol == "gs" else {"anon": False} if protocol == "abfs" else {}
    build = {"s3": _amazon, "gs": _google, "abfs": _azure}[protocol]
    return build(members, token_source(protocol, members, environ))


@dataclass(frozen=True, slots=True)
class TokenSource:
    """Where this process's token comes from; `read` gives the present one, since platforms renew it."""

    origin: str
    path: Path | None
    read: Callable[[], str]


def token_source(protocol: Protocol, members: Mapping[str, str], environ: Mapping[str, str]) -> TokenSource:
    """The source that an identity names: a file, or the metadata service of a machine of Google's or Microsoft's.

    Raises:
        InvalidInput: if the file is named by a variable that is not set, or a metadata service lacks its audience.
    """
    origin = members.get("token_from", "file")
    if origin == "file":
        variable = members.get("token_file_env", _TOKEN_FILES[protocol])
        named = environ.get(variable)
        if not named:
            raise InvalidInput(
                f"There is no token to prove this process's identity with: {variable} is not set.",
                hint="Set it to the file of the token, or say token_from in the location's identity.",
            )
        path = Path(named)
        return TokenSource(origin, path, lambda: _read_token(path))
    audience = members.get("token_audience")
    if not audience:
        raise InvalidInput(f"An identity whose token is from {origin} needs a token_audience.")
    if origin == "gcp-metadata":
        host = members.get("metadata_host", environ.get("GCE_METADATA_HOST", "metadata.google.internal"))
        url = (
            f"http://{host}/computeMetadata/v1/instance/service-accounts/default/identity"
            f"?audience={quote(audience, safe='')}&format=full"
        )
        return TokenSource(origin, None, lambda: _ask_metadata(url, {"Metadata-Flavor": "Google"}))
    if origin == "azure-metadata":
        host = members.get("metadata_host", "169.254.169.254")
        url = f"http://{host}/metadata/identity/oauth2/token?api-version=2018-02-01&resource={quote(audience, safe='')}"
        return TokenSource(origin, None, lambda: _token_member(_ask_metadata(url, {"Metadata": "true"})))
    raise InvalidInput(f"{origin[:40]!r} is no source of tokens.", hint="Use file, gcp-metadata or azure-metadata.")


def _static(protocol: Protocol, name: str, environ: Mapping[str, str]) -> dict[str, object]:
    prefix = f"{CREDENTIALS_PREFIX}{name.upper().replace('-', '_')}_"
    known = _STATIC[protocol]
    found: dict[str, object] = {
        option: environ[prefix + suffix] for suffix, option in known.items() if prefix + suffix in environ
    }
    if not found:
        raise InvalidInput(
            f"This process has no credentials {name!r} for {protocol}://.",
            hint=f"Set {' and '.join(prefix + suffix for suffix in list(known)[:2])} in its environment.",
        )
    return found


def _amazon(members: Mapping[str, str], source: TokenSource) -> dict[str, object]:
    """A session of its own, whose credentials come from AssumeRoleWithWebIdentity."""
    from aiobotocore.credentials import (
        AioAssumeRoleWithWebIdentityCredentialFetcher,
        AioCredentialResolver,
        AioDeferredRefreshableCredentials,
    )
    from aiobotocore.session import AioSession
    from botocore.credentials import CredentialProvider

    session: Any = AioSession()
    region = members.get("sts_region") or session.get_config_variable("region") or "us-east-1"

    def make_client(service: str, **settings: Any) -> Any:
        return session.create_client(service, region_name=region, endpoint_url=members.get("sts_endpoint"), **settings)

    fetcher: Any = AioAssumeRoleWithWebIdentityCredentialFetcher(
        client_creator=make_client,
        web_identity_token_loader=source.read,
        role_arn=_required(members, "role_arn"),
        extra_args={"RoleSessionName": members.get("session_name", "fairlead")},
    )

    base: Any = CredentialProvider

    class WebIdentity(base):
        METHOD = "assume-role-with-web-identity"
        CANONICAL_NAME = "FairleadWebIdentity"

        async def load(self) -> Any:
            return AioDeferredRefreshableCredentials(method=self.METHOD, refresh_using=fetcher.fetch_credentials)

    resolver: Any = AioCredentialResolver(providers=[WebIdentity()])
    session.register_component("credential_provider", resolver)
    return {"session": session}


def _google(members: Mapping[str, str], source: TokenSource) -> dict[str, object]:
    """An external account: the token is exchanged at Google's token service, perhaps for a service account's."""
    from google.auth import identity_pool

    class Supplier(identity_pool.SubjectTokenSupplier):
        def get_subject_token(self, context: Any, request: Any) -> str:  # noqa: ARG002  (the library's names)
            return source.read()

    service_account = members.get("service_account")
    impersonation_url = members.get("impersonation_url")
    if service_account and not impersonation_url:
        impersonation_url = (
            f"https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{service_account}:generateAccessToken"
        )
    build: Any = identity_pool.Credentials
    credentials = build(
        audience=_required(members, "audience"),
        subject_token_type=members.get("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        token_url=members.get("token_url", "https://sts.googleapis.com/v1/token"),
        subject_token_supplier=Supplier(),
        service_account_impersonation_url=impersonation_url,
        scopes=[_GOOGLE_SCOPE],
    )
    return {"token": credentials}


def _azure(members: Mapping[str, str], source: TokenSource) -> dict[str, object]:
    """A federated application: the token is the assertion with which it asks Entra for access."""
    from azure.identity.aio import ClientAssertionCredential, WorkloadIdentityCredential

    extra: dict[str, Any] = {}
    if "authority" in members:
        # Other authorities than Microsoft's are not known to its directory of authorities.
        extra = {"authority": members["authority"], "disable_instance_discovery": True}
    tenant_id, client_id = _required(members, "tenant_id"), _required(members, "client_id")
    if source.path is not None:
        credential: object = WorkloadIdentityCredential(
            tenant_id=tenant_id, client_id=client_id, token_file_path=str(source.path), **extra
        )
    else:
        credential = ClientAssertionCredential(tenant_id, client_id, source.read, **extra)
    return {"credential": credential}


def _required(members: Mapping[str, str], name: str) -> str:
    if not members.get(name):
        raise InvalidInput(f"The identity names no {name}.", hint="See docs/how-to/workload-identity.md.")
    return members[name]


def _read_token(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except OSError as error:
        raise PermissionDenied(
            f"The token that proves this process's identity cannot be read ({error.strerror or type(error).__name__}).",
            hint="Check that the platform mounts it for this process.",
        ) from error


def _ask_metadata(url: str, headers: Mapping[str, str]) -> str:
    try:
        with urlopen(Request(url, headers=dict(headers)), timeout=_METADATA_SECONDS) as answer:  # noqa: S310  (http, by construction)
            return cast("bytes", answer.read(2**20)).decode().strip()
    except (URLError, OSError, UnicodeDecodeError) as error:
        raise PermissionDenied(
            f"The metadata service of this machine gave no token ({type(error).__name__}).",
            hint="Run where there is one, with an identity assigned to the machine.",
        ) from error


def _token_member(text: str) -> str:
    try:
        return str(json.loads(text)["access_token"])
    except (ValueError, KeyError, TypeError) as error:
        raise PermissionDenied("The metadata service of this machine answered without a token.") from error
