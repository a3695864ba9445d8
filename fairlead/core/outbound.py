"""Where the server may send requests on somebody's word: which hosts, and what addresses those may stand for.

A caller names a host, and a name may stand for anything: a machine of the server's own network, a cloud's metadata
service, another answer at every look-up. So three things hold for every such request. The host is one that the operator
lets callers name. Every address that it resolves to is of a kind that it may be. And the connection goes to an address
that was checked, not to one that the name stands for a moment later: `Destination` carries them, and the transports of
`core/outbound_http.py` connect to nothing else.

An operator's list holds `HOST`, `HOST:PORT`, `*.DOMAIN`, or `*` for any host with public addresses. What is listed by
name may be private and speak plain http; loopback has to be listed as `localhost` or as its address. Nothing opens
link-local and metadata addresses.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import SplitResult, urlsplit

from fairlead.core.errors import InvalidInput, PermissionDenied, Unavailable

URL_MAX_LENGTH = 2_000
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]{0,251}[a-z0-9])?\.?")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "169.254.169.254")
)
_NEVER = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "192.0.0.0/24",
        "240.0.0.0/4",
        # An IPv4 address hides in each of these; nobody needs them to reach it.
        "2001::/32",
        "2002::/16",
        "64:ff9b:1::/48",
    )
)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class AddressKind(StrEnum):
    """What an address leads to, as far as a request from this machine is concerned."""

    PUBLIC = "public"
    PRIVATE = "private"
    LOOPBACK = "loopback"
    FORBIDDEN = "forbidden"


def address_kind(text: str) -> AddressKind:
    """What kind an address in text form is; an IPv4 address inside an IPv6 one counts as itself.

    Raises:
        ValueError: if it is no address.
    """
    address: Address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        elif address in _NAT64:
            address = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address.is_loopback:
        return AddressKind.LOOPBACK
    is_hidden = isinstance(address, ipaddress.IPv6Address) and address.is_reserved
    is_special = address.is_link_local or address.is_multicast or address.is_unspecified or is_hidden
    if is_special or address in _METADATA or any(address in network for network in _NEVER):
        return AddressKind.FORBIDDEN
    is_site_local = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    return AddressKind.PUBLIC if address.is_global and not is_site_local else AddressKind.PRIVATE


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """A host and port, with the addresses that were checked and may be connected to."""

    scheme: str
    host: str
    port: int
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundRules:
    """Which hosts may be named. `hosts` None: any; then unlisted hosts may be what the two claims say.

    `setting` is the variable that an error's hint names.
    """

    setting: str
    hosts: tuple[str, ...] | None = None
    may_be_private: bool = False
    may_be_plain: bool = False

    def __post_init__(self) -> None:
        for entry in self.hosts or ():
            _parse_entry(entry, self.setting)

    def check(self, url: str) -> SplitResult:
        """Check an address as it is written, without asking what its host stands for.

        Raises:
            InvalidInput: if it is no http(s) address, holds credentials or a fragment, or may not be named.
        """
        parts = _parse_url(url)
        host, port = _host_of(parts), _port_of(parts)
        listed = self._listed(host, port)
        if listed is None and self.hosts is not None and "*" not in self.hosts:
            raise InvalidInput(
                f"The host {host!r} is not one that this server may send requests to.",
                hint=f"Whoever runs the server adds it to {self.setting}.",
            )
        if parts.scheme == "http" and listed is None and not (self.hosts is None and self.may_be_plain):
            raise InvalidInput(
                f"{url[:120]!r} is not encrypted.",
                hint=f"Use https, or let whoever runs the server list the host in {self.setting}.",
            )
        return parts

    def require_listed(self, url: str) -> None:
        """Refuse to send credentials of this process to a host that its operator does not list by name.

        Every workspace's admins may name credentials and hosts, so that they named both is not reason enough; `*` is
        none either.

        Raises:
            InvalidInput: as `check` does.
            PermissionDenied: if the host is not listed by name.
        """
        parts = self.check(url)
        if self._listed(_host_of(parts), _port_of(parts)) is None:
            raise PermissionDenied(
                f"Credentials are sent to no host that {self.setting} does not list by name.",
                hint=f"Whoever runs the server adds the host to {self.setting}.",
            )

    def resolve(self, url: str) -> Destination:
        """Look up an address's host, and check what it stands for. Takes as long as the look-up.

        Raises:
            InvalidInput: as `check` does.
            PermissionDenied: if any of its addresses is one that it may not be.
            Unavailable: if it is not found.
        """
        parts = self.check(url)
        host, port = _host_of(parts), _port_of(parts)
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise Unavailable(f"The host {host!r} is not found.", hint="It is tried again.") from None
        addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
        allowed = self._allowed_kinds(host, port)
        if not addresses or any(address_kind(address) not in allowed for address in addresses):
            raise PermissionDenied(
                f"The host {host!r} stands for an address that nothing is sent to.",
                hint=f"Name a public host, or let whoever runs the server list it in {self.setting}.",
            )
        return Destination(scheme=parts.scheme, host=host, port=port, addresses=addresses)

    async def resolve_async(self, url: str) -> Destination:
        """As `resolve`, without holding up the event loop."""
        return await asyncio.to_thread(self.resolve, url)

    def _listed(self, host: str, port: int) -> str | None:
        for entry in self.hosts or ():
            if entry == "*":
                continue
            name, wanted_port = _parse_entry(entry, self.setting)
            is_below = name.startswith("*.") and host.endswith(name[1:])
            if (host == name or is_below) and wanted_port in {None, port}:
                return entry
        return None

    def _allowed_kinds(self, host: str, port: int) -> frozenset[AddressKind]:
        listed = self._listed(host, port)
        if listed is None:
            is_open = self.hosts is None and self.may_be_private
            return frozenset(set(AddressKind) - {AddressKind.FORBIDDEN}) if is_open else frozenset({AddressKind.PUBLIC})
        kinds = {AddressKind.PUBLIC, AddressKind.PRIVATE}
        return frozenset(kinds | {AddressKind.LOOPBACK}) if _is_loopback_name(host) else frozenset(kinds)


def _parse_url(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise _no_address(url) from None
    is_whole = (
        len(url) <= URL_MAX_LENGTH
        and all("!" <= character <= "~" and character != "\\" for character in url)
        and parts.scheme in _DEFAULT_PORTS
        and "@" not in parts.netloc
        and "#" not in url
        and port != 0
        and (":" in host or _HOST.fullmatch(host.lower()) is not None)
    )
    if not is_whole:
        raise _no_address(url)
    return parts


def _no_address(url: str) -> InvalidInput:
    return InvalidInput(
        f"{url[:120]!r} is no address that a request could be sent to.",
        hint="Write https://HOST[:PORT][/PATH], without credentials or a fragment.",
    )


def _host_of(parts: SplitResult) -> str:
    return (parts.hostname or "").lower().rstrip(".")


def _port_of(parts: SplitResult) -> int:
    return parts.port or _DEFAULT_PORTS[parts.scheme]


def _parse_entry(entry: str, setting: str) -> tuple[str, int | None]:
    try:
        parts = urlsplit("//" + entry)
        name, port, netloc = (parts.hostname or "").rstrip("."), parts.port, parts.netloc
    except ValueError:
        name, port, netloc = "", None, ""
    plain = name.removeprefix("*.")
    is_named = plain == "*" or ":" in plain or _HOST.fullmatch(plain) is not None
    if not is_named or netloc != entry or "@" in entry:
        raise InvalidInput(
            f"{setting} holds {entry[:80]!r}, which is no host.", hint="Write HOST, HOST:PORT or *.DOMAIN."
        )
    return name, port


def _is_loopback_name(host: str) -> bool:
    try:
        return host == "localhost" or address_kind(host) is AddressKind.LOOPBACK
    except ValueError:
        return False
