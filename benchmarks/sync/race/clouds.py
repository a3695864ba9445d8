"""Three emulated clouds on loopback, each behind a proxy that counts, with the tariff from the region of the sender."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from benchmarks.sync.race.proxies import CountingProxy
from fairlead.catalog.catalog import load_catalog
from tests.servers.object_stores import AZURITE_ACCOUNT, AZURITE_KEY, azurite_server, gcs_server, moto_server

HOME = "aws:us-east-1"
"""The region that everything is sent from."""

REGIONS = {"s3": "aws:eu-central-1", "gs": "gcp:us-east4", "abfs": "azure:westeurope"}
"""The region that each emulator stands for, by fsspec's scheme."""


@dataclass(frozen=True, kw_only=True)
class Destination:
    """One emulated cloud: how fsspec and rclone reach it through the proxy, and what a byte to it costs."""

    name: str
    scheme: str
    region: str
    options: dict[str, Any]
    rclone: str
    proxy: CountingProxy
    usd_per_gb: float

    def new_bucket(self) -> str:
        """The name of a new, empty bucket (a container on Azure)."""
        name = f"race-{uuid.uuid4().hex[:16]}"
        fsspec.filesystem(self.scheme, **self.options).mkdir(name)
        return name

    def drop(self, bucket: str) -> None:
        """Remove a bucket and all that is in it; the emulators keep everything in memory."""
        with contextlib.suppress(Exception):
            fsspec.filesystem(self.scheme, **self.options).rm(bucket, recursive=True)

    def egress_usd(self, size_bytes: int) -> float:
        """What the cloud of the sender asks for bytes to here."""
        return size_bytes / 1e9 * self.usd_per_gb


@contextlib.contextmanager
def running_clouds(folder: Path) -> Generator[list[Destination]]:
    """S3 (moto), Google Cloud Storage (gcp-storage-emulator) and Azure Blob Storage (Azurite), behind proxies."""
    with contextlib.ExitStack() as stack:
        s3 = stack.enter_context(moto_server(folder))
        gcs = stack.enter_context(gcs_server(folder))
        azure = stack.enter_context(azurite_server(folder))
        s3_port = int(s3.options["endpoint_url"].rpartition(":")[2])
        gcs_port = int(gcs.options["endpoint_url"].rpartition(":")[2])
        blob_endpoint = azure.options["connection_string"].rpartition("BlobEndpoint=")[2]
        azure_port = int(blob_endpoint.split(":")[2].partition("/")[0])
        s3_proxy, gcs_proxy, azure_proxy = (
            stack.enter_context(CountingProxy(port)) for port in (s3_port, gcs_port, azure_port)
        )
        s3_url, gcs_url = f"http://127.0.0.1:{s3_proxy.port}", f"http://127.0.0.1:{gcs_proxy.port}"
        azure_url = f"http://127.0.0.1:{azure_proxy.port}/{AZURITE_ACCOUNT}"
        connection = azure.options["connection_string"].replace(blob_endpoint, azure_url)
        yield [
            _destination(
                "S3",
                "s3",
                s3.options | {"endpoint_url": s3_url},
                f":s3,provider=Other,access_key_id=test,secret_access_key=test,region=us-east-1,endpoint='{s3_url}':",
                s3_proxy,
            ),
            _destination(
                "GCS",
                "gs",
                gcs.options | {"endpoint_url": gcs_url},
                f":gcs,anonymous=true,bucket_policy_only=true,endpoint='{gcs_url}/storage/v1/':",
                gcs_proxy,
            ),
            _destination(
                "Azure",
                "abfs",
                azure.options | {"connection_string": connection},
                f":azureblob,account={AZURITE_ACCOUNT},key='{AZURITE_KEY}',endpoint='{azure_url}':",
                azure_proxy,
            ),
        ]


def _destination(name: str, scheme: str, options: dict[str, Any], rclone: str, proxy: CountingProxy) -> Destination:
    return Destination(
        name=name,
        scheme=scheme,
        region=REGIONS[scheme],
        options=options,
        rclone=rclone,
        proxy=proxy,
        usd_per_gb=load_catalog().egress(HOME, REGIONS[scheme]).value,
    )
