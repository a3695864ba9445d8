"""Who a worker is in a container registry: by its own identity in the registry's cloud, or by keys of its environment.

    ecr                 AWS credentials  -> GetAuthorizationToken -> a password for twelve hours
    artifact-registry   Google's access token is the password
    acr                 Entra's access token -> the registry's own exchange -> a refresh token
    oci                 FAIRLEAD_CREDENTIALS_<NAME>_USERNAME and _PASSWORD, or _TOKEN

Identities are those of locations (`fairlead.sync.store.identity`), and nothing here is kept, logged or written down.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from fairlead.core.errors import InvalidInput, MissingExtra, PermissionDenied, Unavailable
from fairlead.sync.store.identity import CREDENTIALS_PREFIX, Protocol, options_of, token_source

if TYPE_CHECKING:
    from fairlead.core.outbound import OutboundRules

PROVIDERS = ("ecr", "artifact-registry", "acr", "oci")
IDENTITY_SCHEMES: Mapping[str, Protocol] = {"ecr": "s3", "artifact-registry": "gs", "acr": "abfs"}
"""Whose locations' identities each provider's are."""

_GOOGLE_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_ENTRA_SCOPE = "https://containerregistry.azure.net/.default"
_ECR_HOST = re.compile(r"\d{12}\.dkr\.ecr(?:-fips)?\.([a-z0-9-]+)\.amazonaws\..+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What a registry is shown: a user and password, a bearer token, or a refresh token that a token is asked with."""

    kind: Literal["none", "basic", "bearer", "refresh"] = "none"
    user: str | None = None
    secret: str = field(default="", repr=False)


ANONYMOUS = Login()


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How a worker gets into a registry. `make_repository` is for those where a push makes none."""

    login: Callable[[], Login]
    make_repository: Callable[[str], None] = lambda _name: None


def access_to(
    provider: str, origin: str, identity: Mapping[str, Any], environ: Mapping[str, str], rules: OutboundRules
) -> Access:
    """The access to the registry at `origin` that an identity gives. Nothing is asked for yet.

    Raises:
        InvalidInput: if the identity is not complete, or a variable that it names is not set.
    """
    if identity.get("kind") == "anonymous":
        return Access(login=lambda: ANONYMOUS)
    if identity.get("kind") == "static" and provider != "ecr":
        name = str(identity.get("credentials", ""))
        return Access(login=lambda: _static(name, environ))
    try:
        if provider == "ecr":
            return _amazon(origin, identity, environ)
        if provider == "artifact-registry":
            return Access(login=lambda: _google(identity, environ))
        if provider == "acr":
            return Access(login=lambda: _azure(origin, identity, environ, rules))
    except ImportError as error:
        raise MissingExtra(
            f"The library of {provider} is not installed here.", hint="Install it with: pip install 'fairlead[all]'"
        ) from error
    raise InvalidInput(
        "A registry of the provider oci has no identity of its own.",
        hint="Use --identity kind=static credentials=NAME, or kind=anonymous.",
    )


def check_identity(identity: Mapping[str, Any]) -> None:
    """Check the identity of a registry that belongs to no cloud.

    Raises:
        InvalidInput: if it is neither anonymous nor the name of credentials.
    """
    is_static = set(identity) == {"kind", "credentials"} and identity["kind"] == "static"
    if is_static and re.fullmatch(r"[a-z][a-z0-9-]{0,62}", str(identity["credentials"])):
        return
    if dict(identity) != {"kind": "anonymous"}:
        raise InvalidInput(
            "A registry of the provider oci is opened with credentials of each worker's environment, or without.",
            hint="Use --identity kind=static --identity credentials=NAME, or --identity kind=anonymous.",
        )


def _static(name: str, environ: Mapping[str, str]) -> Login:
    prefix = f"{CREDENTIALS_PREFIX}{name.upper().replace('-', '_')}_"
    user, password, token = (environ.get(prefix + each) for each in ("USERNAME", "PASSWORD", "TOKEN"))
    if user and password:
        return Login(kind="basic", user=user, secret=password)
    if token:
        return Login(kind="bearer", secret=token)
    raise PermissionDenied(
        f"This process has no credentials {name!r} for a container registry.",
        hint=f"Set {prefix}USERNAME and {prefix}PASSWORD, or {prefix}TOKEN, in its environment.",
    )


def _amazon(origin: str, identity: Mapping[str, Any], environ: Mapping[str, str]) -> Access:
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.session import Session

    found = _ECR_HOST.fullmatch(origin.partition("://")[2])
    region = found[1] if found is not None else environ.get("AWS_REGION", "us-east-1")

    def connect() -> Any:
        session: Any = Session()
        if identity.get("kind") == "static":
            options = options_of("s3", identity, environ)
            session.set_credentials(options.get("key"), options.get("secret"), options.get("token"))
        elif "role_arn" in identity:
            session.set_credentials(*_assume_role(session, region, identity, environ))
        return session.create_client("ecr", region_name=region)

    def login() -> Login:
        try:
            answer = connect().get_authorization_token()
        except (BotoCoreError, ClientError) as error:
            raise PermissionDenied(
                f"ECR in {region} gave no authorization ({type(error).__name__}).",
                hint="Check the identity of the container registry.",
            ) from None
        user, _, secret = base64.b64decode(answer["authorizationData"][0]["authorizationToken"]).decode().partition(":")
        return Login(kind="basic", user=user, secret=secret)

    def make_repository(name: str) -> None:
        ecr = connect()
        try:
            ecr.create_repository(repositoryName=name)
        except ecr.exceptions.RepositoryAlreadyExistsException:
            return
        except (BotoCoreError, ClientError) as error:
            raise PermissionDenied(
                f"ECR in {region} has no repository {name!r} and makes none ({type(error).__name__}).",
                hint="Make it, or let the worker's role create repositories.",
            ) from None

    return Access(login=login, make_repository=make_repository)


def _assume_role(
    session: Any, region: str, identity: Mapping[str, Any], environ: Mapping[str, str]
) -> tuple[str, str, str]:
    from botocore import UNSIGNED
    from botocore.config import Config

    members = {name: str(value) for name, value in identity.items() if name != "kind"}
    config: Any = Config(signature_version=UNSIGNED)
    sts = session.create_client(
        "sts",
        region_name=members.get("sts_region", region),
        endpoint_url=members.get("sts_endpoint"),
        config=config,
    )
    given = sts.assume_role_with_web_identity(
        RoleArn=members["role_arn"],
        RoleSessionName=members.get("session_name", "fairlead"),
        WebIdentityToken=token_source("s3", members, environ).read(),
    )["Credentials"]
    return given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"]


def _google(identity: Mapping[str, Any], environ: Mapping[str, str]) -> Login:
    import google.auth
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport.requests import Request

    given: Any = options_of("gs", identity, environ)["token"]
    library: Any = google.auth
    try:
        if given == "google_default":
            credentials: Any = library.default(scopes=[_GOOGLE_SCOPE])[0]
        else:
            credentials = given.with_scopes([_GOOGLE_SCOPE])
        credentials.refresh(Request())
    except GoogleAuthError as error:
        raise PermissionDenied(
            f"Google gave no token for the registry ({type(error).__name__}).",
            hint="Check the identity of the container registry.",
        ) from None
    return Login(kind="basic", user="oauth2accesstoken", secret=str(credentials.token))


def _azure(origin: str, identity: Mapping[str, Any], environ: Mapping[str, str], rules: OutboundRules) -> Login:
    from azure.core.exceptions import AzureError
    from azure.identity import ClientAssertionCredential, DefaultAzureCredential

    members = {name: str(value) for name, value in identity.items() if name != "kind"}
    if members:
        extra: dict[str, Any] = {}
        if "authority" in members:
            extra = {"authority": members["authority"], "disable_instance_discovery": True}
        source = token_source("abfs", members, environ)
        credential: Any = ClientAssertionCredential(members["tenant_id"], members["client_id"], source.read, **extra)
    else:
        credential = DefaultAzureCredential()
    try:
        token = str(credential.get_token(_ENTRA_SCOPE).token)
    except AzureError as error:
        raise PermissionDenied(
            f"Entra gave no token for the registry ({type(error).__name__}).",
            hint="Check the identity of the container registry.",
        ) from None
    return Login(kind="refresh", secret=exchange(origin, token, rules))


def exchange(origin: str, access_token: str, rules: OutboundRules) -> str:
    """The refresh token that an Azure registry gives for an access token of Entra's.

    Raises:
        PermissionDenied: if it gives none.
        Unavailable: if it does not answer.
    """
    import httpx2

    from fairlead.core.outbound_http import PinnedTransport
    from fairlead.serving.images.client import read_answer

    host = origin.partition("://")[2]
    form = {"grant_type": "access_token", "service": host, "access_token": access_token}
    transport = PinnedTransport(rules.resolve(origin), verify=httpx2.create_ssl_context())
    with httpx2.Client(base_url=origin, transport=transport, trust_env=False, follow_redirects=False) as client:
        try:
            with client.stream("POST", "/oauth2/exchange", data=form) as answer:
                response = read_answer(answer)
        except httpx2.RequestError as error:
            raise Unavailable(f"{host} does not answer: {type(error).__name__}.") from None
    try:
        return str(json.loads(response.content)["refresh_token"])
    except (ValueError, KeyError, TypeError):
        raise PermissionDenied(
            f"{host} takes no token of this worker's identity ({response.status_code}).",
            hint="Give the identity the role AcrPush at the registry.",
        ) from None
