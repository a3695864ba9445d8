"""Key providers: what wraps a data key, who can unwrap it again, and what those are told who cannot."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from fairlead.core.data_keys import KeyProviders, WrappedKey, unwrap_key, wrap_key
from fairlead.core.errors import FairleadError, InvalidInput, KeyUnavailable
from fairlead.core.ports import KeyProvider
from fairlead.sync.store.cloud_keys import AwsKms, AzureKeyVault, GcpKms, azure_scope
from fairlead.sync.store.keyring import (
    KeyFiles,
    UnwrappingKeyring,
    fingerprint,
    make_key_file,
    open_key_providers,
)
from tests.servers.object_stores import ObjectStoreServer

DATA_KEY = bytes(range(32))
GCP_KEY = "projects/p/locations/europe-west4/keyRings/ring/cryptoKeys/models"
AZURE_KEY = "https://models.vault.azure.net/keys/wrap"

Answer = Callable[[str, dict[str, Any], dict[str, str]], tuple[int, dict[str, Any]]]


@contextmanager
def cloud(answer: Answer) -> Generator[str]:
    """A server on loopback that answers POSTs by a function of path, body and headers."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, members = answer(self.path, body, headers)
            content = json.dumps(members).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the base class names it so)
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def wrap(provider: KeyProvider, provider_key: str = "", *, key_id: str = "k1") -> tuple[KeyProviders, WrappedKey]:
    providers = {"file": provider}
    wrapped = wrap_key(providers, DATA_KEY, workspace="acme", key_id=key_id, provider="file", provider_key=provider_key)
    return providers, wrapped


def moved(key: WrappedKey, key_id: str) -> WrappedKey:
    return WrappedKey(
        workspace=key.workspace,
        key_id=key_id,
        provider=key.provider,
        provider_key=key.provider_key,
        wrapped=key.wrapped,
    )


def check_binding(provider: KeyProvider, provider_key: str = "") -> WrappedKey:
    """What every provider promises: it unwraps what it wrapped, and nothing else, and not as another key."""
    providers, wrapped = wrap(provider, provider_key)
    assert unwrap_key(providers, wrapped) == DATA_KEY
    assert DATA_KEY not in wrapped.wrapped
    with pytest.raises(KeyUnavailable):
        unwrap_key(providers, moved(wrapped, "k2"))
    return wrapped


def test_a_key_file_wraps_and_unwraps(tmp_path: Path) -> None:
    name = make_key_file(tmp_path / "key")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    wrapped = check_binding(KeyFiles([tmp_path / "key"]))
    assert wrapped.provider_key == name == fingerprint((tmp_path / "key").read_bytes())
    damaged = wrapped.wrapped[:-1] + bytes([wrapped.wrapped[-1] ^ 1])
    for other in (damaged, b"", wrapped.wrapped[:10], b"FLK\x02" + wrapped.wrapped[4:]):
        with pytest.raises(KeyUnavailable):
            KeyFiles([tmp_path / "key"]).unwrap(other, provider_key=name, context={})


def test_the_first_key_file_wraps_and_all_of_them_unwrap(tmp_path: Path) -> None:
    make_key_file(tmp_path / "old")
    _, wrapped = wrap(KeyFiles([tmp_path / "old"]))
    make_key_file(tmp_path / "new")
    both = KeyFiles([tmp_path / "new", tmp_path / "old"])
    assert unwrap_key({"file": both}, wrapped) == DATA_KEY
    _, rewrapped = wrap(both)
    assert unwrap_key({"file": KeyFiles([tmp_path / "new"])}, rewrapped) == DATA_KEY


def test_whoever_lacks_the_key_file_is_told_what_to_set(tmp_path: Path) -> None:
    make_key_file(tmp_path / "key")
    make_key_file(tmp_path / "other")
    _, wrapped = wrap(KeyFiles([tmp_path / "key"]))
    for files in ([], [tmp_path / "other"]):
        with pytest.raises(KeyUnavailable) as caught:
            unwrap_key({"file": KeyFiles(files)}, wrapped)
        assert wrapped.provider_key in caught.value.detail
        assert "FAIRLEAD_KEY_FILE" in (caught.value.hint or "")
    with pytest.raises(InvalidInput) as refused:
        wrap(KeyFiles([]))
    assert "fairlead keys make-file" in (refused.value.hint or "")


def test_a_key_file_that_anyone_may_read_or_of_another_length_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    make_key_file(path)
    with pytest.raises(InvalidInput):
        make_key_file(path)
    path.chmod(0o644)
    with pytest.raises(KeyUnavailable) as caught:
        wrap(KeyFiles([path]))
    assert "chmod 600" in (caught.value.hint or "")
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(KeyUnavailable):
        wrap(KeyFiles([path]))
    with pytest.raises(KeyUnavailable):
        wrap(KeyFiles([tmp_path / "missing"]))


def test_aws_kms_wraps_and_unwraps(moto_server: ObjectStoreServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.session import Session

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    url = str(moto_server.options["endpoint_url"])
    client = cast("Any", Session()).create_client("kms", region_name="eu-west-1", endpoint_url=url)
    arn = client.create_key()["KeyMetadata"]["Arn"]
    check_binding(AwsKms(endpoint_url=url), arn)
    with pytest.raises(KeyUnavailable):
        wrap(AwsKms(endpoint_url=url), arn.rpartition("/")[0] + "/00000000-0000-0000-0000-000000000000")
    with pytest.raises(KeyUnavailable):
        wrap(AwsKms(endpoint_url="http://127.0.0.1:9"), arn)


def _gcp(path: str, body: dict[str, Any], headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
    """What Cloud KMS answers; its ciphertext here is the plaintext reversed, after what it is bound to."""
    key, _, operation = path.removeprefix("/v1/").rpartition(":")
    bound = base64.b64decode(body["additionalAuthenticatedData"])
    if key != GCP_KEY or headers["authorization"] != "Bearer t0ken":
        return 403, {"error": {"code": 403, "status": "PERMISSION_DENIED"}}
    if operation == "encrypt":
        sealed = bound + base64.b64decode(body["plaintext"])[::-1]
        answer = {"ciphertext": base64.b64encode(sealed).decode(), "protectionLevel": "SOFTWARE"}
        return 200, {"name": f"{key}/cryptoKeyVersions/1", **answer}
    sealed = base64.b64decode(body["ciphertext"])
    if not sealed.startswith(bound):
        return 400, {"error": {"code": 400, "status": "INVALID_ARGUMENT"}}
    return 200, {"plaintext": base64.b64encode(sealed[len(bound) :][::-1]).decode(), "usedPrimary": True}


def test_gcp_kms_wraps_and_unwraps() -> None:
    with cloud(_gcp) as url:
        check_binding(GcpKms(endpoint_url=url, token=lambda: "t0ken"), GCP_KEY)
        with pytest.raises(KeyUnavailable) as caught:
            wrap(GcpKms(endpoint_url=url, token=lambda: "stolen"), GCP_KEY)
        assert "(403 PERMISSION_DENIED)" in caught.value.detail


def test_gcp_kms_is_asked_again_after_a_passing_failure() -> None:
    calls: list[str] = []

    def answer(path: str, body: dict[str, Any], headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
        calls.append(path)
        return (503, {}) if len(calls) == 1 else _gcp(path, body, headers)

    with cloud(answer) as url:
        check_binding(GcpKms(endpoint_url=url, token=lambda: "t0ken"), GCP_KEY)


def test_azure_key_vault_wraps_and_unwraps() -> None:
    versions = {"v1": rsa.generate_private_key(65537, 2048), "v2": rsa.generate_private_key(65537, 2048)}
    newest = ["v1"]
    scheme = padding.OAEP(mgf=padding.MGF1(SHA256()), algorithm=SHA256(), label=None)

    def answer(path: str, body: dict[str, Any], headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
        assert headers["authorization"] == "Bearer t0ken"
        assert body["alg"] == "RSA-OAEP-256"
        steps = path.partition("?")[0].removeprefix("/keys/wrap/").split("/")
        value = base64.urlsafe_b64decode(body["value"] + "==")
        if steps == ["wrapkey"]:
            version, done = newest[0], versions[newest[0]].public_key().encrypt(value, scheme)
        else:
            version, done = steps[0], versions[steps[0]].decrypt(value, scheme)
        text = base64.urlsafe_b64encode(done).decode().rstrip("=")
        return 200, {"kid": f"{AZURE_KEY}/{version}", "value": text}

    with cloud(answer) as url:
        vault = AzureKeyVault(
            token=lambda: "t0ken", address_of=lambda key: key.replace("https://models.vault.azure.net", url)
        )
        wrapped = check_binding(vault, AZURE_KEY)
        newest[0] = "v2"
        assert unwrap_key({"file": vault}, wrapped) == DATA_KEY
        again = check_binding(vault, AZURE_KEY)
        assert json.loads(again.wrapped)["version"] == "v2"


AZURE_REFUSAL = {
    "error": {"code": "Forbidden", "message": "secret text", "innererror": {"code": "ForbiddenByFirewall"}}
}


@pytest.mark.parametrize(
    ("status", "members", "reason"),
    [
        (403, AZURE_REFUSAL, r"\(403 ForbiddenByFirewall\)"),
        (404, {"error": {"code": "KeyNotFound", "message": "secret text"}}, r"\(404 KeyNotFound\)"),
        (400, {"error": "secret text"}, r"\(400\)"),
        (200, {"kid": f"{AZURE_KEY}/v1", "value": ""}, "not what it should"),
        (200, {"value": "AAAA"}, "not what it should"),
        (200, {"kid": AZURE_KEY + "/", "value": "AAAA"}, "not what it should"),
    ],
)
def test_nothing_is_kept_of_a_refusal_or_an_answer_that_could_not_be_unwrapped(
    status: int, members: dict[str, Any], reason: str
) -> None:
    with cloud(lambda _path, _body, _headers: (status, members)) as url:
        vault = AzureKeyVault(token=lambda: "t0ken", address_of=lambda _key: url)
        with pytest.raises(KeyUnavailable, match=reason) as caught:
            wrap(vault, AZURE_KEY)
        assert "secret text" not in str(caught.value)


def test_an_empty_answer_of_gcp_kms_is_no_wrapped_key() -> None:
    with cloud(lambda _path, _body, _headers: (200, {"name": GCP_KEY})) as url, pytest.raises(KeyUnavailable):
        wrap(GcpKms(endpoint_url=url, token=lambda: "t0ken"), GCP_KEY)


def test_a_token_is_asked_for_the_cloud_that_the_vault_is_in() -> None:
    assert azure_scope("https://models.vault.azure.net/keys/wrap/v1") == "https://vault.azure.net/.default"
    assert azure_scope("https://models.vault.azure.cn/keys/wrap") == "https://vault.azure.cn/.default"
    assert azure_scope("https://m.vault.usgovcloudapi.net/keys/wrap") == "https://vault.usgovcloudapi.net/.default"


@pytest.mark.parametrize(
    ("provider", "name"),
    [
        (AwsKms(), "alias/models"),
        (AwsKms(), "arn:aws:s3:eu-west-1:1:key/x"),
        (GcpKms(), "projects/p/locations/l/keyRings/r/cryptoKeys/../x"),
        (GcpKms(), "https://example.org/key"),
        (AzureKeyVault(), "https://vault.example.org/keys/wrap"),
        (AzureKeyVault(), "http://models.vault.azure.net/keys/wrap"),
        (AzureKeyVault(), "https://models.vault.azure.net.example.org/keys/wrap"),
        (AzureKeyVault(), "https://a@models.vault.azure.net/keys/wrap"),
        (AzureKeyVault(), "https://models.vault.azure.net/keys/wrap/../../x"),
    ],
)
def test_a_name_that_could_lead_a_token_elsewhere_is_refused(provider: KeyProvider, name: str) -> None:
    with pytest.raises(InvalidInput):
        wrap(provider, name)


def test_there_are_four_kinds_of_provider_and_no_other() -> None:
    providers = open_key_providers([])
    assert set(providers) == {"file", "aws-kms", "gcp-kms", "azure-key-vault"}
    with pytest.raises(InvalidInput) as caught:
        wrap_key(providers, DATA_KEY, workspace="acme", key_id="k1", provider="rot13", provider_key="")
    assert "azure-key-vault" in (caught.value.hint or "")


def test_a_keyring_asks_once_for_a_key_and_remembers_no_failure(tmp_path: Path) -> None:
    make_key_file(tmp_path / "key")
    _, wrapped = wrap(KeyFiles([tmp_path / "key"]))
    asked: list[str] = []

    def look_up(_workspace: str, key_id: str) -> WrappedKey:
        asked.append(key_id)
        return wrapped

    missing = tmp_path / "later"
    keyring = UnwrappingKeyring({"file": KeyFiles([missing])}, look_up)
    with pytest.raises(FairleadError):
        keyring("acme", "k1")
    (tmp_path / "key").rename(missing)
    assert keyring("acme", "k1") == keyring("acme", "k1") == DATA_KEY
    assert asked == ["k1", "k1"]


def test_what_a_key_file_wrapped_is_what_the_document_says(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(bytes(32))
    (tmp_path / "key").chmod(0o600)
    vector = WrappedKey(
        workspace="acme",
        key_id="k1",
        provider="file",
        provider_key="7488d9f3d22e6ca4",
        wrapped=bytes.fromhex(
            "464c4b01000102030405060708090a0b88ca315104f889feca7158eef10ed003"
            "447dba89ab8899e1d7d2fe109128117011fe5996edaaca2350116d45e685ee90"
        ),
    )
    assert unwrap_key({"file": KeyFiles([tmp_path / "key"])}, vector) == DATA_KEY
