"""The registry of a Feast repository over a region: compiled by Fairlead, and read here.

Feast finds it by the class path `fairlead.sdk.feast_registry.FairleadRegistryStore`. Feast writes whole registries; of
what it writes, the intervals that it materialized go to the record and are kept, what it notes as it goes (states,
times, versions of its own) is not, and any other change is undone and refused before it has an effect. Importing this
module imports Feast; only Feast does so.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any, cast
from weakref import WeakSet

from feast.infra.registry.registry_store import RegistryStore
from feast.protos.feast.core.Registry_pb2 import Registry
from feast.repo_config import RegistryConfig

from fairlead.core.clock import format_time
from fairlead.core.errors import InvalidInput, JsonValue, PermissionDenied
from fairlead.sdk.feast_repo import PLACE_FILE, reporter

# What a person defines is what is left without these.
_VIEWS = ("feature_views", "stream_feature_views", "on_demand_feature_views", "label_views")
_NOTED = ("last_updated", "version_id", "project_metadata", "feature_view_version_history")


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryPlace:
    """What a repository is of: the service, the region and snapshot that it reads, and the name of its own store."""

    service: str
    region: str
    snapshot: str
    store: str

    @classmethod
    def read(cls, folder: Path) -> RepositoryPlace:
        """From the repository's folder.

        Raises:
            InvalidInput: if `fairlead features feast-repo` did not write it.
        """
        try:
            return cls(**json.loads((folder / PLACE_FILE).read_text()))
        except (OSError, ValueError, TypeError):
            raise InvalidInput(
                f"{str(folder)!r} has no valid {PLACE_FILE}.",
                hint="Write the repository again: fairlead features feast-repo SERVICE --region REGION --to DIR",
            ) from None


class FairleadRegistryStore(RegistryStore):
    """Reads the compiled registry; forwards materialization intervals; refuses any other write.

    Args:
        registry_config: Feast's, with the file's `path`.
        repo_path: the repository's folder.
    """

    def __init__(self, registry_config: RegistryConfig, repo_path: Path) -> None:
        self.folder = Path(repo_path)
        self._path = self.folder / registry_config.path
        self._read: Any = None
        self._given: Any = None
        _OPENED.add(self)

    def get_registry_proto(self) -> Any:
        """The registry as it was compiled, with what was materialized since.

        Raises:
            FileNotFoundError: if there is none.
        """
        self._read = self._parse()
        self._given = Registry()
        self._given.CopyFrom(self._read)
        return self._given

    def update_registry_proto(self, registry_proto: Any) -> None:
        """Keep and tell what was materialized.

        Raises:
            PermissionDenied: if anything else changed; `registry_proto` is then as it was read.
            FairleadError: if the record does not take it; it is told again with the next one.
        """
        if self._read is None:
            self.get_registry_proto()
        if _defined(registry_proto) != _defined(self._read):
            registry_proto.CopyFrom(self._read)
            raise is_compiled()
        new = _intervals(registry_proto) - _intervals(self._read)
        if not new:
            return
        place = RepositoryPlace.read(self.folder)
        intervals: list[dict[str, JsonValue]] = [
            {"view": view, "snapshot": place.snapshot, "start": start, "end": end} for view, start, end in sorted(new)
        ]
        reporter().report(place.service, place.region, place.store, intervals)
        # Another process may have materialized since this one read.
        kept = self._parse()
        _add_intervals(kept, registry_proto, new - _intervals(kept))
        self._write(kept)

    def undo(self) -> None:
        """Take back, in this process, what Feast changed of the registry that it was given."""
        if self._given is not None:
            self._given.CopyFrom(self._read)

    def teardown(self) -> None:
        """Refuse.

        Raises:
            PermissionDenied: always.
        """
        raise is_compiled()

    def _parse(self) -> Any:
        found: Any = Registry()
        found.ParseFromString(self._path.read_bytes())
        return found

    def _write(self, kept: Any) -> None:
        self._read = kept
        temporary = self._path.parent / f".{self._path.name}.{secrets.token_hex(6)}.partial"
        with temporary.open("xb") as file:
            file.write(cast("bytes", kept.SerializeToString()))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)


_OPENED: WeakSet[FairleadRegistryStore] = WeakSet()


def undo_changes(folder: Path) -> None:
    """Take back what Feast changed of a repository's registry in this process, before anybody was asked."""
    for store in list(_OPENED):
        if store.folder == folder:
            store.undo()


def is_compiled() -> PermissionDenied:
    """The error for a write that would not reach the record."""
    return PermissionDenied(
        "This Feast repository was compiled by Fairlead and is for reading.",
        hint="Apply definitions with `fairlead features apply PATH`, then write it again: fairlead features feast-repo",
    )


def _defined(registry: Any) -> bytes:
    """The registry without what Feast notes as it goes, as bytes that are equal for equal registries."""
    kept: Any = Registry()
    kept.CopyFrom(registry)
    _clear(kept, _NOTED)
    for name in (*_VIEWS, "entities", "data_sources", "feature_services", "projects", "saved_datasets"):
        members: list[Any] = [_without_notes(each) for each in getattr(kept, name)]
        kept.ClearField(name)
        getattr(kept, name).extend(sorted(members, key=lambda each: getattr(each, "spec", each).name))
    content: bytes = kept.SerializeToString(deterministic=True)
    return content


def _without_notes(member: Any) -> Any:
    copied: Any = type(member)()
    copied.CopyFrom(member)
    _clear(copied, ("meta",))
    spec: Any = getattr(copied, "spec", copied)
    _clear(spec, ("version",))
    for name in ("batch_source", "stream_source"):
        if name in spec.DESCRIPTOR.fields_by_name and spec.HasField(name):
            # Feast drops the class of a source that it knows when it writes a view again.
            _clear(getattr(spec, name), ("meta", "data_source_class_type"))
    return copied


def _clear(message: Any, names: Iterable[str]) -> None:
    for name in names:
        if name in message.DESCRIPTOR.fields_by_name:
            message.ClearField(name)


def _intervals(registry: Any) -> set[tuple[str, str, str]]:
    return {
        (view.spec.name, _time(interval.start_time), _time(interval.end_time))
        for name in ("feature_views", "stream_feature_views")
        for view in getattr(registry, name)
        for interval in view.meta.materialization_intervals
    }


def _add_intervals(registry: Any, materialized: Any, new: set[tuple[str, str, str]]) -> None:
    """Add the `new` ones of the intervals in `materialized` to the views of `registry`."""
    for name in ("feature_views", "stream_feature_views"):
        views = {view.spec.name: view for view in getattr(registry, name)}
        for view in getattr(materialized, name):
            for interval in view.meta.materialization_intervals:
                if (view.spec.name, _time(interval.start_time), _time(interval.end_time)) in new:
                    views[view.spec.name].meta.materialization_intervals.append(interval)


def _time(timestamp: Any) -> str:
    return format_time(timestamp.ToDatetime(tzinfo=UTC))
