"""Where requests may be sent on somebody's word."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator

import httpx2
import pytest

from fairlead.core.errors import InvalidInput, PermissionDenied, Unavailable
from fairlead.core.outbound import AddressKind, Destination, OutboundRules, address_kind
from fairlead.core.outbound_http import AsyncPinnedTransport, PinnedTransport

PUBLIC_ONLY = OutboundRules(setting="HOSTS")
OPEN = OutboundRules(setting="HOSTS", may_be_private=True, may_be_plain=True)


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("8.8.8.8", AddressKind.PUBLIC),
        ("2606:4700::1111", AddressKind.PUBLIC),
        ("::ffff:8.8.8.8", AddressKind.PUBLIC),
        ("64:ff9b::808:808", AddressKind.PUBLIC),
        ("10.1.2.3", AddressKind.PRIVATE),
        ("172.16.0.1", AddressKind.PRIVATE),
        ("192.168.1.1", AddressKind.PRIVATE),
        ("100.64.0.1", AddressKind.PRIVATE),
        ("198.18.0.1", AddressKind.PRIVATE),
        ("fd12::1", AddressKind.PRIVATE),
        ("fec0::1", AddressKind.PRIVATE),
        ("::ffff:10.0.0.1", AddressKind.PRIVATE),
        ("64:ff9b::a00:1", AddressKind.PRIVATE),
        ("127.0.0.1", AddressKind.LOOPBACK),
        ("127.9.9.9", AddressKind.LOOPBACK),
        ("::1", AddressKind.LOOPBACK),
        ("::ffff:127.0.0.1", AddressKind.LOOPBACK),
        ("64:ff9b::7f00:1", AddressKind.LOOPBACK),
        ("169.254.169.254", AddressKind.FORBIDDEN),
        ("::ffff:169.254.169.254", AddressKind.FORBIDDEN),
        ("64:ff9b::a9fe:a9fe", AddressKind.FORBIDDEN),
        ("fd00:ec2::254", AddressKind.FORBIDDEN),
        ("fd20:ce::254", AddressKind.FORBIDDEN),
        ("100.100.100.200", AddressKind.FORBIDDEN),
        ("168.63.129.16", AddressKind.FORBIDDEN),
        ("192.0.0.192", AddressKind.FORBIDDEN),
        ("fe80::1%eth0", AddressKind.FORBIDDEN),
        ("0.0.0.0", AddressKind.FORBIDDEN),
        ("0.1.2.3", AddressKind.FORBIDDEN),
        ("::", AddressKind.FORBIDDEN),
        ("::127.0.0.1", AddressKind.FORBIDDEN),
        ("224.0.0.1", AddressKind.FORBIDDEN),
        ("ff02::1", AddressKind.FORBIDDEN),
        ("240.0.0.1", AddressKind.FORBIDDEN),
        ("255.255.255.255", AddressKind.FORBIDDEN),
        ("2002:7f00:1::", AddressKind.FORBIDDEN),
        ("2001:0:7f00:1::", AddressKind.FORBIDDEN),
    ],
)
def test_an_address_is_of_the_kind_of_what_it_leads_to(address: str, kind: AddressKind) -> None:
    assert address_kind(address) is kind


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/",
        "https://",
        "https://user:password@example.org/",
        "https://example.org/#part",
        "https://example.org/a b",
        "https://example.org\\@evil.example/",
        "https://example.org:99999/",
        "https://example.org:0/",
        "https://exa mple.org/",
        "https://exämple.org/",
        "https://[::1/",
        "https://example.org/" + "x" * 2000,
        "example.org",
        "",
    ],
)
def test_what_is_no_plain_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="no address"):
        OPEN.check(url)


def test_an_unlisted_host_is_spoken_to_encrypted_only() -> None:
    assert PUBLIC_ONLY.check("https://example.org/hook?x=1").hostname == "example.org"
    with pytest.raises(InvalidInput, match="not encrypted"):
        PUBLIC_ONLY.check("http://example.org/hook")
    assert OPEN.check("http://example.org/hook").scheme == "http"


def test_a_list_admits_what_it_names_and_nothing_else() -> None:
    rules = OutboundRules(setting="HOSTS", hosts=("hooks.example.org", "*.corp.example", "127.0.0.1:8080", "[::1]:81"))
    for url in (
        "https://hooks.example.org/",
        "https://HOOKS.example.org./",
        "http://hooks.example.org:99/",
        "https://a.b.corp.example/",
        "http://127.0.0.1:8080/",
        "http://[::1]:81/",
    ):
        rules.check(url)
    for url in (
        "https://example.org/",
        "https://corp.example/",
        "https://evilcorp.example/",
        "https://hooks.example.org.evil.example/",
        "http://127.0.0.1:8081/",
        "http://[::1]:82/",
    ):
        with pytest.raises(InvalidInput, match="adds it to HOSTS"):
            rules.check(url)


def test_a_star_admits_any_public_host_beside_the_listed_ones() -> None:
    rules = OutboundRules(setting="HOSTS", hosts=("*", "localhost"))
    rules.check("https://example.org/")
    assert rules.resolve("http://localhost:80/").addresses
    with pytest.raises(InvalidInput, match="not encrypted"):
        rules.check("http://example.org/")
    with pytest.raises(PermissionDenied):
        rules.resolve("https://127.0.0.1/")


@pytest.mark.parametrize("entry", ["", "a b", "https://example.org", "user@example.org", "example.org/path", "x:y"])
def test_a_list_holds_hosts_only(entry: str) -> None:
    with pytest.raises(InvalidInput, match="no host"):
        OutboundRules(setting="HOSTS", hosts=(entry,))


def test_loopback_is_reached_only_where_it_is_listed_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PermissionDenied):
        PUBLIC_ONLY.resolve("https://127.0.0.1/")
    listed = OutboundRules(setting="HOSTS", hosts=("127.0.0.1", "hooks.example.org"))
    assert listed.resolve("http://127.0.0.1:8080/x") == Destination(
        scheme="http", host="127.0.0.1", port=8080, addresses=("127.0.0.1",)
    )
    _answer(monkeypatch, "127.0.0.1")
    with pytest.raises(PermissionDenied):
        listed.resolve("https://hooks.example.org/")
    # Other ways to write it.
    for host in ("[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "127.1"):
        with pytest.raises(PermissionDenied):
            PUBLIC_ONLY.resolve(f"https://{host}/")


def test_every_address_of_a_host_has_to_be_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    _answer(monkeypatch, "8.8.8.8", "8.8.4.4")
    assert PUBLIC_ONLY.resolve("https://example.org/").addresses == ("8.8.8.8", "8.8.4.4")
    _answer(monkeypatch, "8.8.8.8", "10.0.0.1")
    with pytest.raises(PermissionDenied):
        PUBLIC_ONLY.resolve("https://example.org/")
    listed = OutboundRules(setting="HOSTS", hosts=("example.org",))
    assert listed.resolve("https://example.org/").addresses == ("8.8.8.8", "10.0.0.1")
    assert OPEN.resolve("http://example.org/").port == 80


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "0.0.0.0", "fd00:ec2::254"]
)
def test_metadata_and_link_local_addresses_are_reached_by_no_rule(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    _answer(monkeypatch, address)
    for rules in (PUBLIC_ONLY, OPEN, OutboundRules(setting="HOSTS", hosts=("example.org",))):
        with pytest.raises(PermissionDenied):
            rules.resolve("https://example.org/")


def test_a_host_that_is_not_found_may_be_found_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(Unavailable):
        PUBLIC_ONLY.resolve("https://example.org/")


class _Echo(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = (self.headers["Host"] + self.path).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  (silence)
        pass


@pytest.fixture(scope="module")
def echo_port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def _pinned(port: int, *addresses: str) -> Destination:
    return Destination(scheme="http", host="hooks.example.org", port=port, addresses=addresses)


def test_a_connection_goes_to_the_address_that_was_checked_and_names_the_host(echo_port: int) -> None:
    # No look-up happens: the host's name stands for nothing in tests. Nothing listens at the first address.
    with httpx2.Client(transport=PinnedTransport(_pinned(echo_port, "127.0.0.2", "127.0.0.1"))) as client:
        answer = client.get(f"http://hooks.example.org:{echo_port}/path?x=1")
        assert answer.text == f"hooks.example.org:{echo_port}/path?x=1"
        for elsewhere in (f"http://127.0.0.1:{echo_port}/", f"http://hooks.example.org:{echo_port + 1}/"):
            with pytest.raises(httpx2.ConnectError, match="another host"):
                client.get(elsewhere)


@pytest.mark.anyio
async def test_an_asynchronous_connection_is_pinned_too(echo_port: int) -> None:
    transport = AsyncPinnedTransport(_pinned(echo_port, "127.0.0.1"))
    async with httpx2.AsyncClient(transport=transport) as client:
        answer = await client.get(f"http://hooks.example.org:{echo_port}/")
        assert answer.text == f"hooks.example.org:{echo_port}/"
        with pytest.raises(httpx2.ConnectError, match="another host"):
            await client.get(f"http://127.0.0.1:{echo_port}/")


def _answer(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    def look_up(_host: str, port: int, **_: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
