"""A client of the OCI distribution protocol: one connection to one registry.

Every answer is checked: a manifest or blob that is not what its digest says is an error. What may be repeated is
repeated after a lost connection, with a back-off; an upload goes on from the byte that the registry has. Requests with
credentials go to the registry's own host and to the token service that the operator lets it name; redirects to a blob
elsewhere are followed without credentials, by https, to public addresses alone.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

import httpx2

from fairlead.core.errors import IntegrityError, InvalidInput, NotFound, PermissionDenied, Unavailable
from fairlead.core.ids import Digest, sha256_digest
from fairlead.core.outbound_http import PinnedTransport

if TYPE_CHECKING:
    from fairlead.core.outbound import OutboundRules
    from fairlead.serving.images.credentials import Login

CHUNK_BYTES = 16 * 2**20
MANIFEST_MAX_BYTES = 4 * 2**20
_ATTEMPTS = 6
_TIMEOUT = httpx2.Timeout(60.0, connect=10.0)
_REDIRECTS_MAX = 5
_CHALLENGE = re.compile(r'([a-zA-Z_]+)="([^"]*)"')
_RANGE = re.compile(r"(?:bytes=)?0-(\d+)")
_MANIFEST_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)

Advance = Callable[[int], None]
"""Told how many more bytes were moved."""


class Blob(Protocol):
    """Bytes with a name, that can be read from anywhere."""

    @property
    def digest(self) -> Digest: ...

    @property
    def size(self) -> int: ...

    def read(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` up to `end`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BytesBlob:
    """A small blob in memory."""

    content: bytes

    @property
    def digest(self) -> Digest:
        """The sha256 of the content."""
        return sha256_digest(self.content)

    @property
    def size(self) -> int:
        """The number of bytes."""
        return len(self.content)

    def read(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        yield self.content[start:end]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteBlob:
    """A blob of another registry, read from there while it is sent."""

    client: RegistryClient
    repository: str
    digest: Digest
    size: int

    def read(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        return self.client.read_blob(self.repository, self.digest, self.size, start=start, end=end)


@dataclass(slots=True, kw_only=True)
class RegistryClient:
    """A connection to the registry at `origin` (scheme, host and port). Not for several threads at once.

    `login` gives the credentials anew each time that they are asked for. `rules` say where they may go, `open_rules`
    where blobs may be fetched from without. `chunk_bytes` None sends each blob in one request, for registries that take
    no chunks.
    """

    origin: str
    rules: OutboundRules
    open_rules: OutboundRules
    login: Callable[[], Login]
    chunk_bytes: int | None = CHUNK_BYTES
    sleep: Callable[[float], None] = time.sleep
    sent_bytes: int = 0
    _clients: dict[tuple[str, OutboundRules], httpx2.Client] = field(
        default_factory=dict["tuple[str, OutboundRules]", httpx2.Client]
    )
    _tokens: dict[str, str] = field(default_factory=dict[str, str])

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def blob_size(self, repository: str, digest: Digest) -> int | None:
        """The size of a blob that a repository has, or None."""
        response = self._call("HEAD", f"/v2/{repository}/blobs/{digest}", (repository,), expected={200, 404})
        return int(response.headers.get("content-length") or 0) if response.status_code == 200 else None

    def mount(self, repository: str, digest: Digest, source: str) -> bool:
        """Have a repository share a blob of another one of the same registry; False where the registry does not."""
        query = urlencode({"mount": digest, "from": source})
        path = f"/v2/{repository}/blobs/uploads/?{query}"
        response = self._call("POST", path, (repository, source), expected={201, 202, 403, 404, 405})
        if response.status_code == 202:
            # It began an upload in its place, which nobody will go on with.
            with contextlib.suppress(NotFound, PermissionDenied, Unavailable, InvalidInput):
                self._call("DELETE", self._location(response), (repository,), expected={200, 202, 204, 404, 405})
        return response.status_code == 201

    def send(self, repository: str, blob: Blob, advance: Advance = lambda _: None) -> bool:
        """Upload a blob unless it is there; True if it was sent.

        Raises:
            Unavailable: if the connection is lost again and again, or the registry refuses the bytes.
            PermissionDenied: if the credentials do not suffice.
        """
        if self.blob_size(repository, blob.digest) == blob.size:
            advance(blob.size)
            return False
        location, offset, failures = self._begin(repository), 0, 0
        while True:
            try:
                while offset < blob.size:
                    end = blob.size if self.chunk_bytes is None else min(offset + self.chunk_bytes, blob.size)
                    response = self._patch(repository, location, blob, offset, end)
                    location = self._location(response)
                    advance(end - offset)
                    self.sent_bytes += end - offset
                    offset = end
                separator = "&" if "?" in location else "?"
                path = f"{location}{separator}{urlencode({'digest': blob.digest})}"
                self._once("PUT", path, (repository,), expected={201, 204}, headers={"content-length": "0"})
                return True
            except (_Lost, NotFound) as error:
                failures += 1
                if failures >= _ATTEMPTS:
                    raise Unavailable(
                        f"{self._host} did not take the blob {blob.digest}: {error}",
                        hint="It is tried again by itself.",
                    ) from error
                self.sleep(0.1 * 2**failures)
                if self.blob_size(repository, blob.digest) == blob.size:
                    return True
                location, offset = self._resume(repository, location)

    def read_blob(
        self, repository: str, digest: Digest, size: int, *, start: int = 0, end: int | None = None
    ) -> Iterator[bytes]:
        """The bytes of a blob, from `start` up to `end`; a lost connection is taken up where it ended.

        Raises:
            NotFound: if the repository does not have it.
            Unavailable: if it does not come.
        """
        stop = size if end is None else end
        failures = 0
        while start < stop:
            try:
                headers = {"range": f"bytes={start}-{stop - 1}"}
                with self._stream(f"/v2/{repository}/blobs/{digest}", (repository,), headers) as response:
                    skip = start if response.status_code == 200 else 0
                    for piece in response.iter_raw():
                        wanted = piece[skip : skip + stop - start]
                        skip = max(0, skip - len(piece))
                        start += len(wanted)
                        if wanted:
                            yield wanted
                        if start >= stop:
                            return
                failure: Exception = EOFError("the answer ended early")
            except (_Lost, httpx2.TransportError) as error:
                failure = error
            failures += 1
            if failures >= _ATTEMPTS:
                raise Unavailable(
                    f"{self._host} does not give the blob {digest}: {failure or type(failure).__name__}",
                    hint="It is tried again by itself.",
                ) from failure
            self.sleep(0.1 * 2**failures)

    def check_blob(self, repository: str, digest: Digest, size: int) -> None:
        """Read a blob to its end.

        Raises:
            NotFound: if it is not there.
            IntegrityError: if it has other bytes than its name says.
        """
        found = hashlib.sha256()
        for piece in self.read_blob(repository, digest, size):
            found.update(piece)
        if f"sha256:{found.hexdigest()}" != digest:
            raise IntegrityError(
                f"{self._host} gives other bytes for the blob {digest} of {repository}.", digest=digest
            )

    def read_manifest(self, repository: str, reference: str) -> tuple[str, bytes]:
        """The media type and bytes of a manifest, by digest (then checked) or tag.

        Raises:
            NotFound: if there is none.
            IntegrityError: if it is not what its digest says.
        """
        path = f"/v2/{repository}/manifests/{reference}"
        response = self._call(
            "GET", path, (repository,), expected={200}, headers={"accept": ", ".join(_MANIFEST_TYPES)}
        )
        content = response.content
        if reference.startswith("sha256:") and sha256_digest(content) != reference:
            raise IntegrityError(f"{self._host} gives another manifest for {reference}.", digest=reference)
        media_type = response.headers.get("content-type", "").partition(";")[0].strip()
        return media_type, content

    def write_manifest(self, repository: str, reference: str, media_type: str, content: bytes) -> None:
        """Put a manifest under its digest or a tag; what it names must be there."""
        path = f"/v2/{repository}/manifests/{reference}"
        headers = {"content-type": media_type}
        self._call("PUT", path, (repository,), expected={200, 201}, headers=headers, content=content)

    @property
    def _host(self) -> str:
        return urlsplit(self.origin).netloc

    def _begin(self, repository: str) -> str:
        path = f"/v2/{repository}/blobs/uploads/"
        return self._location(self._call("POST", path, (repository,), expected={202}, headers={"content-length": "0"}))

    def _patch(self, repository: str, location: str, blob: Blob, start: int, end: int) -> httpx2.Response:
        headers = {
            "content-type": "application/octet-stream",
            "content-length": str(end - start),
            "content-range": f"{start}-{end - 1}",
        }
        if self.chunk_bytes is None:
            del headers["content-range"]
        return self._once(
            "PATCH",
            location,
            (repository,),
            expected={202, 204},
            headers=headers,
            content=lambda: blob.read(start, end),
        )

    def _resume(self, repository: str, location: str) -> tuple[str, int]:
        """Where an upload goes on: as far as the registry has it, or from the beginning."""
        if self.chunk_bytes is not None:
            with contextlib.suppress(NotFound):
                response = self._call("GET", location, (repository,), expected={204})
                found = _RANGE.fullmatch(response.headers.get("range", ""))
                has = 0 if found is None else int(found[1])
                return self._location(response, location), has + 1 if has else 0
        return self._begin(repository), 0

    def _location(self, response: httpx2.Response, default: str | None = None) -> str:
        """The path of an upload; only of this registry, whatever host or scheme a proxy before it writes."""
        given = response.headers.get("location") or default
        if not given:
            raise Unavailable(f"{self._host} does not say where the upload goes.")
        parts = urlsplit(urljoin(self.origin + "/", given))
        if parts.hostname != urlsplit(self.origin).hostname:
            raise PermissionDenied(f"{self._host} wants an upload to be sent to {parts.hostname}, another host.")
        return parts.path + (f"?{parts.query}" if parts.query else "")

    def _call(self, method: str, path: str, repositories: tuple[str, ...], **options: Any) -> httpx2.Response:
        """A request that may be repeated."""
        for attempt in range(_ATTEMPTS):
            try:
                return self._once(method, path, repositories, **options)
            except _Lost as error:
                if attempt + 1 == _ATTEMPTS:
                    raise Unavailable(
                        f"{self._host} does not answer {method}: {error}", hint="It is tried again by itself."
                    ) from error
                self.sleep(max(error.after, 0.1 * 2**attempt))
        raise AssertionError

    def _once(
        self,
        method: str,
        path: str,
        repositories: tuple[str, ...],
        *,
        expected: set[int],
        headers: Mapping[str, str] | None = None,
        content: bytes | Callable[[], Iterator[bytes]] | None = None,
    ) -> httpx2.Response:
        scope = _scope(repositories, method)
        has_logged_in = False
        while True:
            sent = {**(headers or {}), **self._authorization(scope)}
            body = content() if callable(content) else content
            try:
                client = self._client(self.origin, self.rules)
                with client.stream(method, path, headers=sent, content=body) as answer:
                    response = read_answer(answer)
            except httpx2.RequestError as error:
                raise _Lost(type(error).__name__) from error
            if response.status_code != 401 or has_logged_in or not self._log_in(response, scope):
                return self._checked(response, method, path, expected)
            has_logged_in = True

    def _checked(self, response: httpx2.Response, method: str, path: str, expected: set[int]) -> httpx2.Response:
        status = response.status_code
        if status in expected:
            return response
        what = f"{self._host} answers {status} to {method} {path.partition('?')[0]}"
        if status in {401, 403}:
            raise PermissionDenied(
                f"{what}.", hint="Check the identity of the container registry, and what it may do there."
            )
        if status == 404:
            raise NotFound(f"{what}: it is not there.")
        if status in {408, 416, 425, 429} or status >= 500:
            after = response.headers.get("retry-after", "")
            raise _Lost(what, after=min(float(after), 30.0) if after.isdecimal() else 0.0)
        raise Unavailable(f"{what}: {_said(response)}", hint="Look at what stands at this address.")

    @contextlib.contextmanager
    def _stream(
        self, path: str, repositories: tuple[str, ...], headers: Mapping[str, str]
    ) -> Generator[httpx2.Response]:
        """A blob's answer: from the registry, or from where it redirects to."""
        scope = _scope(repositories, "GET")
        url, rules, authorization = self.origin + path, self.rules, self._authorization(scope)
        logins = hops = 0
        while True:
            parts = urlsplit(url)
            client = self._client(f"{parts.scheme}://{parts.netloc}", rules)
            target = parts.path + (f"?{parts.query}" if parts.query else "")
            with client.stream("GET", target, headers={**headers, **authorization}) as response:
                status = response.status_code
                if status == 401 and logins == 0 and hops == 0:
                    logins = 1
                    if self._log_in(response, scope):
                        authorization = self._authorization(scope)
                        continue
                if status in {301, 302, 303, 307, 308} and hops < _REDIRECTS_MAX:
                    url, hops = urljoin(url, response.headers.get("location", "")), hops + 1
                    if not url.startswith(f"{self.origin}/"):
                        rules, authorization = self.open_rules, {}
                    continue
                if status not in {200, 206}:
                    self._checked(read_answer(response), "GET", path, {200, 206})
                yield response
                return

    def _client(self, origin: str, rules: OutboundRules) -> httpx2.Client:
        found = self._clients.get((origin, rules))
        if found is None:
            try:
                destination = rules.resolve(origin)
            except InvalidInput as refusal:
                raise PermissionDenied(refusal.detail, hint=refusal.hint) from None
            found = self._clients[origin, rules] = httpx2.Client(
                base_url=origin,
                headers={"user-agent": "fairlead", "accept-encoding": "identity"},
                timeout=_TIMEOUT,
                follow_redirects=False,
                trust_env=False,
                transport=PinnedTransport(destination, verify=httpx2.create_ssl_context()),
            )
        return found

    def _authorization(self, scope: str) -> dict[str, str]:
        value = self._tokens.get(scope) or self._tokens.get("")
        return {} if value is None else {"authorization": value}

    def _log_in(self, response: httpx2.Response, scope: str) -> bool:
        """Do what a 401 asks for; False where there is nothing more to be tried."""
        kind, _, rest = response.headers.get("www-authenticate", "").partition(" ")
        login = self.login()
        if kind.lower() == "basic" and login.user is not None:
            pair = base64.b64encode(f"{login.user}:{login.secret}".encode()).decode()
            self._tokens[""] = f"Basic {pair}"
            return True
        if kind.lower() != "bearer":
            return False
        if login.kind == "bearer":
            self._tokens[""] = f"Bearer {login.secret}"
            return True
        said = dict(_CHALLENGE.findall(rest))
        self._tokens[scope] = f"Bearer {self._ask_for_token(login, said, scope)}"
        return True

    def _ask_for_token(self, login: Login, said: Mapping[str, str], scope: str) -> str:
        realm = urlsplit(said.get("realm", ""))
        is_own = realm.netloc == self._host
        if realm.scheme != "https" and not self.origin.startswith("http:"):
            raise PermissionDenied(f"{self._host} wants its credentials sent unencrypted, to {realm.netloc[:100]!r}.")
        rules = self.rules if is_own or login.kind != "none" else self.open_rules
        service = said.get("service", "")
        query: list[tuple[str, Any]] = [*parse_qsl(realm.query), ("service", service)]
        query += [("scope", each) for each in scope.split(" ")]
        client = self._client(f"{realm.scheme}://{realm.netloc}", rules)
        try:
            if login.kind == "refresh":
                form = {"grant_type": "refresh_token", "refresh_token": login.secret, "service": service}
                asked = client.stream("POST", realm.path, data={**form, "scope": scope})
            else:
                pair = None if login.user is None else (login.user, login.secret)
                asked = client.stream("GET", realm.path, params=query, auth=pair)
            with asked as answer:
                response = read_answer(answer)
        except httpx2.RequestError as error:
            raise _Lost(f"the token service: {type(error).__name__}") from error
        self._checked(response, "GET", realm.path, {200})
        try:
            found = cast("dict[str, Any]", json.loads(response.content))
            return str(found.get("token") or found["access_token"])
        except (ValueError, KeyError, AttributeError):
            raise Unavailable(f"The token service of {self._host} gave no token.") from None


def read_answer(response: httpx2.Response) -> httpx2.Response:
    """An answer with its whole body, which is no longer than a manifest may be.

    Raises:
        Unavailable: if it is longer.
    """
    body = bytearray()
    for piece in response.iter_bytes():
        body += piece
        if len(body) > MANIFEST_MAX_BYTES:
            raise Unavailable(
                f"{response.url.host} answers with more than {MANIFEST_MAX_BYTES} bytes.",
                hint="Look at what stands at this address.",
            )
    headers = [(name, value) for name, value in response.headers.multi_items() if name != "content-encoding"]
    return httpx2.Response(response.status_code, headers=headers, content=bytes(body), request=response.request)


class _Lost(Exception):
    """A request that came to nothing and may be repeated; `after` is how many seconds to wait at least."""

    def __init__(self, what: str, *, after: float = 0.0) -> None:
        super().__init__(what)
        self.after = after


def _scope(repositories: tuple[str, ...], method: str) -> str:
    first, *others = repositories
    actions = "pull" if method in {"GET", "HEAD"} else "pull,push"
    return " ".join([f"repository:{first}:{actions}", *(f"repository:{each}:pull" for each in others)])


def _said(response: httpx2.Response) -> str:
    """What a registry says of an error: its codes alone, since a message may quote anything."""
    try:
        errors = cast("list[dict[str, Any]]", json.loads(response.content)["errors"])
        return ", ".join(re.sub(r"[^A-Z_]", "", str(each["code"]))[:60] for each in errors[:3])
    except (ValueError, KeyError, TypeError, httpx2.HTTPError):
        return "nothing more is said"
