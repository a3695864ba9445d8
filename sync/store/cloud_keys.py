"""Key providers of the clouds: AWS KMS, Google Cloud KMS and Azure Key Vault.

Each brings the credentials that its cloud's libraries find by themselves (workload identity, or what the environment
says); none is ever handed one. Errors of a cloud are told by their kind, never by its text, which may hold addresses
and account numbers.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
import re
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from fairlead.core.canonical import canonical_json
from fairlead.core.data_keys import DATA_KEY_BYTES
from fairlead.core.errors import InvalidInput, KeyUnavailable, MissingExtra
from fairlead.sync.store.keyring import bound_context

if TYPE_CHECKING:
    import httpx2

Token = Callable[[], str]
"""Gives a bearer token for one request."""

_TIMEOUT_SECONDS = 30.0
_ATTEMPTS = 5
_FIRST_PAUSE_SECONDS = 0.25
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,60}")
_AWS_KEY = re.compile(r"arn:aws[a-z-]*:kms:([a-z0-9-]+):[0-9]*:key/[A-Za-z0-9-]+")
_GCP_KEY = re.compile(r"projects/[^/?#]+/locations/[^/?#]+/keyRings/[^/?#]+/cryptoKeys/[^/?#]+")
_AZURE_KEY = re.compile(r"https://[a-z0-9-]+\.(vault\.(?:azure\.net|azure\.cn|usgovcloudapi\.net))/keys/[A-Za-z0-9-]+")
_AZURE_VERSION = re.compile(r"[A-Za-z0-9]+")
_AZURE_API = "7.4"
_AZURE_ALGORITHM = "RSA-OAEP-256"


class AwsKms:
    """AWS KMS: `Encrypt` and `Decrypt` under a symmetric key, with the context as encryption context.

    `endpoint_url` is for stand-ins; without it botocore's own settings say where KMS is.
    """

    def __init__(self, *, endpoint_url: str | None = None) -> None:
        self._endpoint_url = endpoint_url
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()

    def wrap(self, data_key: bytes, *, provider_key: str, context: Mapping[str, str]) -> bytes:
        answer = self._call(provider_key, "encrypt", Plaintext=data_key, EncryptionContext=dict(context))
        return bytes(answer["CiphertextBlob"])

    def unwrap(self, wrapped: bytes, *, provider_key: str, context: Mapping[str, str]) -> bytes:
        answer = self._call(provider_key, "decrypt", CiphertextBlob=wrapped, EncryptionContext=dict(context))
        return bytes(answer["Plaintext"])

    def name_of(self, provider_key: str) -> str:
        if not _AWS_KEY.fullmatch(provider_key):
            raise InvalidInput(
                f"{provider_key[:120]!r} is not the ARN of a key of AWS KMS.",
                hint="Write it like arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab.",
            )
        return provider_key

    def _call(self, provider_key: str, operation: str, **arguments: Any) -> dict[str, Any]:
        try:
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError as error:
            raise _missing_extra("AWS KMS", "s3") from error
        region = cast("re.Match[str]", _AWS_KEY.fullmatch(self.name_of(provider_key)))[1]
        try:
            return cast("dict[str, Any]", getattr(self._client(region), operation)(KeyId=provider_key, **arguments))
        except ClientError as error:
            raise _refused("AWS KMS", provider_key, str(error.response.get("Error", {}).get("Code", ""))) from error
        except (BotoCoreError, ValueError) as error:
            raise _no_answer("AWS KMS", provider_key, error) from error

    def _client(self, region: str) -> Any:
        from botocore.config import Config
        from botocore.session import Session

        # Making one reads megabytes of service descriptions.
        with self._lock:
            if region not in self._clients:
                config = Config(
                    connect_timeout=_TIMEOUT_SECONDS,
                    read_timeout=_TIMEOUT_SECONDS,
                    retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"},
                )
                self._clients[region] = Session().create_client(
                    "kms", region_name=region, endpoint_url=self._endpoint_url, config=config
                )
            return self._clients[region]


class GcpKms:
    """Google Cloud KMS: `encrypt` and `decrypt` of a symmetric CryptoKey, with the context as authenticated data."""

    def __init__(self, *, endpoint_url: str = "https://cloudkms.googleapis.com", token: Token | None = None) -> None:
        self._endpoint_url = endpoint_url
        self._token = token or _google_token

    def wrap(self, data_key: bytes, *, provider_key: str, context: Mapping[str, str]) -> bytes:
        answer = self._call(provider_key, "encrypt", {"plaintext": _base64(data_key)}, context)
        return _decoded("Google Cloud KMS", answer, "ciphertext")

    def unwrap(self, wrapped: bytes, *, provider_key: str, context: Mapping[str, str]) -> bytes:
        answer = self._call(provider_key, "decrypt", {"ciphertext": _base64(wrapped)}, context)
        return _decoded("Google Cloud KMS", answer, "plaintext")

    def name_of(self, provider_key: str) -> str:
        if not _GCP_KEY.fullmatch(provider_key) or ".." in provider_key:
            raise InvalidInput(
                f"{provider_key[:120]!r} is not the name of a key of Google Cloud KMS.",
                hint="Write it like projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY.",
            )
        return provider_key

    def _call(
        self, provider_key: str, operation: str, body: dict[str, str], context: Mapping[str, str]
    ) -> dict[str, Any]:
        url = f"{self._endpoint_url}/v1/{self.name_of(provider_key)}:{operation}"
        authenticated = {"additionalAuthenticatedData": _base64(bound_context(context))}
        return _post("Google Cloud KMS", provider_key, url, body | authenticated, self._token())


class AzureKeyVault:
    """Azure Key Vault: `wrapKey` and `unwrapKey` under an RSA key (RSA-OAEP-256).

    That algorithm binds nothing to the key it wraps, so the sha256 of the context is wrapped with it. The answer names
    the version of the wrapping key, which is kept beside what it wrapped: unwrapping needs that one.
    """

    def __init__(self, *, token: Token | None = None, address_of: Callable[[str], str] | None = None) -> None:
        self._token = token
        # For stand-ins: where the vault of a key's name is really reached.
        self._address_of = address_of or str

    def wrap(self, data_key: bytes, *, provider_key: str, context: Mapping[str, str]) -> bytes:
        value = _base64_url(data_key + hashlib.sha256(bound_context(context)).digest())
        name = self.name_of(provider_key)
        answer = self._call(name, "wrapkey", value)
        version = str(answer.get("kid", "")).rpartition("/")[2]
        # Without its version what was wrapped is not to be unwrapped again.
        if not _AZURE_VERSION.fullmatch(version) or not _decoded("Azure Key Vault", answer, "value", is_url_safe=True):
            raise _no_sense("Azure Key Vault")
        return canonical_json({"value": str(answer["value"]), "version": version})

    def unwrap(self, wrapped: bytes, *, provider_key: str, context: Mapping[str, str]) -> bytes:
        try:
            kept = cast("dict[str, object]", json.loads(wrapped))
            version, value = str(kept["version"]), str(kept["value"])
        except (ValueError, KeyError, TypeError):
            raise _not_ours("Azure Key Vault", provider_key) from None
        if not _AZURE_VERSION.fullmatch(version):
            raise _not_ours("Azure Key Vault", provider_key)
        answer = self._call(f"{self.name_of(provider_key)}/{version}", "unwrapkey", value)
        opened = _decoded("Azure Key Vault", answer, "value", is_url_safe=True)
        data_key, bound = opened[:DATA_KEY_BYTES], opened[DATA_KEY_BYTES:]
        if not hmac.compare_digest(bound, hashlib.sha256(bound_context(context)).digest()):
            raise _not_ours("Azure Key Vault", provider_key)
        return data_key

    def name_of(self, provider_key: str) -> str:
        # Tokens go to this address, so it is one of Azure's and no other.
        if not _AZURE_KEY.fullmatch(provider_key):
            raise InvalidInput(
                f"{provider_key[:120]!r} is not the name of a key of Azure Key Vault.",
                hint="Write it like https://VAULT.vault.azure.net/keys/KEY, without a version.",
            )
        return provider_key

    def _call(self, key: str, operation: str, value: str) -> dict[str, Any]:
        url = f"{self._address_of(key)}/{operation}?api-version={_AZURE_API}"
        body = {"alg": _AZURE_ALGORITHM, "value": value}
        return _post("Azure Key Vault", key, url, body, self._token() if self._token else _azure_token(key))


# Token services limit how often they are asked, and both libraries keep a token for as long as it is good.
_ASKING = threading.Lock()


@functools.cache
def _google_credentials() -> Any:
    import google.auth

    return cast("Any", google.auth).default(scopes=["https://www.googleapis.com/auth/cloudkms"])[0]


@functools.cache
def _azure_credential() -> Any:
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential()


def _google_token() -> str:
    try:
        from google.auth.exceptions import GoogleAuthError
        from google.auth.transport.requests import Request
    except ImportError as error:
        raise _missing_extra("Google Cloud KMS", "gcs") from error
    try:
        with _ASKING:
            credentials = _google_credentials()
            if not credentials.valid:
                credentials.refresh(Request())
    except GoogleAuthError as error:
        raise KeyUnavailable(
            f"There are no credentials for Google Cloud KMS ({type(error).__name__}).",
            hint="Give this process a workload identity, or set GOOGLE_APPLICATION_CREDENTIALS.",
        ) from error
    return str(credentials.token)


def _azure_token(key: str) -> str:
    try:
        from azure.core.exceptions import AzureError
    except ImportError as error:
        raise _missing_extra("Azure Key Vault", "azure") from error
    try:
        with _ASKING:
            return str(_azure_credential().get_token(azure_scope(key)).token)
    except AzureError as error:
        raise KeyUnavailable(
            f"There are no credentials for Azure Key Vault ({type(error).__name__}).",
            hint="Give this process a workload identity, or sign in with: az login",
        ) from error


def azure_scope(key: str) -> str:
    """What a token for a vault is asked for: each of Microsoft's clouds has a name of its own."""
    found = _AZURE_KEY.match(key)
    return f"https://{found[1] if found else 'vault.azure.net'}/.default"


def _post(what: str, provider_key: str, url: str, body: Mapping[str, str], token: str) -> dict[str, Any]:
    import httpx2
    import stamina

    def is_passing(error: Exception) -> bool:
        if isinstance(error, httpx2.HTTPStatusError):
            return error.response.status_code == 429 or error.response.status_code >= 500
        return isinstance(error, httpx2.TransportError)

    tries = stamina.retry_context(
        on=is_passing, attempts=_ATTEMPTS, wait_initial=_FIRST_PAUSE_SECONDS, wait_jitter=0.25, timeout=None
    )
    try:
        for attempt in tries:
            with attempt:
                # No redirect is followed: the token is for this host alone.
                answer = httpx2.post(
                    url, json=dict(body), headers={"authorization": f"Bearer {token}"}, timeout=_TIMEOUT_SECONDS
                )
                answer.raise_for_status()
                return cast("dict[str, Any]", answer.json())
    except httpx2.HTTPStatusError as error:
        raise _refused(what, provider_key, _code_of(error.response)) from error
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        raise _no_answer(what, provider_key, error) from error
    raise AssertionError("unreachable")


def _decoded(what: str, answer: Mapping[str, Any], member: str, *, is_url_safe: bool = False) -> bytes:
    text = str(answer.get(member, ""))
    try:
        if is_url_safe:
            found = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        else:
            found = base64.b64decode(text, validate=True)
    except ValueError:
        raise _no_sense(what) from None
    if not found:
        raise _no_sense(what)
    return found


def _code_of(answer: httpx2.Response) -> str:
    """The status, and the kind of error that both services name in the same place; never their text."""
    try:
        error = cast("dict[str, Any]", answer.json()["error"])
        inner = cast("dict[str, Any]", error.get("innererror") or {})
        kinds = (inner.get("code"), error.get("status"), error.get("code"))
        kind = next((str(each) for each in kinds if each and _CODE.fullmatch(str(each))), "")
    except (ValueError, KeyError, TypeError, AttributeError):
        kind = ""
    return f"{answer.status_code} {kind}".strip()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _base64_url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _missing_extra(what: str, extra: str) -> MissingExtra:
    return MissingExtra(f"{what} needs the extra `{extra}`.", hint=f"Run: pip install 'fairlead[{extra}]'")


def _refused(what: str, provider_key: str, code: str) -> KeyUnavailable:
    return KeyUnavailable(
        f"{what} does not let this process use {provider_key!r} so ({code}).",
        hint="Check that its identity may encrypt and decrypt with the key, and that the key is enabled.",
        provider_key=provider_key,
    )


def _no_sense(what: str) -> KeyUnavailable:
    return KeyUnavailable(f"What {what} answered is not what it should answer.", hint="Try again.")


def _no_answer(what: str, provider_key: str, error: Exception) -> KeyUnavailable:
    return KeyUnavailable(
        f"{what} does not answer for {provider_key!r} ({type(error).__name__}).",
        hint="Check this process's credentials and network, and try again.",
        provider_key=provider_key,
    )


def _not_ours(what: str, provider_key: str) -> KeyUnavailable:
    return KeyUnavailable(
        f"{what} unwrapped something else than this encryption key with {provider_key!r}.",
        hint="Restore the record from a copy: fairlead restore.",
        provider_key=provider_key,
    )
