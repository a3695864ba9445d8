"""Signed addresses: one verb on one object of a location, for some minutes, for somebody who holds no key of its cloud.

Whoever signs acts under the location's own identity, so nobody can be given more than that may do. Each cloud has a
form of its own: SigV4 query parameters (S3), V4 signatures by a service account (Google Cloud Storage), service SAS
(Azure). Writing is create-only: an address never overwrites what is there.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from importlib import import_module
from typing import Any, Literal, cast
from urllib.parse import quote, urlsplit

from fairlead.core.errors import FairleadError, InvalidInput, LocationUnavailable, PermissionDenied
from fairlead.sync.store.clouds import DENIED_NAMES, Bucket, open_bucket, parse_cloud_url
from fairlead.sync.store.keys import check_key

Verb = Literal["read", "write"]

SIGNED_MAX_SECONDS = 3600
"""The longest life of a signed address."""

_GOOGLE_HOST = "https://storage.googleapis.com"
_SIGN_SECONDS = 30
# Options of the store that wraps the cloud's file system.
_NOT_THE_CLOUDS = frozenset({"has_create_only", "rate_limit_bytes_per_second"})
# What a clock that goes wrong by some minutes must not break.
_CLOCK_SKEW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedRequest:
    """A request that anybody may send until `expires_at`; its headers are signed too, so they go with it."""

    key: str
    verb: Verb
    method: str
    url: str
    headers: Mapping[str, str]
    expires_at: datetime


def open_signer(url: str, options: Mapping[str, object] | None = None) -> Signer:
    """The signer of a location in a cloud, opened as `open_store` opens its store.

    Raises:
        InvalidInput: if the URL is of no cloud: nobody can be let into a folder by an address.
        MissingExtra: if the cloud's library is not installed.
    """
    scheme, address = parse_cloud_url(url)
    own = {name: value for name, value in (options or {}).items() if name not in _NOT_THE_CLOUDS}
    identity = cast("Mapping[str, object] | None", own.get("identity"))
    if scheme == "s3":
        # Its library still signs addresses in the old form by default, which newer regions refuse.
        given = cast("Mapping[str, object]", own.get("config_kwargs") or {})
        own["config_kwargs"] = {**given, "signature_version": "s3v4"}
    return Signer(address, open_bucket(scheme, own), identity)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """One address to be signed: `name` is that of the object in its bucket or container."""

    verb: Verb
    name: str
    headers: Mapping[str, str]
    now: datetime
    expires_at: datetime

    @property
    def method(self) -> str:
        return "GET" if self.verb == "read" else "PUT"

    @property
    def seconds(self) -> int:
        return int((self.expires_at - self.now).total_seconds())


class Signer:
    """Signs addresses of objects below a bucket and prefix.

    Raises, from every call:
        PermissionDenied: if the location's identity can sign nothing.
        LocationUnavailable: if a token service that has to be asked does not answer.
    """

    def __init__(self, address: str, bucket: Bucket, identity: Mapping[str, object] | None) -> None:
        self._container, _, self._prefix = address.partition("/")
        self._bucket = bucket
        self._identity = identity or {}
        self._delegation_key: tuple[datetime, Any] | None = None

    def sign(self, verb: Verb, keys: Sequence[str], *, now: datetime, life: timedelta) -> list[SignedRequest]:
        """Signed requests for `keys`, in their order, that end after `life` (at most an hour)."""
        if not timedelta(0) < life <= timedelta(seconds=SIGNED_MAX_SECONDS):
            raise InvalidInput(f"A signed address lives for at most {SIGNED_MAX_SECONDS} seconds.")
        names = [f"{self._prefix}/{check_key(key)}" if self._prefix else check_key(key) for key in keys]
        sign_one = {"s3": self._sign_amazon, "gs": self._sign_google, "abfs": self._sign_azure}[self._bucket.protocol]
        expires_at = (now + life).replace(microsecond=0)
        signed: list[SignedRequest] = []
        for key, name in zip(keys, names, strict=True):
            wanted = _Wanted(verb=verb, name=name, headers=self._headers(verb), now=now, expires_at=expires_at)
            try:
                url = sign_one(wanted)
            except FairleadError:
                raise
            except Exception as error:
                # Only the kind of an error is passed on: its text may hold credentials.
                kind = type(error).__name__
                cls = PermissionDenied if kind in DENIED_NAMES else LocationUnavailable
                raise cls(f"An address at {self._bucket.protocol}:// cannot be signed ({kind}).") from error
            signed.append(
                SignedRequest(
                    key=key, verb=verb, method=wanted.method, url=url, headers=wanted.headers, expires_at=expires_at
                )
            )
        return signed

    def _headers(self, verb: Verb) -> dict[str, str]:
        if verb == "read":
            return {}
        storage_class, encryption_key = self._bucket.storage_class, self._bucket.encryption_key
        headers: dict[str, str | None]
        if self._bucket.protocol == "s3":
            headers = {
                "if-none-match": "*",
                "x-amz-storage-class": storage_class,
                "x-amz-server-side-encryption": "aws:kms" if encryption_key else None,
                "x-amz-server-side-encryption-aws-kms-key-id": encryption_key,
            }
        elif self._bucket.protocol == "gs":
            headers = {
                "x-goog-if-generation-match": "0",
                "x-goog-storage-class": storage_class,
                "x-goog-encryption-kms-key-name": encryption_key,
            }
        else:
            headers = {
                "if-none-match": "*",
                "x-ms-blob-type": "BlockBlob",
                "x-ms-access-tier": storage_class,
                "x-ms-encryption-scope": encryption_key,
            }
        return {name: value for name, value in headers.items() if value is not None}

    def _sign_amazon(self, wanted: _Wanted) -> str:
        parameters: dict[str, str] = {}
        if wanted.verb == "write":
            parameters["IfNoneMatch"] = "*"
            if self._bucket.storage_class is not None:
                parameters["StorageClass"] = self._bucket.storage_class
            if self._bucket.encryption_key is not None:
                parameters |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self._bucket.encryption_key}
        method = "get_object" if wanted.verb == "read" else "put_object"
        path = f"{self._container}/{wanted.name}"
        return str(self._bucket.file_system.url(path, expires=wanted.seconds, client_method=method, **parameters))

    def _sign_google(self, wanted: _Wanted) -> str:
        """Google's V4 signing process, "Signatures" in the Cloud Storage documentation."""
        endpoint = str(getattr(self._bucket.file_system, "base", "")).partition("/storage/v1")[0] or _GOOGLE_HOST
        path = f"/{quote(self._container, safe='')}/{quote(wanted.name, safe='/~')}"
        credentials = getattr(self._bucket.file_system.credentials, "credentials", None)
        if credentials is None:
            return endpoint + path  # an open bucket asks for no signature
        email = self._google_account(credentials)
        stamp = wanted.now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{stamp[:8]}/auto/storage/goog4_request"
        signed_headers = {"host": urlsplit(endpoint).netloc, **wanted.headers}
        names = ";".join(sorted(signed_headers))
        query = {
            "X-Goog-Algorithm": "GOOG4-RSA-SHA256",
            "X-Goog-Credential": f"{email}/{scope}",
            "X-Goog-Date": stamp,
            "X-Goog-Expires": str(wanted.seconds),
            "X-Goog-SignedHeaders": names,
        }
        text = "&".join(f"{key}={quote(value, safe='~')}" for key, value in sorted(query.items()))
        lines = [f"{key}:{value}" for key, value in sorted(signed_headers.items())]
        canonical = "\n".join([wanted.method, path, text, *lines, "", names, "UNSIGNED-PAYLOAD"])
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        to_sign = f"GOOG4-RSA-SHA256\n{stamp}\n{scope}\n{digest}".encode()
        signature = self._sign_bytes(credentials, email, to_sign).hex()
        return f"{endpoint}{path}?{text}&X-Goog-Signature={signature}"

    def _google_account(self, credentials: Any) -> str:
        email = getattr(credentials, "signer_email", None) or self._identity.get("service_account")
        email = email or getattr(credentials, "service_account_email", None)
        if not email or email == "default":
            raise PermissionDenied(
                "This location's identity names no service account that could sign.",
                hint="Set service_account in its identity, and let it create tokens for itself.",
            )
        return str(email)

    def _sign_bytes(self, credentials: Any, email: str, payload: bytes) -> bytes:
        if callable(getattr(credentials, "sign_bytes", None)) and getattr(credentials, "signer_email", None):
            return cast("bytes", credentials.sign_bytes(payload))
        from google.auth.transport.requests import Request

        impersonation = str(self._identity.get("impersonation_url") or "")
        url = impersonation.replace(":generateAccessToken", ":signBlob") or (
            f"https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{quote(email, safe='@')}:signBlob"
        )
        request: Any = Request()
        if not credentials.valid:
            credentials.refresh(request)
        headers = {"content-type": "application/json"}
        credentials.apply(headers)
        body = json.dumps({"payload": b64encode(payload).decode()})
        answer = request(url, method="POST", headers=headers, body=body, timeout=_SIGN_SECONDS)
        if answer.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            raise PermissionDenied(
                f"The service account {email} may not sign.",
                hint="Give the location's identity the role Service Account Token Creator on it.",
            )
        if answer.status != HTTPStatus.OK:
            raise LocationUnavailable(f"Google signs no address ({answer.status}).")
        return b64decode(json.loads(answer.data)["signedBlob"])

    def _sign_azure(self, wanted: _Wanted) -> str:
        from azure.storage.blob import BlobSasPermissions, generate_blob_sas

        client = self._bucket.file_system.service_client
        key = getattr(client.credential, "account_key", None)
        secret: dict[str, Any] = (
            {"account_key": key} if key else {"user_delegation_key": self._azure_delegation(client, wanted)}
        )
        make: Any = generate_blob_sas
        token = make(
            client.account_name,
            self._container,
            wanted.name,
            # Creating does not let anybody overwrite.
            permission=BlobSasPermissions(read=wanted.verb == "read", create=wanted.verb == "write"),
            start=wanted.now - _CLOCK_SKEW,
            expiry=wanted.expires_at,
            **secret,
        )
        account = str(client.url).partition("?")[0].rstrip("/")
        return f"{account}/{quote(self._container)}/{quote(wanted.name, safe='/~')}?{token}"

    def _azure_delegation(self, client: Any, wanted: _Wanted) -> Any:
        if not hasattr(client.credential, "get_token"):
            raise PermissionDenied(
                "This location's keys cannot sign addresses.", hint="Give it a workload identity or an account key."
            )
        kept = self._delegation_key
        if kept is None or kept[0] < wanted.expires_at:
            sync: Any = import_module("fsspec.asyn").sync
            until = wanted.now + timedelta(seconds=2 * SIGNED_MAX_SECONDS)
            loop = self._bucket.file_system.loop
            kept = until, sync(loop, client.get_user_delegation_key, wanted.now - _CLOCK_SKEW, until)
            self._delegation_key = kept
        return kept[1]
