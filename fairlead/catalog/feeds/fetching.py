"""Requests to one source of figures: to its checked addresses alone, without redirects, and with bounded answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from fairlead.core.errors import FairleadError, FeedUnavailable
from fairlead.core.outbound import OutboundRules

if TYPE_CHECKING:
    import ssl

    import httpx2

SETTING = "FAIRLEAD_CATALOG_ENDPOINTS"
ANSWER_MAX_BYTES = 32 * 2**20
LISTING_MAX_BYTES = 2 * 2**30
LINE_MAX_BYTES = 2**20
_TIMEOUT_SECONDS = 30.0
_OK, _UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _TOO_MANY = 200, 401, 403, 404, 429
Answer = TypeVar("Answer")


@cache
def _tls() -> ssl.SSLContext:
    """What checks the sources' certificates; made once, because that takes some tens of milliseconds."""
    import httpx2

    return httpx2.create_ssl_context(trust_env=False)


class NotCovered(FairleadError):
    """The source answers, and has nothing for what was asked (or nothing for these credentials)."""


class Source:
    """One source of figures, at one address. `headers` may hold credentials; they are sent there and nowhere else."""

    def __init__(self, name: str, url: str, *, headers: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.url = url.rstrip("/")
        self._headers = dict(headers or {})
        parts = urlsplit(url)
        # Whoever runs the server names the address, so it may be a mirror inside; still no metadata service.
        self._rules = OutboundRules(setting=SETTING, hosts=(parts.netloc,))

    def get(self, path: str, parameters: Mapping[str, str] | None = None, **headers: str) -> Any:
        """The JSON that the source answers to a GET; `path` may be a whole address of the same origin.

        Raises:
            NotCovered: if it has nothing for what was asked, or nothing for these credentials.
            FeedUnavailable: if it does not answer, refuses all, or answers no JSON.
        """
        with self._request(path, parameters, headers) as response:
            body = bytearray()
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > ANSWER_MAX_BYTES:
                    raise self.unavailable("its answer is longer than any that is read")
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise self.unavailable("it answers no JSON") from None

    @contextmanager
    def lines(self, path: str) -> Generator[Iterator[str]]:
        """The lines of a long listing as they come, however long it is.

        Raises:
            NotCovered, FeedUnavailable: as `get` does, also while the lines are read.
        """
        with self._request(path, None, {}) as response:
            yield self._bounded(response)

    def parse(self, what: str, read: Callable[[], Answer]) -> Answer:
        """What a reader makes of an answer.

        Raises:
            FeedUnavailable: if the answer has another shape than the source documents.
        """
        try:
            return read()
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
            raise self.unavailable(f"{what} has another shape than it documents ({type(error).__name__})") from None

    def unavailable(self, why: str) -> FeedUnavailable:
        """The error that says why this source brought nothing."""
        return FeedUnavailable(
            f"The feed {self.name!r} brought nothing: {why}.",
            hint="The figures of the last time hold; see fairlead catalog feeds.",
            feed=self.name,
        )

    def _bounded(self, response: httpx2.Response) -> Iterator[str]:
        length, rest = 0, b""
        with self._failures():
            for chunk in response.iter_bytes():
                length += len(chunk)
                *lines, rest = (rest + chunk).split(b"\n")
                if length > LISTING_MAX_BYTES or len(rest) > LINE_MAX_BYTES:
                    raise self.unavailable("its listing is longer than any that is read")
                for line in lines:
                    yield line.decode("utf-8", "replace").rstrip("\r")
            if rest:
                yield rest.decode("utf-8", "replace")

    @contextmanager
    def _request(
        self, path: str, parameters: Mapping[str, str] | None, headers: Mapping[str, str]
    ) -> Generator[httpx2.Response]:
        import httpx2

        from fairlead.core.outbound_http import PinnedTransport

        url = path if path.startswith(("https://", "http://")) else f"{self.url}/{path.lstrip('/')}"
        with (
            self._failures(),
            httpx2.Client(
                transport=PinnedTransport(self._rules.resolve(url), verify=_tls()),
                timeout=_TIMEOUT_SECONDS,
                trust_env=False,
                follow_redirects=False,
            ) as client,
            client.stream("GET", url, params=parameters, headers={**self._headers, **headers}) as response,
        ):
            if response.status_code in {_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND}:
                raise NotCovered(f"{self.name} answers {response.status_code}")
            if response.status_code == _TOO_MANY:
                raise self.unavailable("it has had too many requests of late")
            if response.status_code != _OK:
                raise self.unavailable(f"it answers {response.status_code}")
            yield response

    @contextmanager
    def _failures(self) -> Generator[None]:
        import httpx2

        try:
            yield
        except FeedUnavailable:
            raise
        except NotCovered:
            raise
        except FairleadError as error:
            raise self.unavailable(error.detail.rstrip(".")) from None
        except httpx2.HTTPError as error:
            # What the library says may hold the address with its query; its kind is enough.
            raise self.unavailable(f"it does not answer ({type(error).__name__})") from None
