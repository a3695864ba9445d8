"""HTTP transports that connect to the checked addresses of one destination, and to nothing else.

A client on one of them needs `trust_env=False` (a proxy would connect for it) and `follow_redirects=False`; a request
to another host is refused all the same.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import httpx2

from fairlead.core.outbound import Destination

_DEFAULT_PORTS = {"http": 80, "https": 443}


class PinnedTransport(httpx2.BaseTransport):
    """For an `httpx2.Client`. TLS verifies the host's own name, whatever address is connected to."""

    def __init__(self, destination: Destination, *, verify: ssl.SSLContext | bool = True) -> None:
        self._destination = destination
        self._inner = httpx2.HTTPTransport(verify=verify, trust_env=False)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request to the first address that takes the connection."""
        failure: httpx2.HTTPError | None = None
        for pinned in _pinned_requests(self._destination, request):
            try:
                return self._inner.handle_request(pinned)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                failure = error
        raise failure or httpx2.ConnectError("no address to connect to", request=request)

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()


class AsyncPinnedTransport(httpx2.AsyncBaseTransport):
    """For an `httpx2.AsyncClient`; otherwise as `PinnedTransport`."""

    def __init__(self, destination: Destination, *, verify: ssl.SSLContext | bool = True) -> None:
        self._destination = destination
        self._inner = httpx2.AsyncHTTPTransport(verify=verify, trust_env=False)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request to the first address that takes the connection."""
        failure: httpx2.HTTPError | None = None
        for pinned in _pinned_requests(self._destination, request):
            try:
                return await self._inner.handle_async_request(pinned)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                failure = error
        raise failure or httpx2.ConnectError("no address to connect to", request=request)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


def _pinned_requests(destination: Destination, request: httpx2.Request) -> Iterator[httpx2.Request]:
    """The request once for each address, still saying whom it is for."""
    url = request.url
    asked = (url.scheme, url.host.lower().rstrip("."), url.port or _DEFAULT_PORTS.get(url.scheme))
    if asked != (destination.scheme, destination.host, destination.port):
        raise httpx2.ConnectError("the request is for another host than the one that was checked", request=request)
    for address in destination.addresses:
        yield httpx2.Request(
            request.method,
            url.copy_with(host=address),
            headers=request.headers,  # the Host header among them
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": destination.host},
        )
