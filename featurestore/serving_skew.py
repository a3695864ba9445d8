"""Training/serving skew: how far what a feature server gave out is from the snapshot that a model was trained on.

Each feature's logged values are compared with all of the snapshot's values of it, by the population stability index and
the Kolmogorov-Smirnov statistic. What was not found or too old was logged as missing, and counts as that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fairlead.core.errors import JsonValue
from fairlead.featurestore.definitions import DUCKDB_TYPES
from fairlead.featurestore.drift import SqlColumn, measure_drift
from fairlead.featurestore.duck import fetch_rows, open_duckdb, quote_name, quote_text
from fairlead.featurestore.online_layout import KeptView


@dataclass(frozen=True, slots=True, kw_only=True)
class SkewLimits:
    """How far apart a feature may be."""

    psi: float
    ks: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSkew:
    """One feature: how many values there are on either side, and how far they are apart; None: cannot be said."""

    view: str
    feature: str
    expected: int
    logged: int
    psi: float | None
    ks: float | None
    is_over: bool

    def to_json(self, *, is_restricted: bool) -> dict[str, JsonValue]:
        """The finding as the record keeps it: of restricted features the verdict alone."""
        return {
            "view": self.view,
            "feature": self.feature,
            "expected": None if is_restricted else self.expected,
            "logged": self.logged,
            "psi": None if is_restricted or self.psi is None else round(self.psi, 6),
            "ks": None if is_restricted or self.ks is None else round(self.ks, 6),
            "is_over": self.is_over,
        }


def measure_skew(
    views: Sequence[KeptView], files: Sequence[Path], limits: SkewLimits, *, scratch: Path
) -> list[FeatureSkew]:
    """Compare what was logged in `files` with the snapshot's rows, for each feature that is in both."""
    if not files:
        return []
    listed = ", ".join(quote_text(str(path)) for path in files)
    logged = f"read_parquet([{listed}], union_by_name = true)"
    found: list[FeatureSkew] = []
    with open_duckdb(scratch) as connection:
        there = {str(row[0]) for row in fetch_rows(connection, f"DESCRIBE SELECT * FROM {logged}")}  # noqa: S608
        for view in views:
            for part in view.parts:
                here = {column.name: column.type for column in part.view.features}
                for name, feature in view.features:
                    if feature not in here or name not in there:
                        continue
                    kind = DUCKDB_TYPES[here[feature]]
                    drift = measure_drift(
                        SqlColumn(
                            connection,
                            f"SELECT {quote_name(feature)} FROM read_parquet({quote_text(str(part.path))})",  # noqa: S608
                        ),
                        SqlColumn(connection, f"SELECT CAST({quote_name(name)} AS {kind}) FROM {logged}"),  # noqa: S608
                    )
                    statistic = None if drift.ks is None else drift.ks.statistic
                    found.append(
                        FeatureSkew(
                            view=view.projection.alias,
                            feature=name,
                            expected=drift.expected_count,
                            logged=drift.actual_count,
                            psi=drift.psi,
                            ks=statistic,
                            is_over=(drift.psi or 0.0) > limits.psi or (statistic or 0.0) > limits.ks,
                        )
                    )
    return found
