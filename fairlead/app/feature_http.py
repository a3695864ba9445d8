"""HTTP of the feature server, and the process that serves it."""

from __future__ import annotations

import json
import logging
import ssl
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from fairlead.app.edge_cache import connect_as
from fairlead.app.feature_server import FeatureServer
from fairlead.app.http import Server, listen
from fairlead.core.errors import (
    BodyTooLarge,
    Conflict,
    FairleadError,
    InvalidInput,
    MethodNotAllowed,
    NotFound,
    NotReady,
    PermissionDenied,
    Unauthenticated,
)
from fairlead.core.ids import new_row_id
from fairlead.core.problems import MEDIA_TYPE, to_problem
from fairlead.featurestore.online_answers import parse_question
from fairlead.featurestore.online_choice import OnlineEngines, read_choices
from fairlead.featurestore.online_sqlite import OnlineFolder
from fairlead.featurestore.served_log import ServedFolder, ServedLog

if TYPE_CHECKING:
    from collections.abc import Callable

    from fairlead.app.settings import ServerSettings
    from fairlead.sdk.client import Fairlead

BODY_MAX_BYTES = 8 * 2**20
HEARTBEAT_SECONDS = 10.0
_JSON = "application/json"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """How a feature server is started. `log_features` is the share of answers that are noted."""

    region: str
    host: str
    port: int
    url: str | None = None
    run_code: bool = False
    log_features: float = 0.0
    certificate: Path | None = None
    key: Path | None = None
    offline_seconds: float


def create_feature_app(server: FeatureServer) -> Starlette:
    """The application: `POST /get-online-features`, `/health`, `/ready`, `/metrics`."""

    async def read(request: Request) -> Response:
        try:
            body = await _read_body(request)
            await server.admit(_token(request))
            served = await server.read(parse_question(body))
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception as error:  # noqa: BLE001  (it is answered as an incident)
            return _refuse(server, _to_answer(request, error))
        labels = served.labels
        return Response(
            served.body,
            media_type=_JSON,
            headers={
                "x-fairlead-region": labels["region"],
                "x-fairlead-snapshot": labels["snapshot"],
                "x-fairlead-as-of": labels["as_of"],
                "x-fairlead-age-seconds": str(labels["age_seconds"]),
            },
        )

    async def health(_request: Request) -> Response:
        return Response(orjson.dumps({"status": "ok", "region": server.region}), media_type=_JSON)

    async def ready(request: Request) -> Response:
        try:
            services = await run_sync(server.services)
        except Exception as error:  # noqa: BLE001  (it is answered as an incident)
            return _refuse(server, _to_answer(request, error))
        if not services:
            return _refuse(
                server,
                NotReady(
                    f"No service is online in {server.region}.",
                    hint="Ask for one: fairlead features materialize SERVICE",
                ),
                status=503,
            )
        body = {"region": server.region, "services": services, "code": server.measurements.code}
        return Response(orjson.dumps(body), media_type=_JSON)

    async def measure(_request: Request) -> Response:
        text = await run_sync(server.measure)
        return Response(text, media_type="text/plain; version=0.0.4")

    async def answer_http(request: Request, error: Exception) -> Response:
        path = request.url.path[:200]
        hint = "POST /get-online-features; GET /health, /ready and /metrics."
        if isinstance(error, HTTPException) and error.status_code == 405:
            return _refuse(server, MethodNotAllowed(f"{path} does not answer {request.method[:20]}.", hint=hint))
        return _refuse(server, NotFound(f"There is nothing at {path}.", hint=hint))

    return Starlette(
        routes=[
            Route("/get-online-features", read, methods=["POST"]),
            Route("/health", health),
            Route("/ready", ready),
            Route("/metrics", measure),
        ],
        exception_handlers={HTTPException: answer_http},
    )


def serve_features(client: Fairlead, settings: ServerSettings, serving: Serving) -> None:
    """Serve one region's features until SIGTERM or SIGINT.

    Raises:
        RegionNotFound, PermissionDenied, ServerUnavailable: if the registry does not know the region or the token.
        Conflict: if the port is taken.
        InvalidInput: if the certificate cannot be read.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    tls = _load_tls(serving)
    region = client.catalog.region(serving.region).region
    engines = OnlineEngines(
        OnlineFolder(root=settings.folder / "features" / "online"),
        read_choices(settings.feature_online_engine.get_secret_value()),
    )
    engine = engines.of(region)
    log = None
    if serving.log_features:
        log = ServedLog(
            ServedFolder(root=settings.folder / "features" / "served"),
            region=region,
            workspace_id=str(client.whoami()["workspace_id"]),
            share=serving.log_features,
        )
    server = FeatureServer(
        client,
        engine=engine,
        region=region,
        connect=connect_as(client.settings, client.url),
        run_code=serving.run_code,
        log=log,
        offline_seconds=serving.offline_seconds,
    )
    try:
        listener = listen(serving.host, serving.port)
    except OSError as error:
        raise Conflict(
            f"Nothing can listen on {serving.host}:{serving.port}: {error.strerror}.",
            hint="Choose another with --port.",
        ) from error
    address, port = listener.getsockname()[:2]
    scheme = "https" if tls else "http"
    url = serving.url or f"{scheme}://{f'[{address}]' if ':' in address else address}:{port}"
    stopping = threading.Event()
    listed = Listing(client, region=region, url=url)

    def tell() -> None:
        sys.stdout.write(f"Features of {region} are read at {url}\n")
        if serving.run_code:
            sys.stdout.write("Code of on-demand views runs in this process; /ready names what was loaded.\n")
        sys.stdout.flush()
        threading.Thread(target=listed.run, args=(stopping,), name="fairlead-listed", daemon=True).start()

    try:
        app = create_feature_app(server)
        Server(app, tls=tls).run_on(listener, on_ready=tell)
    finally:
        stopping.set()
        server.close()


class Listing:
    """Keeps the server on the registry's list, so that clients find it."""

    def __init__(self, client: Fairlead, *, region: str, url: str, say: Callable[[str], None] = _log.warning) -> None:
        self._client = client
        self._region = region
        self._url = url
        self._say = say
        self._id: str | None = None
        self._has_said = False

    def run(self, stopping: threading.Event) -> None:
        """Say again and again that the server answers, until it stops."""
        while True:
            try:
                self.tell()
            except FairleadError as error:
                self._id = None
                if not self._has_said:
                    self._say(f"{error} Until then clients do not find it by themselves.")
                    self._has_said = True
            if stopping.wait(HEARTBEAT_SECONDS):
                return

    def tell(self) -> None:
        """Say once that it answers.

        Raises:
            PermissionDenied: if it is on no list yet and its token may not put it there.
        """
        servers = self._client.features.servers
        if self._id is None:
            mine = (self._region, self._url)
            self._id = next((each.id for each in servers.list() if (each.region, each.url) == mine), None)
        if self._id is not None:
            servers.hear(self._id)
        else:
            try:
                self._id = servers.register(region=self._region, url=self._url).id
            except PermissionDenied as error:
                raise PermissionDenied(
                    f"The server at {self._url} is on no list, and its token may not put it there.",
                    hint=f"An admin does: fairlead features servers add {self._url} --region {self._region}.",
                ) from error
        self._has_said = False


def _load_tls(serving: Serving) -> tuple[str, str] | None:
    if serving.certificate is None and serving.key is None:
        return None
    if serving.certificate is None or serving.key is None:
        raise InvalidInput("TLS takes a certificate and its key.", hint="Name both: --tls-certificate and --tls-key.")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(serving.certificate, serving.key)
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput(
            f"The certificate {serving.certificate} and its key cannot be used: {type(error).__name__}.",
            hint="Both are PEM files; the certificate's comes with its chain.",
        ) from error
    return str(serving.certificate), str(serving.key)


async def _read_body(request: Request) -> bytes:
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > BODY_MAX_BYTES:
            raise BodyTooLarge(
                f"The body is larger than {BODY_MAX_BYTES} bytes.",
                hint="Ask for fewer entities at once.",
                max_bytes=BODY_MAX_BYTES,
            )
        pieces.append(piece)
    return b"".join(pieces)


def _token(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def _refuse(server: FeatureServer, error: FairleadError, *, status: int | None = None) -> Response:
    server.measurements.failed(error.code)
    headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, Unauthenticated) else None
    body = json.dumps(to_problem(error), allow_nan=False)
    return Response(body, status_code=status or error.status, media_type=MEDIA_TYPE, headers=headers)


def _to_answer(request: Request, error: Exception) -> FairleadError:
    """What is said of an error; one that nobody expected is logged, and answered as an incident."""
    if isinstance(error, FairleadError):
        return error
    incident = new_row_id()
    _log.exception("incident %s: %s %s", incident, request.method, request.url.path)
    return FairleadError(
        f"The server met an error that it did not expect: incident {incident}.",
        hint="Give the incident's id to whoever runs the server.",
        incident=incident,
    )
