"""The server's own credentials go to the clouds, and to hosts that its operator names."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from fairlead.core.cloud_hosts import CloudHosts, guarding
from fairlead.core.errors import InvalidInput
from fairlead.core.ports import ObjectStore
from fairlead.testing.objects import MemoryStore

POOL = "//iam.googleapis.com/projects/12/locations/global/workloadIdentityPools/pool/providers/aws"


def identity(**members: str) -> dict[str, object]:
    return {"identity": {"kind": "workload", **members}}


OWN: list[tuple[str, Mapping[str, object]]] = [
    ("file", {"anything": "goes"}),
    ("s3", {}),
    ("s3", {"endpoint": "https://s3.eu-west-1.amazonaws.com"}),
    ("s3", {"endpoint_url": "https://s3-us-west-2.amazonaws.com", "client_kwargs": {"region_name": "us-west-2"}}),
    ("s3", {"endpoint": "https://s3.dualstack.us-gov-west-1.amazonaws.com"}),
    ("s3", identity(sts_endpoint="https://sts.cn-north-1.amazonaws.com.cn", sts_region="cn-north-1")),
    ("s3", identity(sts_endpoint="https://sts.eusc-de-east-1.amazonaws.eu", token_audience="sts.amazonaws.com")),
    ("gs", {"endpoint": "https://storage.europe-west3.rep.googleapis.com", "token": "google_default"}),
    ("gs", identity(token_url="https://sts.googleapis.com/v1/token", token_audience=POOL)),
    ("gs", identity(metadata_host="169.254.169.254")),
    ("abfs", {"endpoint": "https://acme.blob.core.windows.net", "account_name": "acme"}),
    ("abfs", {"account_host": "acme.blob.core.chinacloudapi.cn"}),
    ("abfs", identity(authority="https://login.microsoftonline.us", token_audience="api://AzureADTokenExchange")),
]

ELSEWHERE: list[tuple[str, Mapping[str, object], str]] = [
    ("s3", {"endpoint": "https://minio.example.com"}, "endpoint"),
    ("s3", {"endpoint": "http://127.0.0.1:9000"}, "endpoint"),
    ("s3", {"endpoint": "https://evil.s3.amazonaws.com.example.com"}, "endpoint"),
    ("s3", {"endpoint": "https://evil.com\\.s3.amazonaws.com"}, "endpoint"),
    ("s3", {"endpoint": "https://s3.amazonaws.com@evil.com"}, "endpoint"),
    ("s3", {"endpoint": "s3.amazonaws.com"}, "endpoint"),
    ("s3", {"client_kwargs": {"endpoint_url": "https://evil.com"}}, "endpoint_url"),
    ("s3", {"client_kwargs": {"verify": False}}, "verify"),
    ("s3", {"client_kwargs": {"region_name": "x.evil.com/"}}, "region_name"),
    ("s3", {"config_kwargs": {"proxies": {"https": "http://evil.com"}}}, "proxies"),
    ("s3", {"session": "x"}, "session"),
    # Anybody can have these.
    ("s3", identity(sts_endpoint="https://abc123.execute-api.us-east-1.amazonaws.com"), "sts_endpoint"),
    ("s3", identity(sts_endpoint="https://sts.abc.elb.us-east-1.amazonaws.com"), "sts_endpoint"),
    ("s3", identity(sts_region="us-east-1.evil.com/"), "sts_region"),
    ("gs", {"endpoint": "https://gcs.example.com"}, "endpoint"),
    ("gs", {"endpoint_url": "https://gcs.example.com"}, "endpoint_url"),
    ("gs", {"session_kwargs": {}}, "session_kwargs"),
    ("gs", identity(token_url="https://chat.googleapis.com/v1/spaces/x/messages"), "token_url"),
    ("gs", identity(impersonation_url="https://evil.com/x"), "impersonation_url"),
    ("gs", identity(metadata_host="evil.com"), "metadata_host"),
    ("abfs", {"endpoint": "https://evil.com/acme"}, "endpoint"),
    ("abfs", {"account_name": "evil.com/?"}, "account_name"),
    ("abfs", {"account_host": "evil.com"}, "account_host"),
    ("abfs", identity(authority="https://login.evil.com"), "authority"),
]


@pytest.mark.parametrize(("scheme", "options"), OWN)
def test_the_clouds_own_endpoints_are_allowed(scheme: str, options: Mapping[str, object]) -> None:
    CloudHosts().check(scheme, options)


@pytest.mark.parametrize(("scheme", "options", "name"), ELSEWHERE)
def test_any_other_place_is_refused_by_the_name_of_its_option(
    scheme: str, options: Mapping[str, object], name: str
) -> None:
    with pytest.raises(InvalidInput, match=name):
        CloudHosts().check(scheme, options)


def test_an_operator_adds_hosts_and_audiences_and_the_refusal_says_where() -> None:
    options = {"endpoint": "https://s3.store.example.com:9000", **identity(token_audience="https://vault.azure.net")}
    with pytest.raises(InvalidInput) as host:
        CloudHosts().check("s3", options)
    assert "FAIRLEAD_CLOUD_HOSTS" in (host.value.hint or "")
    with pytest.raises(InvalidInput) as audience:
        CloudHosts(hosts=("*.store.example.com",)).check("s3", options)
    assert "FAIRLEAD_TOKEN_AUDIENCES" in (audience.value.hint or "")
    CloudHosts(hosts=("s3.store.example.com",), audiences=("https://vault.azure.net",)).check("s3", options)
    with pytest.raises(InvalidInput):
        CloudHosts(hosts=("*.store.example.com",)).check("s3", {"endpoint": "https://evil-store.example.com"})


def test_what_the_record_has_already_is_refused_when_it_is_opened() -> None:
    opened: list[str] = []

    def open_store(url: str, _options: Mapping[str, object]) -> ObjectStore:
        opened.append(url)
        return MemoryStore()

    guarded = guarding(open_store, CloudHosts())
    with pytest.raises(InvalidInput, match=r"evil\.com"):
        guarded("gs://bucket/prefix", {"endpoint": "https://evil.com"})
    guarded("gs://bucket/prefix", {})
    assert opened == ["gs://bucket/prefix"]
