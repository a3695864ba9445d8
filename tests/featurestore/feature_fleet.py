"""A fleet with a feature store: real measurements of some patients, defined in Feast's JSON."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fairlead.catalog import load_catalog
from fairlead.featurestore.applied import FeatureObject
from fairlead.featurestore.assembly import FeatureStore, assemble_features
from fairlead.featurestore.snapshots import Snapshot
from fairlead.featurestore.sources import Sources
from fairlead.sync.worker import Worker
from tests.fleet import ADMIN, Fleet, open_fleet

arrow: Any = pa
parquet: Any = pq

DAY_0 = datetime(2026, 2, 19, 12, tzinfo=UTC)  # the clock starts on day 10


def day(number: float) -> datetime:
    return DAY_0 + timedelta(days=number)


@dataclass(slots=True, kw_only=True)
class FeatureFleet:
    """A fleet, its feature store, and the folder of its sources."""

    fleet: Fleet
    store: FeatureStore
    sources: Path

    def worker(self) -> Worker:
        duties = self.fleet.duties
        return Worker(
            self.fleet.database,
            self.fleet.clock,
            regions=None,
            handlers={**duties.handlers, **self.store.handlers},
            derivers=[*duties.derivers, *self.store.derivers(None)],
        )

    def run(self) -> None:
        self.worker().run_until_idle()

    def apply(self, objects: Sequence[FeatureObject]) -> dict[str, str]:
        """Apply; what happened to each name."""
        return {planned.name: planned.change for planned in self.store.definitions.apply(ADMIN, objects)}

    def snapshot(self, service: str = "diagnosis", *, as_of: datetime | None = None) -> Snapshot:
        """Take a snapshot and let the worker finish it."""
        taken = self.store.snapshots.take(ADMIN, service, as_of=as_of)
        self.run()
        return self.store.snapshots.get(ADMIN, taken.id)

    def cells(self, rows: Sequence[tuple[int, float, float | None]], *, name: str = "cells") -> Path:
        """Write (patient, day, radius) as the source of the view `cells`."""
        path = self.sources / f"{name}.parquet"
        table = arrow.table(
            {
                "patient_id": arrow.array([row[0] for row in rows], arrow.int64()),
                "event_timestamp": arrow.array([day(row[1]) for row in rows], arrow.timestamp("us", tz="UTC")),
                "radius": arrow.array([row[2] for row in rows], arrow.float64()),
            }
        )
        parquet.write_table(table, path)
        return path

    def genes(self, rows: Sequence[tuple[int, float, str | None]]) -> Path:
        """Write (patient, day, marker) as the source of the view `genes`."""
        path = self.sources / "genes.parquet"
        table = arrow.table(
            {
                "patient_id": arrow.array([row[0] for row in rows], arrow.int64()),
                "event_timestamp": arrow.array([day(row[1]) for row in rows], arrow.timestamp("us", tz="UTC")),
                "marker": arrow.array([row[2] for row in rows], arrow.string()),
            }
        )
        parquet.write_table(table, path)
        return path

    def definitions(self, **changes: Any) -> list[FeatureObject]:
        """Entity, views and service over the sources; `changes` go to `cells_view`."""
        return [
            patient(),
            cells_view(self.sources / "cells.parquet", **changes),
            genes_view(self.sources / "genes.parquet"),
            service(),
        ]


@contextlib.contextmanager
def open_feature_fleet(
    root: Path,
    url: str | None = None,
    *,
    names: tuple[str, ...] = ("virginia", "eemshaven"),
    connections: Mapping[str, str] | None = None,
) -> Generator[FeatureFleet]:
    """A feature store over local folders as regions."""
    with open_fleet(root, url, names=names) as fleet:
        (root / "sources").mkdir()
        yield feature_fleet_of(fleet, root / "features", connections=connections)


def feature_fleet_of(fleet: Fleet, folder: Path, *, connections: Mapping[str, str] | None = None) -> FeatureFleet:
    """The feature store of a fleet, whose online stores and copies of rows are in a folder."""
    sources = fleet.root / "sources"
    store = assemble_features(
        database=fleet.database,
        clock=fleet.clock,
        catalog=load_catalog(),
        uploads=fleet.uploads,
        artifacts=fleet.artifacts,
        open_store=fleet.open_store,
        folder=folder,
        sources=Sources(roots=(sources,), connections=connections or {}),
        wake=lambda: None,
        signing_key=fleet.signing_key,
    )
    return FeatureFleet(fleet=fleet, store=store, sources=sources)


def entity_rows(rows: Sequence[tuple[int, float]], **columns: Any) -> Any:
    """(patient, day) as an Arrow table."""
    return arrow.table(
        {
            "patient_id": arrow.array([row[0] for row in rows], arrow.int64()),
            "event_timestamp": arrow.array([day(row[1]) for row in rows], arrow.timestamp("us", tz="UTC")),
            **columns,
        }
    )


def patient(**changes: Any) -> FeatureObject:
    spec = {"name": "patient", "valueType": "INT64", "joinKey": "patient_id", **changes}
    return FeatureObject(kind="Entity", spec={"spec": spec, "meta": {}})


def view_spec(name: str, features: Sequence[tuple[str, str]], path: Path, /, **changes: Any) -> FeatureObject:
    spec = {
        "name": name,
        "entities": ["patient"],
        "features": [{"name": feature, "valueType": kind} for feature, kind in features],
        "batchSource": {
            "type": "BATCH_FILE",
            "timestampField": "event_timestamp",
            "fileOptions": {"uri": str(path)},
            "name": f"{name}_source",
            "meta": {"createdTimestamp": datetime.now(UTC).isoformat()},
        },
        "online": True,
        "entityColumns": [{"name": "patient_id", "valueType": "INT64"}],
        **changes,
    }
    return FeatureObject(kind="FeatureView", spec={"spec": spec, "meta": {}})


def cells_view(path: Path, **changes: Any) -> FeatureObject:
    return view_spec("cells", [("radius", "FLOAT")], path, **{"ttl": "864000s", **changes})


def genes_view(path: Path, *, residency: str = "eu", **changes: Any) -> FeatureObject:
    return view_spec("genes", [("marker", "STRING")], path, tags={"fairlead.residency": residency}, **changes)


def service(
    name: str = "diagnosis",
    views: Mapping[str, Sequence[tuple[str, str]]] | None = None,
    **changes: Any,
) -> FeatureObject:
    chosen = views or {"cells": [("radius", "FLOAT")], "genes": [("marker", "STRING")]}
    features = [
        {
            "featureViewName": view,
            "featureColumns": [{"name": feature, "valueType": kind} for feature, kind in columns],
        }
        for view, columns in chosen.items()
    ]
    return FeatureObject(kind="FeatureService", spec={"spec": {"name": name, "features": features, **changes}})
