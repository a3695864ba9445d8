"""Where a server's own credentials may go: the clouds' own endpoints, and what its operator adds.

An admin of a workspace says where a location is and whose hand opens it. The hand is the server's: a token of its
machine, keys of its environment. So which hosts it may speak to, and for which audiences a token may be asked of its
machine, is said by whoever runs the server, and not by the record. Checked where a location's settings are parsed, and
again each time that its store is opened.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar, cast
from urllib.parse import urlsplit

from fairlead.core.errors import InvalidInput

_T = TypeVar("_T")

HOSTS_SETTING = "FAIRLEAD_CLOUD_HOSTS"
AUDIENCES_SETTING = "FAIRLEAD_TOKEN_AUDIENCES"

# Not all of a cloud's domain: anybody can have a host below amazonaws.com (an API gateway, a load balancer).
_AWS = r"(amazonaws\.com|amazonaws\.com\.cn|amazonaws\.eu|c2s\.ic\.gov|sc2s\.sgov\.gov)"
_AWS_REGION = r"[a-z]{2,4}(-[a-z]+)+-\d+"
_OF_STORES: Mapping[str, tuple[str, ...]] = {
    "s3": (rf"s3(-fips|-accelerate)?(\.dualstack)?([.-]{_AWS_REGION})?\.{_AWS}",),
    "gs": (r"storage(\.mtls|\.[a-z0-9-]+\.rep)?\.googleapis\.com",),
    "abfs": (
        r"[a-z0-9-]+(\.z\d+)?\.(blob|dfs)\.(core\.(windows\.net|usgovcloudapi\.net|chinacloudapi\.cn)|storage\.azure\.net)",
    ),
}
_OF_TOKENS: Mapping[str, tuple[str, ...]] = {
    "sts_endpoint": (rf"sts(-fips)?(\.{_AWS_REGION})?\.{_AWS}",),
    "token_url": (r"sts(\.mtls|\.[a-z0-9-]+\.rep)?\.googleapis\.com",),
    "impersonation_url": (r"iamcredentials(\.mtls|\.[a-z0-9-]+\.rep)?\.googleapis\.com",),
    "authority": (
        r"login\.microsoftonline\.(com|us)",
        r"login\.(partner\.microsoftonline|chinacloudapi)\.cn",
    ),
    "metadata_host": (r"metadata\.google\.internal", r"169\.254\.169\.254"),
}
_OF_REGISTRIES: Mapping[str, tuple[str, ...]] = {
    "ecr": (rf"\d{{12}}\.dkr\.ecr(-fips)?\.{_AWS_REGION}\.{_AWS}",),
    "artifact-registry": (r"[a-z0-9-]+-docker\.pkg\.dev",),
    "acr": (r"[a-z0-9]+(\.[a-z0-9]+\.data)?\.azurecr\.(io|us|cn)",),
    # Any other registry is one that the operator names.
    "oci": (),
}
_AUDIENCES = (
    r"sts\.amazonaws\.com(\.cn)?",
    r"(https:)?//iam\.googleapis\.com/projects/[0-9]+/locations/global/workloadIdentityPools/[a-z0-9-]+/providers/[a-z0-9-]+",
    r"api://AzureADTokenExchange(USGov|China)?",
)
# Options of the file systems that say how, and neither where to nor as whom, beside those whose hosts are checked.
_OPTIONS: Mapping[str, frozenset[str]] = {
    "s3": frozenset({"anon", "requester_pays", "default_block_size", "version_aware", "max_concurrency"}),
    "gs": frozenset({"token", "project", "access", "requester_pays", "default_location", "timeout"}),
    "abfs": frozenset({"anon", "location_mode", "max_concurrency", "connection_timeout", "read_timeout"}),
}
_OURS = frozenset(
    {"endpoint", "storage_class", "encryption_key", "has_create_only", "rate_limit_bytes_per_second", "identity"}
)
_OF_CLIENT = frozenset({"region_name", "endpoint_url"})
_OF_CONFIG = frozenset(
    {"signature_version", "s3", "retries", "connect_timeout", "read_timeout", "max_pool_connections"}
)
_HOST = re.compile(r"[a-z0-9_.-]+|[0-9a-f:.]+")
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_AWS_REGION_NAME = re.compile(r"[a-z0-9-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudHosts:
    """The hosts and audiences that an operator adds to the clouds' own.

    `*.DOMAIN` stands for every host below a domain.
    """

    hosts: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()

    def check(self, scheme: str, options: Mapping[str, object]) -> None:
        """Refuse options of a store, ours and its file system's, that would send credentials elsewhere.

        Raises:
            InvalidInput: naming the option, and the server's setting that would permit it.
        """
        if scheme not in _OPTIONS:
            return
        for name, value in options.items():
            if name == "identity":
                self._check_identity(value)
            elif name in {"endpoint", "endpoint_url"}:
                self._check_url(name, value, _OF_STORES[scheme])
            elif name == "account_host" and scheme == "abfs":
                self._check_url(name, f"https://{value}", _OF_STORES[scheme])
            elif name == "account_name" and scheme == "abfs":
                # It becomes part of a host's name.
                _match(name, value, _ACCOUNT)
            elif name in {"client_kwargs", "config_kwargs"} and scheme == "s3":
                self._check_amazon(name, value)
            elif name not in _OPTIONS[scheme] | _OURS:
                raise _unknown(name, _OPTIONS[scheme])

    def check_registry(self, provider: str, url: str, identity: Mapping[str, object]) -> None:
        """Refuse a container registry that credentials would be sent to, where they may not go.

        Raises:
            InvalidInput: naming the server's setting that would permit it.
        """
        self._check_url("url", url, _OF_REGISTRIES[provider])
        self._check_identity(identity)

    def allows(self, host: str) -> bool:
        """Whether the operator added a host."""
        return any(host.endswith(each[1:]) if each.startswith("*.") else host == each for each in self.hosts)

    def _check_amazon(self, name: str, value: object) -> None:
        known = _OF_CLIENT if name == "client_kwargs" else _OF_CONFIG
        if not isinstance(value, Mapping):
            raise _unknown(name, known)
        members = cast("Mapping[str, object]", value)
        for member, given in members.items():
            if member not in known:
                raise _unknown(f"{name}.{member}", known)
            if member == "endpoint_url":
                self._check_url(f"{name}.{member}", given, _OF_STORES["s3"])
            if member == "region_name":
                _match(f"{name}.{member}", given, _AWS_REGION_NAME)

    def _check_identity(self, identity: object) -> None:
        if not isinstance(identity, Mapping):
            raise InvalidInput("An identity is an object with a `kind`.", setting="identity")
        for member, value in cast("Mapping[str, object]", identity).items():
            name = f"identity.{member}"
            if member == "metadata_host":
                self._check_url(name, f"http://{value}", _OF_TOKENS[member])
            elif member in _OF_TOKENS:
                self._check_url(name, value, _OF_TOKENS[member])
            elif member == "sts_region":
                _match(name, value, _AWS_REGION_NAME)
            elif member == "token_audience":
                self._check_audience(name, str(value))

    def _check_audience(self, name: str, audience: str) -> None:
        if audience not in self.audiences and not any(re.fullmatch(each, audience) for each in _AUDIENCES):
            raise InvalidInput(
                f"This server asks for no token for the audience {audience[:100]!r} of {name!r}.",
                hint=f"Whoever runs the server can add it to {AUDIENCES_SETTING}.",
                setting=name,
            )

    def _check_url(self, name: str, value: object, own: tuple[str, ...]) -> None:
        host = _host_of(str(value))
        if not host or not (self.allows(host) or any(re.fullmatch(each, host) for each in own)):
            raise InvalidInput(
                f"This server sends no credentials to the host {host[:100]!r} of {name!r}.",
                hint=f"Use an endpoint of the cloud itself; whoever runs the server can add a host to {HOSTS_SETTING}.",
                setting=name,
            )


def guarding(
    open_one: Callable[[str, Mapping[str, object]], _T], allowed: CloudHosts
) -> Callable[[str, Mapping[str, object]], _T]:
    """A way to open a location as `open_one` does, where what it is opened with is checked before."""

    def open_checked(url: str, options: Mapping[str, object]) -> _T:
        allowed.check(url.partition("://")[0], options)
        return open_one(url, options)

    return open_checked


def _host_of(url: str) -> str:
    """The host of a URL that every library takes for the same one; empty where two may not."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".")
    except ValueError:
        return ""
    is_plain = url.isascii() and url.isprintable() and not set(url) & set(" \\@?#")
    return host if is_plain and parts.scheme in {"http", "https"} and _HOST.fullmatch(host) else ""


def _match(name: str, value: object, pattern: re.Pattern[str]) -> None:
    if not pattern.fullmatch(str(value)):
        raise InvalidInput(f"{str(value)[:60]!r} is no {name}.", setting=name)


def _unknown(name: str, known: frozenset[str]) -> InvalidInput:
    return InvalidInput(
        f"A location's file system takes no option {name[:80]!r}.",
        hint=f"Beside addresses it takes: {', '.join(sorted(known))}.",
        setting=name[:80],
    )
