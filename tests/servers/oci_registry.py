"""The distribution project's registry on loopback: open, behind a password, or behind a token service.

`dropping` stands before one and breaks connections.
"""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from fairlead.core.canonical import canonical_json
from fairlead.core.ids import Digest, sha256_digest
from fairlead.core.outbound import OutboundRules
from fairlead.serving.images.client import CHUNK_BYTES, BytesBlob, RegistryClient
from fairlead.serving.images.credentials import ANONYMOUS, Login
from fairlead.serving.images.image import CONFIG_TYPE, MANIFEST_TYPE
from fairlead.serving.images.layers import LAYER_TYPE, Layer, LayerFile
from tests.servers.object_stores import TOOLS
from tests.servers.process import running_server
from tests.servers.token_services import Answer, Request, make_certificate, serving

USER, PASSWORD = "pusher", "correct horse"
# bcrypt, of the least strength that there is, of the password.
PASSWORD_HASH = "$2b$04$v5rl/wluq/oRN3bV6n8kQ.9pmDE7nOonOjmLKgUN3mrZzZfrMcV3e"
RULES = OutboundRules(setting="FAIRLEAD_CLOUD_HOSTS", hosts=("127.0.0.1",))


@dataclass(slots=True, kw_only=True)
class OciRegistry:
    """A running registry. `login` is one that may do everything."""

    url: str
    folder: Path
    login: Login = ANONYMOUS
    asked: list[str] = field(default_factory=list[str])
    clients: list[RegistryClient] = field(default_factory=list[RegistryClient])

    @property
    def host(self) -> str:
        return self.url.partition("://")[2]

    def client(self, *, chunk_bytes: int | None = CHUNK_BYTES, login: Login | None = None) -> RegistryClient:
        client = RegistryClient(
            origin=self.url,
            rules=RULES,
            open_rules=RULES,
            login=lambda: login or self.login,
            chunk_bytes=chunk_bytes,
            sleep=_no_sleep,
        )
        self.clients.append(client)
        return client

    def close(self) -> None:
        for client in self.clients:
            client.close()

    def blob_file(self, digest: str) -> Path:
        """Where it keeps a blob: for whoever wants to damage it."""
        algorithm, _, value = digest.partition(":")
        return self.folder / "docker/registry/v2/blobs" / algorithm / value[:2] / value / "data"


def _no_sleep(_seconds: float) -> None:
    """Tests need not wait for a registry to recover."""


def registry_program() -> str:
    """The program; a test that needs it is skipped where this system has no package of it."""
    installed = TOOLS / "oci-registry" / "usr" / "bin" / "docker-registry"
    found = str(installed) if installed.exists() else shutil.which("docker-registry") or shutil.which("registry")
    if found is None:
        pytest.skip(
            "no registry of the distribution project is installed here: run make install, or put one on the path"
        )
    return found


@contextlib.contextmanager
def oci_registry(
    folder: Path, *, auth: dict[str, Any] | None = None, login: Login = ANONYMOUS
) -> Generator[OciRegistry]:
    """A registry with files below a folder of its own."""
    program = registry_program()
    home = folder / f"registry-{uuid.uuid4().hex[:8]}"
    home.mkdir()

    def command(port: int) -> list[str | Path]:
        config: dict[str, Any] = {
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(home)}, "delete": {"enabled": True}},
            "http": {"addr": f"127.0.0.1:{port}", "secret": "tests"},
        }
        if auth is not None:
            config["auth"] = auth
        file = home / "config.yml"
        file.write_text(json.dumps(config))
        return [program, "serve", file]

    with running_server("The OCI registry", command, home / "log") as port:
        registry = OciRegistry(url=f"http://127.0.0.1:{port}", folder=home, login=login)
        try:
            yield registry
        finally:
            registry.close()


@contextlib.contextmanager
def registry_with_password(folder: Path) -> Generator[OciRegistry]:
    """A registry that asks for a user and password."""
    file = folder / "htpasswd"
    file.write_text(f"{USER}:{PASSWORD_HASH}\n")
    auth = {"htpasswd": {"realm": "test", "path": str(file)}}
    with oci_registry(folder, auth=auth, login=Login(kind="basic", user=USER, secret=PASSWORD)) as registry:
        yield registry


@contextlib.contextmanager
def registry_with_tokens(folder: Path) -> Generator[OciRegistry]:
    """A registry that takes tokens of a token service, which gives them for the scopes that are asked for."""
    certificate, key_file = make_certificate(folder)
    key = ECKey.import_key(key_file.read_bytes())
    chain = ["".join(certificate.read_text().splitlines()[1:-1])]
    asked: list[str] = []

    def give(request: Request) -> Answer:
        expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if request.headers.get("authorization") != expected:
            return 401, {}, b"{}"
        # Several scopes come as one parameter each; the double keeps all of them.
        scopes = [
            part.partition("=")[2] for part in request.path.partition("?")[2].split("&") if part.startswith("scope=")
        ]
        access: list[dict[str, Any]] = []
        for scope in scopes:
            kind, name, actions = scope.replace("%3A", ":").replace("%2C", ",").replace("%2F", "/").split(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
            asked.append(f"{name}:{actions}")
        now = int(time.time())
        claims = {"iss": "tests", "sub": USER, "aud": "registry", "exp": now + 300, "nbf": now - 5, "iat": now}
        token = jwt.encode({"alg": "ES256", "x5c": chain}, {**claims, "jti": uuid.uuid4().hex, "access": access}, key)
        return 200, {"content-type": "application/json"}, json.dumps({"token": token}).encode()

    with serving(give) as url:
        token_auth = {
            "realm": f"{url}/token",
            "service": "registry",
            "issuer": "tests",
            "rootcertbundle": str(certificate),
        }
        login = Login(kind="basic", user=USER, secret=PASSWORD)
        with oci_registry(folder, auth={"token": token_auth}, login=login) as registry:
            registry.asked = asked
            yield registry


@dataclass(slots=True)
class Drops:
    """How many more connections are broken, each after so many bytes from the client."""

    left: int = 0
    after_bytes: int = 100_000


@contextlib.contextmanager
def dropping(registry: OciRegistry, drops: Drops) -> Generator[OciRegistry]:
    """The same registry, behind a proxy that breaks connections."""
    upstream = ("127.0.0.1", int(registry.url.rpartition(":")[2]))
    listener = socket.create_server(("127.0.0.1", 0))

    def copy(source: socket.socket, sink: socket.socket, both: tuple[socket.socket, ...], *, counts: bool) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                passed += len(piece)
                if counts and drops.left > 0 and passed > drops.after_bytes:
                    drops.left -= 1
                    break
                sink.sendall(piece)
        for each in both:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
                each.close()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(upstream)
                pair = (client, server)
                for source, sink, counts in ((client, server, True), (server, client, False)):
                    threading.Thread(
                        target=copy, args=(source, sink, pair), kwargs={"counts": counts}, daemon=True
                    ).start()

    threading.Thread(target=accept, daemon=True).start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    before = OciRegistry(url=url, folder=registry.folder, login=registry.login)
    try:
        yield before
    finally:
        before.close()
        listener.close()


def put_base(registry: OciRegistry, *platforms: str, repository: str = "library/python", filler: bytes = b"") -> str:
    """Push a small image for each platform, and an index of them; its reference by digest."""
    client = registry.client()
    manifests: list[Any] = []
    for platform in platforms:
        system, architecture = platform.split("/")
        layer = Layer([LayerFile(path="etc/os-release", content=f"ID=test-{architecture}\n".encode() + filler)])
        environment = ["PATH=/usr/local/bin:/usr/bin:/bin", "PYTHON_VERSION=3.11.9"]
        config = canonical_json(
            {
                "os": system,
                "architecture": architecture,
                "config": {"Env": list(environment)},
                "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
                "history": [{"created_by": "test"}],
            }
        )
        client.send(repository, layer)
        client.send(repository, BytesBlob(content=config))
        manifest = canonical_json(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "config": {"mediaType": CONFIG_TYPE, "digest": sha256_digest(config), "size": len(config)},
                "layers": [{"mediaType": LAYER_TYPE, "digest": layer.digest, "size": layer.size}],
            }
        )
        digest = sha256_digest(manifest)
        client.write_manifest(repository, digest, MANIFEST_TYPE, manifest)
        manifests.append(
            {
                "mediaType": MANIFEST_TYPE,
                "digest": digest,
                "size": len(manifest),
                "platform": {"os": system, "architecture": architecture},
            }
        )
    media_type = "application/vnd.oci.image.index.v1+json"
    index = canonical_json({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests})
    digest: Digest = sha256_digest(index)
    client.write_manifest(repository, digest, media_type, index)
    client.close()
    return f"{registry.host}/{repository}@{digest}"
