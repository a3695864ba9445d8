"""The client speaks to a real registry: with and without credentials, and over connections that break."""

from __future__ import annotations

import contextlib
import gzip
from pathlib import Path

import pytest

from fairlead.core.errors import IntegrityError, NotFound, PermissionDenied, Unavailable
from fairlead.core.ids import Digest
from fairlead.core.outbound import OutboundRules
from fairlead.serving.images.client import BytesBlob, RegistryClient
from fairlead.serving.images.credentials import ANONYMOUS, Login
from tests.servers.oci_registry import (
    RULES,
    Drops,
    OciRegistry,
    dropping,
    registry_with_password,
    registry_with_tokens,
)
from tests.servers.token_services import Answer, Request, make_certificate, serving

NOISE = bytes(range(256)) * 8192  # 2 MiB


def read(client: RegistryClient, repository: str, blob: BytesBlob) -> bytes:
    return b"".join(client.read_blob(repository, blob.digest, blob.size))


@pytest.mark.parametrize("chunk_bytes", [None, 700_000])
def test_a_blob_is_sent_once_and_reads_back(registry: OciRegistry, chunk_bytes: int | None) -> None:
    client = registry.client(chunk_bytes=chunk_bytes)
    blob = BytesBlob(content=NOISE + str(chunk_bytes).encode())
    told: list[int] = []
    assert client.blob_size("one", blob.digest) is None
    assert client.send("one", blob, told.append)
    assert sum(told) == blob.size
    assert client.blob_size("one", blob.digest) == blob.size
    assert not client.send("one", blob)
    assert read(client, "one", blob) == blob.content
    client.check_blob("one", blob.digest, blob.size)


def test_a_blob_is_mounted_from_another_repository_without_being_sent(registry: OciRegistry) -> None:
    client = registry.client()
    blob = BytesBlob(content=b"shared")
    client.send("first", blob)
    sent = client.sent_bytes
    assert client.mount("second", blob.digest, "first")
    assert read(client, "second", blob) == b"shared"
    assert client.sent_bytes == sent
    assert not client.mount("third", BytesBlob(content=b"nowhere").digest, "first")


def test_a_range_of_a_blob_can_be_read(registry: OciRegistry) -> None:
    client = registry.client()
    blob = BytesBlob(content=NOISE)
    client.send("ranges", blob)
    assert b"".join(client.read_blob("ranges", blob.digest, blob.size, start=1000, end=1010)) == NOISE[1000:1010]


def test_bytes_that_changed_in_the_registry_are_found(registry: OciRegistry) -> None:
    client = registry.client()
    blob = BytesBlob(content=b"as it was pushed")
    client.send("damaged", blob)
    registry.blob_file(blob.digest).write_bytes(b"as it is not now")
    with pytest.raises(IntegrityError):
        client.check_blob("damaged", blob.digest, blob.size)


def test_what_is_not_there_is_not_found(registry: OciRegistry) -> None:
    client = registry.client()
    with pytest.raises(NotFound):
        client.read_manifest("nothing", "latest")
    with pytest.raises(NotFound):
        list(client.read_blob("nothing", Digest("sha256:" + "0" * 64), 5))


def test_a_password_is_shown_to_a_registry_that_asks_for_one(tmp_path: Path) -> None:
    with registry_with_password(tmp_path) as registry:
        blob = BytesBlob(content=b"guarded")
        with pytest.raises(PermissionDenied):
            registry.client(login=ANONYMOUS).send("guarded", blob)
        with pytest.raises(PermissionDenied):
            registry.client(login=Login(kind="basic", user="pusher", secret="wrong")).send("guarded", blob)
        assert registry.client().send("guarded", blob)
        assert read(registry.client(), "guarded", blob) == b"guarded"


def test_tokens_are_asked_for_the_repositories_and_actions_of_each_request(tmp_path: Path) -> None:
    with registry_with_tokens(tmp_path) as registry:
        client = registry.client()
        blob = BytesBlob(content=b"by token")
        assert client.send("team/model", blob)
        assert client.mount("team/other", blob.digest, "team/model")
        assert read(registry.client(), "team/model", blob) == b"by token"
        assert "team/model:pull,push" in registry.asked
        assert registry.asked[-1] == "team/model:pull"
        wrong = registry.client(login=Login(kind="basic", user="pusher", secret="wrong"))
        with pytest.raises(PermissionDenied):
            wrong.send("team/model", BytesBlob(content=b"other"))


def test_an_upload_goes_on_where_a_connection_broke(registry: OciRegistry) -> None:
    drops = Drops(left=3, after_bytes=300_000)
    with dropping(registry, drops) as broken:
        client = broken.client(chunk_bytes=500_000)
        blob = BytesBlob(content=NOISE + b"dropped")
        assert client.send("broken", blob)
    assert drops.left == 0
    assert read(registry.client(), "broken", blob) == blob.content


def test_a_registry_that_only_breaks_connections_is_unavailable(registry: OciRegistry) -> None:
    with dropping(registry, Drops(left=1000, after_bytes=100_000)) as broken, pytest.raises(Unavailable):
        broken.client().send("hopeless", BytesBlob(content=NOISE + b"hopeless"))


def test_nothing_is_sent_to_a_host_that_the_operator_did_not_name(registry: OciRegistry) -> None:
    strict = OutboundRules(setting="FAIRLEAD_CLOUD_HOSTS", hosts=("registry.example",))
    client = RegistryClient(origin=registry.url, rules=strict, open_rules=RULES, login=lambda: ANONYMOUS)
    with pytest.raises(PermissionDenied, match="is not one that"):
        client.blob_size("one", Digest("sha256:" + "0" * 64))


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_an_answer_without_end_is_not_taken_into_memory(encoding: str) -> None:
    noise = bytes(32 * 2**20)
    sent = gzip.compress(noise, 1) if encoding == "gzip" else noise
    with (
        serving(lambda _: (200, {"content-encoding": encoding}, sent)) as url,
        contextlib.closing(_client_of(url)) as client,
        pytest.raises(Unavailable, match="more than"),
    ):
        client.read_manifest("endless", "latest")


def test_a_registry_that_refuses_a_blob_in_its_own_way_is_unavailable() -> None:
    said = b'{"errors": [{"code": "UNSUPPORTED", "message": "a secret"}]}'
    with (
        serving(lambda _: (400, {}, said)) as url,
        contextlib.closing(_client_of(url)) as client,
        pytest.raises(Unavailable, match="UNSUPPORTED") as refused,
    ):
        list(client.read_blob("odd", Digest("sha256:" + "0" * 64), 5))
    assert "secret" not in str(refused.value)


def test_credentials_of_an_encrypted_registry_are_sent_encrypted_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    asked: list[Request] = []

    def give(request: Request) -> Answer:
        asked.append(request)
        return 200, {}, b'{"token": "t"}'

    with serving(give) as plain:
        challenge = {"www-authenticate": f'Bearer realm="{plain}/token",service="registry"'}
        with serving(lambda _: (401, challenge, b""), tls=(certificate, key)) as url:
            login = Login(kind="basic", user="pusher", secret="correct horse")
            with contextlib.closing(_client_of(url, login)) as client, pytest.raises(PermissionDenied):
                client.read_manifest("guarded", "latest")
    assert not asked


def _client_of(url: str, login: Login = ANONYMOUS) -> RegistryClient:
    return RegistryClient(origin=url, rules=RULES, open_rules=RULES, login=lambda: login, sleep=lambda _: None)
