"""Rows out of Hopsworks: a feature group by name and version, as its own Python client (4.8) reads it.

The client asks the REST API for the project, its feature store, the feature group and a signed query, and takes the
rows from the query service over Arrow Flight, with certificates that the REST API gives out. The client itself is no
dependency: its pins fight ours. A connection is `https://user:API_KEY@HOST:443`; `?query_service=grpc+tls://HOST:5005`
names the query service where it is not at the address that Hopsworks says.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs, quote, unquote, urlsplit

from fairlead.core.errors import FairleadError, FeatureSourceInvalid, PermissionDenied, Unavailable
from fairlead.core.outbound import OutboundRules
from fairlead.featurestore.source_queries import Needs, stage

if TYPE_CHECKING:
    import httpx2
    from duckdb import DuckDBPyConnection

    from fairlead.featurestore.source_definitions import HopsworksRows

_SETTING = "FAIRLEAD_FEATURE_CONNECTIONS"
_REST_SECONDS = 30
_FLIGHT_PORT = 5005


@dataclass(frozen=True, slots=True, kw_only=True)
class HopsworksAddress:
    """Where a Hopsworks server is, and the API key that lets us in."""

    url: str
    api_key: str
    query_service: str | None

    @classmethod
    def parse(cls, address: str, view: str) -> HopsworksAddress:
        """From a connection's address.

        Raises:
            FeatureSourceInvalid: if it is none; its text is not repeated.
        """
        parts = urlsplit(address)
        if parts.scheme not in {"https", "http"} or not parts.hostname or not parts.password:
            raise FeatureSourceInvalid(
                f"The connection of the source of view {view!r} is no address of a Hopsworks server.",
                hint=f"Write https://user:API_KEY@HOST in {_SETTING}.",
                view=view,
            )
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return cls(
            url=f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else ""),
            api_key=unquote(parts.password),
            query_service=next(iter(parse_qs(parts.query).get("query_service", [])), None),
        )


def hopsworks_relation(
    connection: DuckDBPyConnection,
    place: HopsworksRows,
    *,
    address: str,
    needs: Needs,
    timeout: timedelta,
    view: str,
) -> str:
    """The rows as a temporary table of `connection`; its name.

    Raises:
        FeatureSourceInvalid: if there is no such project or feature group, or the query service cannot answer.
        PermissionDenied: if the API key does not let us in.
        Unavailable: if the server does not answer.
    """
    server = HopsworksAddress.parse(address, view)
    with _rest(server) as rest, _errors(place, view):
        project = rest.get("project", "getProjectInfo", place.project)
        project_path = ("project", str(project["projectId"]))
        store = rest.get(*project_path, "featurestores", f"{place.project}_featurestore")
        group = _feature_group(rest, (*project_path, "featurestores", str(store["featurestoreId"])), place, view)
        wanted = [each for each in group["features"] if needs.columns is None or each["name"] in needs.columns]
        whole = needs.columns is None or len(wanted) == len(needs.columns)
        query = {
            "featureStoreName": store["featurestoreName"],
            "featureStoreId": store["featurestoreId"],
            "leftFeatureGroup": group,
            # Where a column is missing, whoever asked sees which ones there are.
            "leftFeatures": wanted if whole else group["features"],
            "joins": [],
            "limit": None if needs.has_rows and whole else 1,
            "hiveEngine": True,
        }
        signed = rest.put(*project_path, "featurestores", "query", params={"hqs": True}, body=query)
        credentials = rest.get(*project_path, "credentials")
        service = server.query_service or _query_service(rest)
        domain = rest.variable("service_discovery_domain") if server.query_service is None else None
        with closing(_flight(service, domain, credentials)) as flight:
            return _fetch(connection, flight, signed, credentials, timeout)


def _feature_group(rest: _Rest, store_path: tuple[str, ...], place: HopsworksRows, view: str) -> Mapping[str, Any]:
    params = {"expand": ["features"], "version": place.version}
    found: Any = rest.get(*store_path, "featuregroups", place.feature_group, params=params)
    groups: list[dict[str, Any]] = cast("list[dict[str, Any]]", found) if isinstance(found, list) else [found]
    if not groups:
        raise _missing(place, view)
    return groups[0]


def _query_service(rest: _Rest) -> str:
    return f"grpc+tls://{rest.variable('loadbalancer_external_domain_feature_query')}:{_FLIGHT_PORT}"


def _flight(service: str, domain: str | None, credentials: Mapping[str, Any]) -> Any:
    """A client of the query service, who knows us by the certificate that the REST API gave."""
    flight: Any = import_module("pyarrow.flight")
    if not service.startswith("grpc+tls://"):
        return flight.FlightClient(service)
    name = {} if domain is None else {"override_hostname": f"flyingduck.service.{domain}"}
    return flight.FlightClient(
        service,
        tls_root_certs=str(credentials["caChain"]).encode(),
        cert_chain=str(credentials["clientCert"]).encode(),
        private_key=str(credentials["clientKey"]).encode(),
        **name,
    )


def _fetch(
    connection: DuckDBPyConnection, flight: Any, signed: Mapping[str, Any], credentials: Mapping[str, Any],
    timeout: timedelta,
) -> str:  # fmt: skip
    module: Any = import_module("pyarrow.flight")
    payload, signature = str(signed["hqsPayload"]), signed.get("hqsPayloadSignature")
    if signature:
        headers = [(b"hopsworks-signature", str(signature).encode("ascii"))]
    else:
        # Servers that sign no queries know who asks by the project's key stores.
        stores = {"kstore": credentials["kStore"], "tstore": credentials["tStore"], "cert_key": credentials["password"]}
        headers = [(b"x-certificates-json", json.dumps(stores).encode())]
    options = module.FlightCallOptions(timeout=timeout.total_seconds(), headers=headers)
    info = flight.get_flight_info(module.FlightDescriptor.for_command(payload.encode("ascii")), options)
    return stage(connection, flight.do_get(info.endpoints[0].ticket, options).to_reader())


class _Rest:
    """The REST API of a Hopsworks server."""

    def __init__(self, http: httpx2.Client) -> None:
        self._http = http

    def get(self, *path: str, params: Mapping[str, Any] | None = None) -> Any:
        """What is at a path."""
        return self._ask("GET", path, params, None)

    def put(self, *path: str, params: Mapping[str, Any], body: object) -> Any:
        """What is answered to a question."""
        return self._ask("PUT", path, params, body)

    def variable(self, name: str) -> str:
        """A setting of the cluster."""
        return str(self.get("variables", name)["successMessage"])

    def _ask(self, method: str, path: tuple[str, ...], params: Mapping[str, Any] | None, body: object) -> Any:
        url = "/hopsworks-api/api/" + "/".join(quote(part, safe="") for part in path)
        answer = self._http.request(method, url, params=cast("Any", params), json=body)
        answer.raise_for_status()
        return answer.json()


@contextmanager
def _rest(server: HopsworksAddress) -> Generator[_Rest]:
    import httpx2

    from fairlead.core.outbound_http import PinnedTransport

    # The operator's own setting names the host, so it may be a private one.
    rules = OutboundRules(setting=_SETTING, hosts=(server.url.partition("://")[2],))
    transport = PinnedTransport(rules.resolve(server.url), verify=httpx2.create_ssl_context())
    headers = {"authorization": f"ApiKey {server.api_key}"}
    with httpx2.Client(base_url=server.url, headers=headers, transport=transport, timeout=_REST_SECONDS) as http:
        yield _Rest(http)


@contextmanager
def _errors(place: HopsworksRows, view: str) -> Generator[None]:
    """What the server or a library says, as errors of ours; their texts hold addresses, so they are not repeated."""
    import httpx2

    flight: Any = import_module("pyarrow.flight")
    try:
        yield
    except FairleadError:
        raise
    except httpx2.HTTPStatusError as error:
        if error.response.status_code in {401, 403}:
            raise _kept_out(place, view) from None
        if error.response.status_code < 500:
            raise _missing(place, view) from None
        raise _away(place, view) from None
    except (flight.FlightUnauthenticatedError, flight.FlightUnauthorizedError):
        raise _kept_out(place, view) from None
    except (
        httpx2.TransportError,
        flight.FlightUnavailableError,
        flight.FlightTimedOutError,
        flight.FlightCancelledError,
    ):
        raise _away(place, view) from None
    except (flight.FlightError, KeyError, TypeError, IndexError, ValueError) as error:
        raise FeatureSourceInvalid(
            f"The query service of Hopsworks cannot read the source of view {view!r} ({type(error).__name__}).",
            hint=f"Read {place.feature_group!r} with the hopsworks client, and correct what it reports.",
            view=view,
        ) from None


def _missing(place: HopsworksRows, view: str) -> FeatureSourceInvalid:
    return FeatureSourceInvalid(
        f"The source of view {view!r} is version {place.version} of the feature group {place.feature_group!r} of the "
        f"project {place.project!r}, and Hopsworks has none.",
        hint="Correct its project, feature_group and version, and take another snapshot.",
        view=view,
    )


def _kept_out(place: HopsworksRows, view: str) -> PermissionDenied:
    return PermissionDenied(
        f"The connection {place.connection!r} may not read the source of view {view!r}.",
        hint=f"Give its API key the scopes project and featurestore, or correct it in {_SETTING}.",
        view=view,
    )


def _away(place: HopsworksRows, view: str) -> Unavailable:
    return Unavailable(
        f"The connection {place.connection!r} of the source of view {view!r} does not answer.",
        hint=f"It is tried again by itself; check the server, and {_SETTING}.",
    )
