"""An MLflow tracking server's REST API, as far as a version's files need it.

Every request goes to the origin that an admin named, whatever a server answers: redirects are not followed, addresses
inside answers are never called, the environment's proxies are not used, and a name that stands for another address a
moment later leads nowhere else (see `core.outbound`). Names in listings are plain names.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, urlsplit

from fairlead.core.errors import InvalidInput, NotFound, PermissionDenied, StorageFull, Unavailable
from fairlead.registry.mlflow.paths import parse_path

if TYPE_CHECKING:
    import httpx2

    from fairlead.core.outbound import OutboundRules
    from fairlead.registry.mlflow.sources import Source
    from fairlead.registry.mlflow.tracking_servers import TrackingServer

FILES_MAX = 10_000
FOLDERS_MAX = 2_000
ANSWER_MAX_BYTES = 16 * 2**20
_TIMEOUT_SECONDS = 60.0
_LOGGED_MODEL_IN_PATH = re.compile(r"(?:^|/)models/(m-[0-9a-zA-Z]{1,60})/artifacts(?:/|$)")


@dataclass(frozen=True, slots=True)
class _Root:
    """Where files lie: how a folder below it is listed, and a file fetched."""

    list_url: str
    list_name: str
    file_url: str
    query: tuple[tuple[str, str], ...] = ()
    file_name: str | None = None
    prefix: str = ""


class TrackingClient:
    """A connection to one tracking server."""

    def __init__(self, http: httpx2.Client, name: str, path: str) -> None:
        self._http = http
        self._name = name
        self._path = path

    @staticmethod
    @contextlib.contextmanager
    def connect(server: TrackingServer, rules: OutboundRules) -> Generator[TrackingClient]:
        """Open a connection while the block runs; it goes to addresses that were checked, and to no others.

        Raises:
            Unavailable: if the host is not found, or its credentials are not there.
            PermissionDenied: if the host stands for an address that is not fetched from, or is not allowed any longer,
                or not for credentials.
        """
        import httpx2  # a worker that pulls nothing need not load it

        from fairlead.core.outbound_http import PinnedTransport

        parts = urlsplit(server.url)
        try:
            destination = rules.resolve(server.url)
        except InvalidInput as refusal:  # the operator's list was another one when it was named
            raise PermissionDenied(refusal.detail, hint=refusal.hint) from None
        headers = {"User-Agent": "fairlead", **_credentials(server, rules)}
        with httpx2.Client(
            base_url=f"{parts.scheme}://{parts.netloc}",
            headers=headers,
            timeout=_TIMEOUT_SECONDS,
            follow_redirects=False,
            trust_env=False,
            transport=PinnedTransport(destination),
        ) as http:
            yield TrackingClient(http, server.name, parts.path)

    def download(self, source: Source, run_id: str | None, folder: Path) -> None:
        """Write all files of a source below a folder.

        Raises:
            NotFound: if the server does not have it.
            InvalidInput: if it names files as none may be named, or has too many.
            PermissionDenied: if the credentials do not suffice.
            Unavailable: if the server does not answer as it should.
            StorageFull: if the disk is full.
        """
        root = self._find_root(source, run_id)
        written = 0
        for path in self._walk(root):
            written += 1
            if written > FILES_MAX:
                raise InvalidInput(f"{source.text[:200]} has more than {FILES_MAX} files.", hint="Register a folder.")
            self._fetch(root, path, folder / path)
        if not written:
            raise NotFound(
                f"The tracking server {self._name!r} has no files of '{source.text[:200]}'.",
                hint="Look at the run's artifacts there.",
            )

    def _find_root(self, source: Source, run_id: str | None) -> _Root:
        if source.kind == "logged-model":
            return self._logged_model(source.id, "")
        if source.kind == "run":
            return self._run(source.id, source.path)
        if source.kind == "bucket":
            logged = _LOGGED_MODEL_IN_PATH.search(source.text)
            if logged is not None:
                return self._logged_model(logged[1], source.text[logged.end() :].strip("/"))
            artifact_uri = self._artifact_uri(run_id or "")
            if not (source.text.rstrip("/") + "/").startswith(artifact_uri.rstrip("/") + "/"):
                raise NotFound(
                    f"'{source.text[:200]}' is no artifact of the run {run_id!r}.", hint="Register from runs:/."
                )
            return self._run(run_id or "", source.text.removeprefix(artifact_uri).strip("/"))
        return _proxied(source.path)

    def _logged_model(self, model_id: str, path: str) -> _Root:
        found = self._json(f"/api/2.0/mlflow/logged-models/{model_id}", ())
        info = _member(_member(found, "model"), "info")
        proxied = _proxied_path(str(info.get("artifact_uri", "")))
        if proxied is not None:
            return _proxied("/".join(part for part in (proxied, path) if part))
        return _Root(
            list_url=f"/api/2.0/mlflow/logged-models/{model_id}/artifacts/directories",
            list_name="artifact_directory_path",
            file_url=f"/ajax-api/2.0/mlflow/logged-models/{model_id}/artifacts/files",
            file_name="artifact_file_path",
            prefix=parse_path(path, may_be_empty=True),
        )

    def _run(self, run_id: str, path: str) -> _Root:
        proxied = _proxied_path(self._artifact_uri(run_id))
        if proxied is not None:
            return _proxied("/".join(part for part in (proxied, path) if part))
        return _Root(
            list_url="/api/2.0/mlflow/artifacts/list",
            list_name="path",
            file_url="/get-artifact",
            file_name="path",
            query=(("run_id", run_id), ("run_uuid", run_id)),
            prefix=parse_path(path, may_be_empty=True),
        )

    def _artifact_uri(self, run_id: str) -> str:
        found = self._json("/api/2.0/mlflow/runs/get", (("run_id", run_id),))
        return str(_member(_member(found, "run"), "info").get("artifact_uri", ""))

    def _walk(self, root: _Root) -> Iterator[str]:
        """The paths of all files, relative to the root."""
        waiting = [""]
        seen = 0
        while waiting:
            folder = waiting.pop()
            seen += 1
            if seen > FOLDERS_MAX:
                raise InvalidInput(f"There are more than {FOLDERS_MAX} folders.", hint="Register a folder below.")
            asked = "/".join(part for part in (root.prefix, folder) if part)
            query = [*root.query, *([(root.list_name, asked)] if asked else [])]
            token: str | None = None
            while True:
                page = self._json(root.list_url, (*query, *([("page_token", token)] if token else [])))
                for item in _files(page):
                    # A server answers with names, or with paths from the root; only the last part is taken.
                    name = parse_path(str(item.get("path", "")).rstrip("/").rpartition("/")[2])
                    path = f"{folder}/{name}" if folder else name
                    if item.get("is_dir"):
                        waiting.append(path)
                    else:
                        yield parse_path(path)
                token = cast("str | None", page.get("next_page_token")) or None
                if token is None:
                    break

    def _fetch(self, root: _Root, path: str, destination: Path) -> None:
        full = "/".join(part for part in (root.prefix, path) if part)
        if root.file_name is None:
            url, query = f"{root.file_url}/{quote(full)}", root.query
        else:
            url, query = root.file_url, (*root.query, (root.file_name, full))
        with self._get(url, query) as response:
            declared = response.headers.get("content-length")
            is_plain = "content-encoding" not in response.headers
            written = 0
            try:
                destination.parent.mkdir(parents=True, exist_ok=True)
                with destination.open("xb") as file:
                    for piece in response.iter_bytes():
                        written += file.write(piece)
            except OSError as error:
                raise StorageFull(f"The file {path!r} cannot be kept: {error.strerror}.", hint="Free space.") from error
        if is_plain and declared is not None and int(declared) != written:
            raise Unavailable(f"{written} bytes of {declared} came of {path!r}.", hint="It is tried again.")

    def _json(self, url: str, query: tuple[tuple[str, str], ...]) -> dict[str, Any]:
        import json

        body = b""
        with self._get(url, query) as response:
            for piece in response.iter_bytes():
                body += piece
                if len(body) > ANSWER_MAX_BYTES:
                    raise Unavailable(f"The tracking server {self._name!r} answers without end.", hint="Look at it.")
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise Unavailable(
                f"The tracking server {self._name!r} does not answer as MLflow does.", hint="Check its address."
            )
        return cast("dict[str, Any]", found)

    @contextlib.contextmanager
    def _get(self, url: str, query: tuple[tuple[str, str], ...]) -> Generator[httpx2.Response]:
        import httpx2

        try:
            with self._http.stream("GET", self._path + url, params=list(query)) as response:
                self._check(response)
                yield response
        except httpx2.HTTPError as error:
            raise Unavailable(
                f"The tracking server {self._name!r} does not answer: {type(error).__name__}.",
                hint="It is asked again; see: fairlead work",
            ) from error

    def _check(self, response: httpx2.Response) -> None:
        status = response.status_code
        if status == 200:
            return
        if status in {401, 403}:
            raise PermissionDenied(
                f"The tracking server {self._name!r} refuses the credentials that it is asked with ({status}).",
                hint="Set the variable that --credentials-env names, for every worker.",
            )
        if 400 <= status < 500 and status not in {408, 429}:
            raise NotFound(f"The tracking server {self._name!r} does not have it ({status}).", hint="Look there.")
        raise Unavailable(f"The tracking server {self._name!r} answers {status}.", hint="It is asked again.")


def _proxied(path: str) -> _Root:
    return _Root(
        list_url="/api/2.0/mlflow-artifacts/artifacts",
        list_name="path",
        file_url="/api/2.0/mlflow-artifacts/artifacts",
        prefix=parse_path(path, may_be_empty=True),
    )


def _proxied_path(artifact_uri: str) -> str | None:
    """The path below the server's artifact root, if it serves its artifacts itself. Its host is not looked at."""
    parts = urlsplit(artifact_uri)
    return parts.path.strip("/") if parts.scheme == "mlflow-artifacts" else None


def _member(value: dict[str, Any], name: str) -> dict[str, Any]:
    found = value.get(name)
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _files(page: dict[str, Any]) -> list[dict[str, Any]]:
    found: object = page.get("files") or []
    items = cast("list[object]", found) if isinstance(found, list) else []
    return [cast("dict[str, Any]", item) for item in items if isinstance(item, dict)]


def _credentials(server: TrackingServer, rules: OutboundRules) -> dict[str, str]:
    if server.credentials_env is None:
        return {}
    rules.require_listed(server.url)
    secret = os.environ.get(server.credentials_env, "").strip()
    if not secret:
        raise Unavailable(
            f"This worker has no credentials of the tracking server {server.name!r}.",
            hint=f"Set {server.credentials_env} to USER:PASSWORD or a token, and start it again.",
        )
    if ":" in secret:
        return {"Authorization": "Basic " + base64.b64encode(secret.encode()).decode()}
    return {"Authorization": f"Bearer {secret}"}
