"""Feast repositories over regions: a folder that `feast.FeatureStore(repo_path=...)` opens.

The folder holds the registry that Fairlead compiled, the rows that it names (a copy of what the region's replica holds,
as of one snapshot), and where it is from. Writing it again brings the newest snapshot; who has it open sees the one
before or that one.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from fairlead.core.errors import InvalidInput, JsonValue
from fairlead.core.ids import parse_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fairlead.sdk.client import Fairlead
    from fairlead.sdk.transport import Transport

PLACE_FILE = "fairlead.json"
ONLINE_STORE = "fairlead.featurestore.feast_online.FairleadSqliteOnlineStore"
_OFFLINE_STORE = "fairlead.featurestore.feast_offline.FairleadOfflineStore"
_PROJECT = "fairlead"
_REGISTRY = "registry.db"


def write_feast_repo(
    transport: Transport, service: str, region: str, folder: Path, *, own_online_store: bool = False
) -> str:
    """Write a repository of what a region serves; the digest of the snapshot.

    Raises:
        FeatureServiceNotFound, UnknownRegion, NotReady, ReplicaUnavailable, ResidencyViolation.
        InvalidInput: if the folder is a repository of another kind.
    """
    folder = folder.expanduser().absolute()
    place = _place(folder)
    path = _path(service)
    found = transport.get(path, region=region, store=place["store"])
    (folder / "rows").mkdir(parents=True, exist_ok=True)
    names = cast("list[str]", found["rows"])
    for name in names:
        if not (folder / name).exists():
            transport.download(f"{path}/{quote(name)}", folder / name, query={"region": region})
    place |= {"service": service, "region": region, "snapshot": str(found["snapshot"])}
    _put(folder / PLACE_FILE, json.dumps(place, indent=2).encode())
    _put(folder / _REGISTRY, base64.b64decode(str(found["registry"])))
    online = str(found["online_path"] or "")
    if own_online_store or not Path(online).is_file():
        store: dict[str, str] = {"type": "sqlite", "path": "online_store.db"}
    else:
        store = {"type": ONLINE_STORE, "path": online}
    _put(folder / "feature_store.yaml", _config(store))
    for old in (folder / "rows").glob("*.parquet"):
        if f"rows/{old.name}" not in names:
            old.unlink()
    return place["snapshot"]


class Reporter:
    """What a repository tells Fairlead, by the environment's own server and token."""

    def report(self, service: str, region: str, store: str, intervals: Sequence[Mapping[str, JsonValue]]) -> None:
        """Tell what Feast materialized."""
        with _connect() as client:
            client.features.report_materialized(service, region=region, store=store, intervals=intervals)

    def push(self, source: str, rows: Any, *, to: str, region: str) -> None:
        """Push rows of a stream."""
        with _connect() as client:
            client.features.push(source, rows, to=to, region=region)


def _connect() -> Fairlead:
    from fairlead.sdk.client import Fairlead
    from fairlead.sdk.settings import ClientSettings

    return Fairlead.connect(ClientSettings.read())


def reporter() -> Reporter:
    """Who tells Fairlead."""
    return Reporter()


def report_materialized(
    transport: Transport, service: str, region: str, store: str, intervals: list[JsonValue]
) -> None:
    """Tell what Feast materialized in a region into one online store."""
    body: dict[str, JsonValue] = {"region": region, "store": store, "intervals": intervals}
    transport.post(f"{_path(service)}/materialized", body)


def _path(service: str) -> str:
    return f"/api/v1/features/services/{quote(parse_name(service, what='feature service'), safe='')}/feast"


def _place(folder: Path) -> dict[str, str]:
    """What the folder says of itself; a new one gets a name for its own online store."""
    if (folder / PLACE_FILE).is_file():
        kept: dict[str, str] = json.loads((folder / PLACE_FILE).read_text())
        return kept
    if (folder / "feature_store.yaml").exists():
        raise InvalidInput(
            f"{str(folder)!r} is a Feast repository that Fairlead did not write.", hint="Name a folder of its own."
        )
    return {"store": str(uuid.uuid4())}


def _config(online_store: dict[str, str]) -> bytes:
    # JSON is YAML, and needs no library.
    config = {
        "project": _PROJECT,
        "provider": "fairlead.sdk.feast_provider.FairleadProvider",
        "registry": {
            "registry_store_type": "fairlead.sdk.feast_registry.FairleadRegistryStore",
            "path": _REGISTRY,
            "cache_ttl_seconds": 60,
        },
        "offline_store": {"type": _OFFLINE_STORE},
        "online_store": online_store,
        "entity_key_serialization_version": 3,
    }
    return json.dumps(config, indent=2).encode() + b"\n"


def _put(path: Path, content: bytes) -> None:
    temporary = path.parent / f".{path.name}.{secrets.token_hex(6)}.partial"
    with temporary.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
