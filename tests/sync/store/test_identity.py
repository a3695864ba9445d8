"""A workload of each cloud reads and writes the buckets of the others, with nothing but its own platform's token."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fairlead.core.errors import InvalidInput, PermissionDenied
from fairlead.core.ports import ObjectStore
from fairlead.sync.store.identity import options_of
from fairlead.sync.store.objects import OpenStores, open_store
from tests.servers.object_stores import AZURITE_KEY, ObjectStoreServer, azurite_with_tokens
from tests.servers.token_services import (
    AWS_AUDIENCE,
    AZURE_AUDIENCE,
    GOOGLE_AUDIENCE,
    TokenServices,
    issue_token,
    make_certificate,
    serving,
)

ROLE = "arn:aws:iam::123456789012:role/models"
OTHER_ROLE = "arn:aws:iam::123456789012:role/others"
ACCOUNT = "models@project.iam.gserviceaccount.com"
CLIENT, TENANT = "11111111-2222-3333-4444-555555555555", "99999999-8888-7777-6666-555555555555"
SUBJECT = "system:serviceaccount:fairlead:worker"


@dataclass(slots=True, kw_only=True)
class Tokens:
    services: TokenServices
    sts: str
    google: str
    metadata: str

    def amazon(self, role: str = ROLE, **how: str) -> dict[str, str]:
        return {"kind": "workload", "role_arn": role, "sts_endpoint": self.sts, **how}

    def for_google(self, **how: str) -> dict[str, str]:
        return {
            "kind": "workload",
            "audience": GOOGLE_AUDIENCE,
            "token_url": f"{self.google}/v1/token",
            "impersonation_url": f"{self.google}/v1/projects/-/serviceAccounts/{ACCOUNT}:generateAccessToken",
            **how,
        }

    def from_machine(self, cloud: str, audience: str) -> dict[str, str]:
        host = self.metadata.removeprefix("http://")
        return {"token_from": f"{cloud}-metadata", "token_audience": audience, "metadata_host": host}


@pytest.fixture
def tokens() -> Generator[Tokens]:
    services = TokenServices()
    with (
        serving(services.amazon) as sts,
        serving(services.google) as google,
        serving(services.metadata) as metadata,
    ):
        yield Tokens(services=services, sts=sts, google=google, metadata=metadata)


@pytest.fixture
def token_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The token that Kubernetes puts into a pod; on each cloud another variable says where."""
    path = tmp_path / "token"
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(path))
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(path))
    return path


def use(store: ObjectStore) -> None:
    assert store.write("folder/object", b"bytes", create_only=False)
    assert store.read("folder/object") == b"bytes"
    assert [found.key for found in store.list("folder/")] == ["folder/object"]
    store.delete("folder/object")


def test_a_pod_with_a_token_file_assumes_a_role_for_an_s3_bucket(
    tokens: Tokens, token_file: Path, moto_server: ObjectStoreServer
) -> None:
    tokens.services.trusts = {(SUBJECT, ROLE)}
    token_file.write_text(issue_token(SUBJECT, AWS_AUDIENCE))
    with tokens.services.guarded(moto_server.options["endpoint_url"], ROLE) as endpoint:
        use(open_store(f"{moto_server.url}/pod", {"endpoint": endpoint, "identity": tokens.amazon()}))
    assert tokens.services.exchanges == [ROLE]


@pytest.mark.parametrize("cloud", ["gcp", "azure"])
def test_a_machine_of_another_cloud_assumes_a_role_for_an_s3_bucket(
    tokens: Tokens, moto_server: ObjectStoreServer, cloud: str
) -> None:
    tokens.services.workload = f"{cloud}-worker"
    tokens.services.trusts = {(f"{cloud}-worker", ROLE)}
    identity = tokens.amazon(**tokens.from_machine(cloud, AWS_AUDIENCE))
    with tokens.services.guarded(moto_server.options["endpoint_url"], ROLE) as endpoint:
        use(open_store(f"{moto_server.url}/{cloud}", {"endpoint": endpoint, "identity": identity}))


def test_two_roles_work_side_by_side_and_neither_reaches_the_other_s_bucket(
    tokens: Tokens, token_file: Path, moto_server: ObjectStoreServer
) -> None:
    tokens.services.trusts = {(SUBJECT, ROLE), (SUBJECT, OTHER_ROLE)}
    token_file.write_text(issue_token(SUBJECT, AWS_AUDIENCE))
    open_kept, behind = OpenStores(), moto_server.options["endpoint_url"]
    with tokens.services.guarded(behind, ROLE) as one, tokens.services.guarded(behind, OTHER_ROLE) as other:
        for endpoint, role in ((one, ROLE), (other, OTHER_ROLE), (one, ROLE)):
            use(open_kept(f"{moto_server.url}/two", {"endpoint": endpoint, "identity": tokens.amazon(role)}))
        wrong = open_kept(f"{moto_server.url}/two", {"endpoint": other, "identity": tokens.amazon(ROLE)})
        with pytest.raises(PermissionDenied):
            wrong.read("folder/object")
    # What was exchanged is used again.
    assert sorted(tokens.services.exchanges) == [ROLE, ROLE, OTHER_ROLE]


def test_a_role_that_does_not_trust_the_workload_is_a_typed_refusal(
    tokens: Tokens, token_file: Path, moto_server: ObjectStoreServer
) -> None:
    token_file.write_text(issue_token("somebody else", AWS_AUDIENCE))
    tokens.services.trusts = {(SUBJECT, ROLE)}
    options = {"endpoint": moto_server.options["endpoint_url"], "identity": tokens.amazon()}
    with pytest.raises(PermissionDenied) as refused:
        open_store(f"{moto_server.url}/x", options).read("object")
    assert ROLE not in str(refused.value)


def test_a_pod_with_a_token_file_reads_a_google_bucket_as_a_service_account(
    tokens: Tokens, token_file: Path, gcs_server: ObjectStoreServer
) -> None:
    tokens.services.trusts = {(SUBJECT, GOOGLE_AUDIENCE)}
    token_file.write_text(issue_token(SUBJECT, GOOGLE_AUDIENCE))
    with tokens.services.guarded(gcs_server.options["endpoint_url"], ACCOUNT) as endpoint:
        options = {"endpoint": endpoint, "identity": tokens.for_google(), "project": "test", "has_create_only": False}
        use(open_store(f"{gcs_server.url}/pod", options))
    assert tokens.services.exchanges == [GOOGLE_AUDIENCE, ACCOUNT]


def test_a_machine_of_microsoft_s_reads_a_google_bucket(tokens: Tokens, gcs_server: ObjectStoreServer) -> None:
    tokens.services.workload = "azure-worker"
    tokens.services.trusts = {("azure-worker", GOOGLE_AUDIENCE)}
    identity = tokens.for_google(**tokens.from_machine("azure", GOOGLE_AUDIENCE))
    with tokens.services.guarded(gcs_server.options["endpoint_url"], ACCOUNT) as endpoint:
        options = {"endpoint": endpoint, "identity": identity, "project": "test", "has_create_only": False}
        use(open_store(f"{gcs_server.url}/machine", options))


def test_a_google_bucket_whose_pool_does_not_trust_the_workload_is_refused(
    tokens: Tokens, token_file: Path, gcs_server: ObjectStoreServer
) -> None:
    token_file.write_text(issue_token("somebody else", GOOGLE_AUDIENCE))
    options = {"endpoint": gcs_server.options["endpoint_url"], "identity": tokens.for_google(), "project": "test"}
    with pytest.raises(PermissionDenied):
        open_store(f"{gcs_server.url}/x", options).read("object")


_AZURE = """
import json, sys
from azure.storage.blob import BlobServiceClient
from fairlead.core.errors import PermissionDenied
from fairlead.sync.store.objects import open_store

given = json.load(sys.stdin)
BlobServiceClient(given["endpoint"], credential=given["key"]).create_container("models")
for number, identity in enumerate(given["trusted"]):
    options = {"endpoint": given["endpoint"], "account_name": "devstoreaccount1", "identity": identity}
    store = open_store(f"abfs://models/{number}", options)
    assert store.write("folder/object", b"bytes", create_only=True)
    assert store.read("folder/object") == b"bytes"
    assert [found.key for found in store.list("folder/")] == ["folder/object"]
options = {"endpoint": given["endpoint"], "account_name": "devstoreaccount1", "identity": given["stranger"]}
try:
    open_store("abfs://models/0", options).read("folder/object")
except PermissionDenied:
    print("refused")
"""


def test_pods_and_machines_of_other_clouds_read_an_azure_container(
    tokens: Tokens, token_file: Path, tmp_path: Path
) -> None:
    # In a process of its own, which trusts the certificate of the stubs: Azure's library speaks TLS only.
    tokens.services.workload = "gcp-worker"
    tokens.services.trusts = {(SUBJECT, CLIENT), ("gcp-worker", CLIENT)}
    token_file.write_text(issue_token(SUBJECT, AZURE_AUDIENCE))
    certificate, key = make_certificate(tmp_path)
    with (
        serving(tokens.services.microsoft, tls=(certificate, key)) as entra,
        azurite_with_tokens(tmp_path, certificate=certificate, key=key) as endpoint,
    ):
        identity = {"kind": "workload", "tenant_id": TENANT, "client_id": CLIENT, "authority": entra}
        machine = identity | tokens.from_machine("gcp", AZURE_AUDIENCE)
        given = {
            "endpoint": endpoint,
            "key": AZURITE_KEY,
            "trusted": [identity, machine],
            "stranger": machine | {"client_id": TENANT},
        }
        finished = subprocess.run(
            [sys.executable, "-c", _AZURE],
            input=json.dumps(given),
            env=os.environ | {"SSL_CERT_FILE": str(certificate), "REQUESTS_CA_BUNDLE": str(certificate)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (finished.returncode, finished.stdout) == (0, "refused\n"), finished.stderr[-3000:]
    assert tokens.services.exchanges == [CLIENT, CLIENT]


def test_static_keys_are_named_and_come_from_the_environment() -> None:
    environ = {
        "FAIRLEAD_CREDENTIALS_PARTNER_EU_ACCESS_KEY_ID": "id",
        "FAIRLEAD_CREDENTIALS_PARTNER_EU_SECRET_ACCESS_KEY": "secret",
        "FAIRLEAD_CREDENTIALS_PARTNER_EU_CONNECTION_STRING": "BlobEndpoint=x",
        "FAIRLEAD_CREDENTIALS_PARTNER_EU_SERVICE_ACCOUNT_FILE": "/run/account.json",
    }
    identity = {"kind": "static", "credentials": "partner-eu"}
    assert options_of("s3", identity, environ) == {"key": "id", "secret": "secret"}
    assert options_of("abfs", identity, environ) == {"connection_string": "BlobEndpoint=x"}
    assert options_of("gs", identity, environ) == {"token": "/run/account.json"}
    with pytest.raises(InvalidInput, match="FAIRLEAD_CREDENTIALS_OTHER_ACCESS_KEY_ID"):
        options_of("s3", {"kind": "static", "credentials": "other"}, environ)


def test_static_keys_open_a_bucket(moto_server: ObjectStoreServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRLEAD_CREDENTIALS_PARTNER_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("FAIRLEAD_CREDENTIALS_PARTNER_SECRET_ACCESS_KEY", "test")
    identity = {"kind": "static", "credentials": "partner"}
    endpoint = moto_server.options["endpoint_url"]
    use(open_store(f"{moto_server.url}/static", {"endpoint": endpoint, "identity": identity}))


def test_an_open_bucket_and_the_library_s_own_way_need_nothing_more() -> None:
    assert options_of("s3", {"kind": "anonymous"}, {}) == {"anon": True}
    assert options_of("gs", {"kind": "anonymous"}, {}) == {"token": "anon"}
    assert options_of("s3", {"kind": "workload"}, {}) == {}
    assert options_of("gs", {"kind": "workload"}, {}) == {"token": "google_default"}
    assert options_of("abfs", {"kind": "workload"}, {}) == {"anon": False}


def test_a_platform_without_a_token_is_said_so(tokens: Tokens, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="AWS_WEB_IDENTITY_TOKEN_FILE is not set"):
        options_of("s3", tokens.amazon(), {})
    from fairlead.sync.store.identity import token_source

    missing = token_source("s3", {}, {"AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "none")})
    with pytest.raises(PermissionDenied, match="cannot be read"):
        missing.read()
    away = {"token_from": "gcp-metadata", "token_audience": "x", "metadata_host": "127.0.0.1:9"}
    with pytest.raises(PermissionDenied, match="gave no token"):
        token_source("s3", away, {}).read()
