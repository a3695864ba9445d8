"""The demo's data: scikit-learn's breast cancer set, as a clinic's measurements over time.

The 569 samples, their 30 features and their diagnoses are real (Wolberg, Street and Mangasarian, 1995). What is
synthetic, and only this: each sample is measured four times, at made-up times, with a made-up spread of 2 % around the
real values; three measurements come before the diagnosis (the label) and one after it, which a model may not see.
"""

# pandas is typed in part.
# pyright: reportUnknownVariableType=false
from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer

from fairlead.sdk.feast_checks import deferring_checks

if TYPE_CHECKING:
    from pathlib import Path

FIRST_LABEL = datetime(2026, 3, 1, 9, tzinfo=UTC)
DAYS_FROM_LABEL = (-21, -10, -2, 6)
SPREAD = 0.02
SEED = 20260301


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """`means` and `extremes`: 2276 rows (569 samples x 4 times) of 10 features; `labels`: one diagnosis a sample."""

    means: pd.DataFrame
    extremes: pd.DataFrame
    labels: pd.DataFrame

    @property
    def mean_features(self) -> list[str]:
        """The ten features of the view `nucleus_means`."""
        return _columns(self.means, "mean_")

    @property
    def extreme_features(self) -> list[str]:
        """The ten features of the view `nucleus_extremes`."""
        return _columns(self.extremes, "worst_")


def load_measurements() -> Measurements:
    """Load the real samples and lay the synthetic times and spread over them; always the same rows."""
    bunch = cast("Any", load_breast_cancer())
    names = pd.Index([str(name).replace(" ", "_") for name in bunch.feature_names])
    values = pd.DataFrame(bunch.data, columns=names)
    count = len(values)
    labelled_at = [FIRST_LABEL + timedelta(hours=sample) for sample in range(count)]
    rng = np.random.default_rng(SEED)
    rounds: list[pd.DataFrame] = []
    for days in DAYS_FROM_LABEL:
        measured = values * (1 + SPREAD * rng.standard_normal(values.shape))
        measured.insert(0, "sample_id", range(count))
        measured.insert(1, "event_timestamp", [moment + timedelta(days=days) for moment in labelled_at])
        rounds.append(measured)
    rows: Any = pd.concat(rounds, ignore_index=True)
    keys = ["sample_id", "event_timestamp"]
    return Measurements(
        means=rows[keys + [name for name in names if name.startswith("mean_")]],
        extremes=rows[keys + [name for name in names if name.startswith("worst_")]],
        labels=pd.DataFrame(
            {"sample_id": range(count), "event_timestamp": labelled_at, "is_benign": bunch.target.astype("int64")}
        ),
    )


def _columns(frame: pd.DataFrame, prefix: str) -> list[str]:
    return [str(column) for column in frame.columns if str(column).startswith(prefix)]


def write_sources(measurements: Measurements, folder: Path) -> tuple[Path, Path]:
    """Write the two tables as the Parquet files that the feature views read."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "nucleus_means.parquet", folder / "nucleus_extremes.parquet"
    measurements.means.to_parquet(paths[0], index=False)
    measurements.extremes.to_parquet(paths[1], index=False)
    return paths


def feast_definitions(measurements: Measurements, folder: Path) -> list[object]:
    """One entity, two feature views and a feature service, as Feast objects."""
    with deferring_checks():
        from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
        from feast.types import Float64

    means_path, extremes_path = write_sources(measurements, folder)
    sample = Entity(name="sample", join_keys=["sample_id"], value_type=ValueType.INT64)
    views: list[Any] = [
        FeatureView(
            name=name,
            entities=[sample],
            ttl=timedelta(days=365),
            schema=[Field(name=feature, dtype=Float64) for feature in features],
            source=FileSource(name=f"{name}_source", path=str(path), timestamp_field="event_timestamp"),
        )
        for name, features, path in (
            ("nucleus_means", measurements.mean_features, means_path),
            ("nucleus_extremes", measurements.extreme_features, extremes_path),
        )
    ]
    return [sample, *views, FeatureService(name="diagnosis", features=views)]


def naive_join(measurements: Measurements) -> pd.DataFrame:
    """The join that leaks: each sample's newest measurement, whenever it was made."""
    newest = measurements.means.sort_values("event_timestamp").groupby("sample_id").tail(1)
    return measurements.labels.merge(newest, on="sample_id", suffixes=("", "_measured"))
