"""HTTP of the edge cache: ranges, conditions and headers, and the process that serves them."""

from __future__ import annotations

import base64
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, Response
from starlette.responses import StreamingResponse

from fairlead.app.edge_cache import EdgeCache, connect_as, etag_of
from fairlead.app.http import Server, listen
from fairlead.app.problem_handlers import install_problem_handlers
from fairlead.core.errors import Conflict, RangeNotSatisfiable
from fairlead.core.ids import Digest, digest_hex
from fairlead.sync.store.block_cache import BlockCache

if TYPE_CHECKING:
    from fairlead.sdk.client import Fairlead
    from fairlead.sync.store.manifest import FileEntry

DEFAULT_SIZE_BYTES = 10 * 10**9
_YEAR_SECONDS = 365 * 24 * 3600
# Of no more digits than any file's size has.
_RANGE = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*")
_METHODS = ["GET", "HEAD"]
_GUIDE = "GET and HEAD of /artifacts/DIGEST/files/PATH, /artifacts/DIGEST/manifest, .../blocks/DIGEST and /healthz are"


def create_edge_app(cache: EdgeCache) -> FastAPI:
    """The application: `/artifacts/{digest}/files/{path}`, `/manifest`, `/blocks/{digest}`, and `/healthz`."""
    app = FastAPI(title="Fairlead edge cache", docs_url=None, redoc_url=None, openapi_url=None)
    install_problem_handlers(app, guide=_GUIDE)

    @app.api_route("/artifacts/{digest}/files/{path:path}", methods=_METHODS)
    def get_file(request: Request, digest: str, path: str) -> Response:
        """A file, or one range of it."""
        artifact = cache.admit(digest, _token(request))
        entry = cache.find(artifact, path)
        headers = {
            **_headers(etag_of(entry), is_public=cache.is_public),
            "Accept-Ranges": "bytes",
            "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(digest_hex(entry.digest))).decode()}:",
        }
        return _serve(request, cache, artifact, entry, headers)

    @app.api_route("/artifacts/{digest}/manifest", methods=_METHODS)
    def get_manifest(request: Request, digest: str) -> Response:
        """The canonical manifest: its sha256 is the artifact's digest."""
        artifact = cache.admit(digest, _token(request))
        return _whole(request, cache, artifact, cache.manifest(artifact), "application/json")

    @app.api_route("/artifacts/{digest}/blocks/{block}", methods=_METHODS)
    def get_block(request: Request, digest: str, block: str) -> Response:
        """The plain bytes of one block."""
        artifact = cache.admit(digest, _token(request))
        return _whole(request, cache, Digest(block), cache.block(artifact, block), "application/octet-stream")

    @app.get("/healthz")
    def health() -> dict[str, object]:
        """Whether it is in service, and what the cache of blocks has done."""
        cache.location()
        blocks = cache.blocks
        return {
            "status": "ok",
            "used_bytes": blocks.used_bytes,
            "hits": blocks.hits,
            "misses": blocks.misses,
            "damaged": blocks.damaged,
        }

    return app


def serve_edge(client: Fairlead, *, location: str, folder: Path, size_bytes: int | None, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        LocationNotFound, Conflict, LocationUnavailable: if the location is no cache in service.
        Conflict: if the port is taken.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    record = client.locations.get(location)
    size = size_bytes or int(record.settings.get("size_bytes", DEFAULT_SIZE_BYTES))
    cache = EdgeCache(
        client,
        location=location,
        blocks=BlockCache(folder, size_bytes=size),
        connect=connect_as(client.settings, client.url),
    )
    cache.location()
    try:
        listener = listen(host, port)
    except OSError as error:
        raise Conflict(
            f"Nothing can listen on {host}:{port}: {error.strerror}.", hint="Choose another with --port."
        ) from error
    address, bound_port = listener.getsockname()[:2]
    url = f"http://{f'[{address}]' if ':' in address else address}:{bound_port}"

    def tell() -> None:
        sys.stdout.write(f"The cache {location} answers at {url}\n")
        sys.stdout.flush()

    Server(create_edge_app(cache)).run_on(listener, on_ready=tell)


def _serve(
    request: Request, cache: EdgeCache, artifact: Digest, entry: FileEntry, headers: Mapping[str, str]
) -> Response:
    if _is_known(request, headers["ETag"]):
        return Response(status_code=304, headers=dict(headers))
    start, end, status = 0, entry.size, 200
    wanted = request.headers.get("range")
    # A condition on another representation asks for the whole of this one; and only GET has ranges (RFC 9110, 14.2).
    if request.method == "GET" and wanted is not None and request.headers.get("if-range") in {None, headers["ETag"]}:
        found = parse_range(wanted, entry.size)
        if found is not None:
            (start, end), status = found, 206
    shown = {**headers, "Content-Length": str(end - start)}
    if status == 206:
        shown["Content-Range"] = f"bytes {start}-{end - 1}/{entry.size}"
    if request.method == "HEAD":
        return Response(status_code=status, headers=shown, media_type="application/octet-stream")
    pieces = cache.read(artifact, entry, start, end)
    # The first piece is read before anything is promised: what cannot be read is an error and no broken answer.
    first = next(pieces, b"")
    return StreamingResponse(
        _chain(first, pieces), status_code=status, headers=shown, media_type="application/octet-stream"
    )


def parse_range(text: str, size: int) -> tuple[int, int] | None:
    """The bytes `start` up to `end` that a Range header asks for; None where it is of another unit or malformed.

    Raises:
        RangeNotSatisfiable: if it begins beyond the end, or asks for several ranges.
    """
    unit, _, ranges = text.partition("=")
    if unit.strip().lower() != "bytes":
        return None
    if "," in ranges:
        raise RangeNotSatisfiable("This cache serves one range at a time.", hint="Ask for each range by itself.")
    found = _RANGE.fullmatch(f"bytes={ranges}")
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), size if not last else min(size, int(last) + 1)
        if last and int(last) < start:
            return None
    if start >= end:
        raise RangeNotSatisfiable(f"The range {text[:60]!r} is beyond the file's {size} bytes.", size=size)
    return start, end


def _whole(request: Request, cache: EdgeCache, digest: Digest, body: bytes, media_type: str) -> Response:
    headers = _headers(f'"{digest_hex(digest)}"', is_public=cache.is_public)
    if _is_known(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    headers["Content-Length"] = str(len(body))
    return Response(b"" if request.method == "HEAD" else body, headers=headers, media_type=media_type)


def _headers(etag: str, *, is_public: bool) -> dict[str, str]:
    return {
        "ETag": etag,
        "Cache-Control": f"{'public' if is_public else 'private'}, max-age={_YEAR_SECONDS}, immutable, no-transform",
        "X-Content-Type-Options": "nosniff",
        "Content-Disposition": "attachment",
        **({} if is_public else {"Vary": "Authorization"}),
    }


def _is_known(request: Request, etag: str) -> bool:
    known = [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]
    return etag in known or "*" in known


def _token(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
