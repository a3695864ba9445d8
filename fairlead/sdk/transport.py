"""HTTP to the server: authentication, retries, and errors that become the same classes again."""

from __future__ import annotations

import ipaddress
import uuid
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from fairlead.core.errors import FairleadError, JsonValue, ServerUnavailable
from fairlead.core.problems import from_problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import httpx2

JsonObject = dict[str, JsonValue]
_SAFE_TO_REPEAT = frozenset({"GET", "PUT", "DELETE"})
_OVERLOADED = frozenset({429, 502, 503, 504})


class Transport:
    """One connection pool to one server.

    Every creating call carries an idempotency key, so a repeat after a lost answer creates nothing twice.
    """

    def __init__(self, url: str, token: str | None, *, timeout_seconds: float) -> None:
        import httpx2  # noqa: PLC0415  (a tenth of a second that `import fairlead` need not pay)

        self.url = url
        self._http = httpx2.Client(
            base_url=url,
            headers={"authorization": f"Bearer {token}"} if token else {},
            timeout=timeout_seconds,
            # A proxy from the environment is for other machines.
            trust_env=not _is_loopback(url),
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str, **query: JsonValue) -> JsonObject:
        """GET a JSON object."""
        return self.request("GET", path, query=query)

    def post(
        self, path: str, body: Mapping[str, JsonValue] | None = None, *, if_match: int | None = None
    ) -> JsonObject:
        """POST a JSON object and read one back."""
        return self.request("POST", path, body=dict(body or {}), if_match=if_match)

    def items(self, path: str, **query: JsonValue) -> Iterator[JsonObject]:
        """Every item of a paged list, page by page."""
        token: JsonValue = None
        while True:
            page = self.get(path, **query, page_token=token)
            yield from cast("list[JsonObject]", page["items"])
            token = page.get("next_page_token")
            if token is None:
                return

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, JsonValue] | None = None,
        body: JsonObject | None = None,
        if_match: int | None = None,
    ) -> JsonObject:
        """One call with a JSON body; the answer's JSON object (empty for an empty answer).

        Raises:
            FairleadError: the class that the server raised.
            ServerUnavailable: if it does not answer.
        """
        response = self.send(method, path, query=query, json=body, if_match=if_match)
        if not response.content:
            return {}
        answer = response.json()
        etag = response.headers.get("etag", "").strip('"')
        if etag.isdigit() and isinstance(answer, dict):
            answer.setdefault("revision", int(etag))
        return answer

    def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, JsonValue] | None = None,
        json: JsonObject | None = None,
        content: bytes | None = None,
        content_type: str | None = None,
        if_match: int | None = None,
    ) -> httpx2.Response:
        """One call, repeated while the server is away or overloaded and the repeat is harmless."""
        import httpx2  # noqa: PLC0415
        import stamina  # noqa: PLC0415

        headers: dict[str, str] = {}
        if content_type is not None:
            headers["content-type"] = content_type
        if if_match is not None:
            headers["if-match"] = f'"{if_match}"'
        if method == "POST":
            headers["idempotency-key"] = str(uuid.uuid4())
        may_repeat = if_match is None and (method in _SAFE_TO_REPEAT or method == "POST")

        def is_worth_repeating(error: Exception) -> bool:
            if isinstance(error, httpx2.ConnectError):
                return True
            is_overload = isinstance(error, FairleadError) and error.status in _OVERLOADED
            return may_repeat and (isinstance(error, httpx2.TransportError) or is_overload)

        try:
            for attempt in stamina.retry_context(on=is_worth_repeating, attempts=4, wait_initial=0.1, timeout=20):
                with attempt:
                    response = self._http.request(
                        method, path, params=_query(query), json=json, content=content, headers=headers
                    )
                    _raise_problem(response)
                    return response
        except httpx2.TransportError as error:
            raise ServerUnavailable(
                f"The Fairlead server at {self.url} does not answer ({type(error).__name__}).",
                hint="Check FAIRLEAD_URL, or unset it to use the embedded server.",
            ) from error
        raise AssertionError("unreachable")  # noqa: EM101  (retry_context returns or raises)


def _raise_problem(response: httpx2.Response) -> None:
    if response.status_code < 400:  # noqa: PLR2004
        return
    try:
        problem: object = response.json()
    except ValueError:
        problem = None
    raise from_problem(problem, status=response.status_code)


def _query(query: Mapping[str, JsonValue] | None) -> dict[str, str | list[str]]:
    named: dict[str, str | list[str]] = {}
    for key, value in (query or {}).items():
        if isinstance(value, list):
            named[key] = [str(item) for item in value]
        elif value is not None:
            named[key] = str(value).lower() if isinstance(value, bool) else str(value)
    return named


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
