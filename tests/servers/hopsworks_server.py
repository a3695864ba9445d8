"""A loopback stand-in for Hopsworks: the REST answers and the query service that its client 4.8 expects.

The shapes are those that the client sends and reads; none was taken from a running server.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Generator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from typing import Any
from urllib.parse import parse_qs, urlsplit

API_KEY = "hops-key"
SIGNATURE = "signed-by-hopsworks"


@dataclass(frozen=True, slots=True, kw_only=True)
class HopsworksServer:
    """Where it is; `asked` are the paths and bodies of requests, in order."""

    address: str
    asked: list[tuple[str, Any]]


@contextlib.contextmanager
def hopsworks_server(table: Any) -> Generator[HopsworksServer]:
    """Serve one feature group, `cells` version 2 of the project `clinic`, with these rows."""
    flight: Any = import_module("pyarrow.flight")

    class QueryService(flight.FlightServerBase):
        def get_flight_info(self, _context: Any, descriptor: Any) -> Any:
            ticket = flight.Ticket(descriptor.command)
            return flight.FlightInfo(table.schema, descriptor, [flight.FlightEndpoint(ticket, [])], -1, -1)

        def do_get(self, context: Any, ticket: Any) -> Any:
            if context.get_middleware("signature").signature != SIGNATURE:
                raise flight.FlightUnauthenticatedError("not signed")
            query = json.loads(ticket.ticket)
            taken = table.select(query["features"])
            return flight.RecordBatchStream(taken if query["limit"] is None else taken.slice(0, query["limit"]))

    class Signature(flight.ServerMiddleware):
        def __init__(self, signature: str) -> None:
            self.signature = signature

    class Signatures(flight.ServerMiddlewareFactory):
        def start_call(self, _info: Any, headers: Any) -> Any:
            return Signature(next(iter(headers.get("hopsworks-signature", [])), ""))

    asked: list[tuple[str, Any]] = []
    service = QueryService("grpc://127.0.0.1:0", middleware={"signature": Signatures()})
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(asked, table))
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        host = f"127.0.0.1:{http.server_address[1]}"
        yield HopsworksServer(
            address=f"http://user:{API_KEY}@{host}?query_service=grpc://127.0.0.1:{service.port}", asked=asked
        )
    finally:
        http.shutdown()
        http.server_close()
        service.shutdown()


def _handler(asked: list[tuple[str, Any]], table: Any) -> type[BaseHTTPRequestHandler]:
    features = [{"name": name, "type": "string", "primary": False} for name in table.column_names]
    group = {"id": 21, "name": "cells", "version": 2, "type": "streamFeatureGroupDTO", "featurestoreId": 67,
             "timeTravelFormat": "DELTA", "features": features}  # fmt: skip

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(None)

        def do_PUT(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

        def _answer(self, body: Any) -> None:
            parts = urlsplit(self.path)
            asked.append((parts.path, body))
            if self.headers["authorization"] != f"ApiKey {API_KEY}":
                self._send(401, {"errorCode": 200003})
                return
            path, query = parts.path.removeprefix("/hopsworks-api/api/"), parse_qs(parts.query)
            answers: dict[str, Any] = {
                "project/getProjectInfo/clinic": {"projectId": 119, "projectName": "clinic"},
                "project/119/credentials": {"caChain": "", "clientCert": "", "clientKey": ""},
                "project/119/featurestores/clinic_featurestore": {
                    "featurestoreId": 67, "featurestoreName": "clinic_featurestore", "projectId": 119,
                },
            }  # fmt: skip
            if path == "project/119/featurestores/67/featuregroups/cells" and query["version"] == ["2"]:
                self._send(200, [group])
            elif path == "project/119/featurestores/query" and body is not None:
                payload = {"features": [each["name"] for each in body["leftFeatures"]], "limit": body["limit"]}
                self._send(200, {"hqsPayload": json.dumps(payload), "hqsPayloadSignature": SIGNATURE})
            elif path in answers:
                self._send(200, answers[path])
            else:
                self._send(404, {"errorCode": 270009})

        def _send(self, status: int, answer: Any) -> None:
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the base class's name)
            """Say nothing."""

    return Handler
