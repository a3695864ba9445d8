"""HTTP to the server: authentication, retries, and errors that become the same classes again."""

from __future__ import annotations

import copy
import json
import secrets
import ssl
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self, cast

from fairlead.core.errors import InvalidInput, JsonValue, ServerUnavailable, Unavailable
from fairlead.core.loopback import is_loopback
from fairlead.core.problems import MEDIA_TYPE, from_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping
    from pathlib import Path

    import httpx2

JsonObject = dict[str, JsonValue]
_ATTEMPTS = 4
_PATIENCE_SECONDS = 20.0
_PREPARING_SECONDS = 900.0
_UNAUTHENTICATED = 401
_OVERLOADED = frozenset({429, 502, 503, 504})


class Transport:
    """One connection pool to one server.

    A call is repeated where the repeat is harmless: always when it cannot have reached the server, and after a lost
    answer or an overloaded server when it reads, replaces, deletes, or creates under an idempotency key. A move under
    `If-Match` or a decision is never repeated after that: the second try would meet what the first one did, and look
    refused.
    """

    def __init__(
        self, url: str, token: str | None, *, timeout_seconds: float, renew: Callable[[], str] | None = None
    ) -> None:
        """`renew` gives another token where the server knows this one no longer."""
        import httpx2

        self.url = url
        self._renew = renew
        # Reading the authorities takes longer than a call, and plain HTTP asks none: no redirect is followed either.
        trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if url.startswith("http://") else True
        self.is_dry_run = False
        self._http = httpx2.Client(
            base_url=url,
            headers={"authorization": f"Bearer {token}"} if token else {},
            timeout=timeout_seconds,
            verify=trust,
            # A proxy from the environment is for other machines.
            trust_env=not is_loopback(url),
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @property
    def authorization(self) -> str | None:
        """The header that says who is calling, for whoever speaks to the same server another way."""
        return self._http.headers.get("authorization")

    def renew_token(self) -> bool:
        """Get another token, where the server knows this one no longer; False if there is no way to."""
        if self._renew is None:
            return False
        self._http.headers["authorization"] = f"Bearer {self._renew()}"
        return True

    def dry_run(self) -> Self:
        """The same connections, on which nothing that is asked for is kept."""
        rehearsal = copy.copy(self)
        rehearsal.is_dry_run = True
        return rehearsal

    def get(self, path: str, **query: JsonValue) -> JsonObject:
        """GET a JSON object."""
        return self.request("GET", path, query=query)

    def post(
        self,
        path: str,
        body: Mapping[str, JsonValue] | None = None,
        *,
        if_match: int | None = None,
        is_repeatable: bool = True,
        silence_seconds: float | None = None,
    ) -> JsonObject:
        """POST a JSON object and read one back."""
        return self.request(
            "POST",
            path,
            body=dict(body or {}),
            if_match=if_match,
            is_repeatable=is_repeatable,
            silence_seconds=silence_seconds,
        )

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
        is_repeatable: bool = True,
        silence_seconds: float | None = None,
    ) -> JsonObject:
        """One call with a JSON body; the answer's JSON object (empty for an empty answer).

        An `ETag` becomes the member `revision`, unless the answer has one.

        Raises:
            FairleadError: the class that the server raised.
            InvalidInput: if the body has no JSON form.
            ServerUnavailable: if it does not answer, or what answers is no Fairlead server.
        """
        content = None if body is None else _encode(body)
        content_type = None if body is None else "application/json"
        response = self.send(
            method,
            path,
            query=query,
            content=content,
            content_type=content_type,
            if_match=if_match,
            is_repeatable=is_repeatable,
            silence_seconds=silence_seconds,
        )
        if not response.content:
            return {}
        answer = _decode(response)
        if not isinstance(answer, dict):
            raise ServerUnavailable(
                f"What answers at {self.url} is no Fairlead server.", hint="Check FAIRLEAD_URL, or unset it."
            )
        members = cast("JsonObject", answer)
        etag = response.headers.get("etag", "").strip('"')
        if etag.isdecimal():
            members.setdefault("revision", int(etag))
        return members

    def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, JsonValue] | None = None,
        content: bytes | None = None,
        content_type: str | None = None,
        if_match: int | None = None,
        is_repeatable: bool = True,
        silence_seconds: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """One call, repeated while the server is away or overloaded and the repeat is harmless.

        `is_repeatable=False` says that it is not, once it may have reached the server; `if_match` says so too.
        `silence_seconds` is how long the server may think about it, where that is longer than usual.

        Raises:
            FairleadError: the class that the server raised.
            ServerUnavailable: if it does not answer.
        """
        import httpx2
        import stamina

        sent: dict[str, str] = {**(headers or {}), **({"fairlead-dry-run": "true"} if self.is_dry_run else {})}
        if content_type is not None:
            sent["content-type"] = content_type
        if if_match is not None:
            sent["if-match"] = f'"{if_match}"'
        if method == "POST":
            # One key for all tries: whatever a lost answer created is found again, not created twice.
            sent["idempotency-key"] = str(uuid.uuid4())
        may_repeat = is_repeatable and if_match is None

        def is_worth_repeating(error: Exception) -> bool:
            if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
                return True
            return may_repeat and (isinstance(error, httpx2.TransportError) or _is_overload(error))

        timeout = httpx2.USE_CLIENT_DEFAULT if silence_seconds is None else silence_seconds

        def call() -> httpx2.Response:
            return self._http.request(
                method, path, params=_query(query), content=content, headers=sent, timeout=timeout
            )

        tries = stamina.retry_context(
            on=is_worth_repeating, attempts=_ATTEMPTS, wait_initial=0.1, wait_jitter=0.1, timeout=_PATIENCE_SECONDS
        )
        try:
            for attempt in tries:
                with attempt:
                    response = call()
                    if response.status_code == _UNAUTHENTICATED and self.renew_token():
                        # Whoever is not known did nothing, so any call may be repeated.
                        response = call()
                    _raise_problem(response)
                    return response
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise self._no_answer(error, "Check FAIRLEAD_URL, or unset it to use the embedded server.") from error
        except httpx2.RequestError as error:
            hint = "Repeat the command." if may_repeat else "It may have been done: look before you repeat it."
            raise self._no_answer(error, hint) from error
        raise AssertionError("unreachable")

    @contextmanager
    def stream(
        self, path: str, *, query: Mapping[str, JsonValue], headers: Mapping[str, str], silence_seconds: float
    ) -> Generator[Iterator[str]]:
        """The lines of an answer that goes on, while the block runs. Nothing is repeated.

        Raises:
            FairleadError: the class that the server raised.
            httpx2.TransportError: if the connection is lost, or silent for too long.
        """
        with self._http.stream(
            "GET", path, params=_query(query), headers=dict(headers), timeout=silence_seconds
        ) as response:
            if response.status_code >= 400:
                response.read()
            _raise_problem(response)
            yield response.iter_lines()

    def download(self, path: str, destination: Path, *, query: Mapping[str, JsonValue]) -> Mapping[str, str]:
        """Write an answer's body to a file, which appears whole or not at all; the answer's headers.

        Raises:
            FairleadError: the class that the server raised.
            ServerUnavailable: if it does not answer, or not to the end.
        """
        import httpx2

        temporary = destination.with_name(f".{destination.name}.{secrets.token_hex(6)}.partial")
        try:
            with self._http.stream("GET", path, params=_query(query), timeout=_PREPARING_SECONDS) as response:
                if response.status_code >= 400:
                    response.read()
                _raise_problem(response)
                with temporary.open("xb") as file:
                    for chunk in response.iter_bytes():
                        file.write(chunk)
            temporary.replace(destination)
        except httpx2.TransportError as error:
            raise self._no_answer(error, "Repeat the command.") from error
        finally:
            temporary.unlink(missing_ok=True)
        return response.headers

    def _no_answer(self, error: Exception, hint: str) -> ServerUnavailable:
        return ServerUnavailable(
            f"The Fairlead server at {self.url} does not answer ({type(error).__name__}).", hint=hint
        )


def _encode(body: JsonObject) -> bytes:
    try:
        return json.dumps(body, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"The request has no JSON form: {error}.") from error


def _decode(response: httpx2.Response) -> object:
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None


def _raise_problem(response: httpx2.Response) -> None:
    # By its type too: a partial success is a problem with status 207.
    if response.status_code >= 400 or response.headers.get("content-type", "").startswith(MEDIA_TYPE):
        raise from_problem(_decode(response), status=response.status_code)


def _is_overload(error: Exception) -> bool:
    if isinstance(error, ServerUnavailable) and "http_status" in error.attributes:
        return error.attributes["http_status"] in _OVERLOADED
    # By class, not by status: a 502 that says `corrupt-pack` stays one.
    return isinstance(error, Unavailable)


def _query(query: Mapping[str, JsonValue] | None) -> dict[str, str | list[str]]:
    named: dict[str, str | list[str]] = {}
    for key, value in (query or {}).items():
        if isinstance(value, list):
            named[key] = [str(item) for item in value]
        elif value is not None:
            named[key] = str(value).lower() if isinstance(value, bool) else str(value)
    return named
