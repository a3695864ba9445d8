"""Parts of one view put side by side in one file, for readers that know a view as one file: Feast, and exports.

Parts hold the same keys and times, and rows that tie in both are in each part's own order. So the n-th row of a tie
gets the n-th of each part, and the last one of an entity is made of the last ones of its parts, as in joins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fairlead.featurestore.definitions import ViewDefinition
from fairlead.featurestore.duck import (
    fetch_batches,
    limit_threads,
    load_arrow,
    open_duckdb,
    quote_name,
    quote_text,
)
from fairlead.featurestore.joins import ViewRows
from fairlead.featurestore.replica_rows import ReplicaRows
from fairlead.featurestore.row_files import ROW_GROUP, RowWriter
from fairlead.featurestore.rows import row_columns
from fairlead.featurestore.snapshot_views import SnapshotPartName
from fairlead.sync.scratch import Scratch


def merged_view(parts: Sequence[ViewDefinition]) -> ViewDefinition:
    """The sub-view with the features of all these."""
    return replace(parts[0], features=tuple(feature for part in parts for feature in part.features))


def merge_rows(parts: Sequence[ViewRows], destination: Path, *, scratch: Path) -> ViewRows:
    """Write the rows of parts of one view as one file; `scratch` is for what does not fit into memory."""
    view = merged_view([part.view for part in parts])
    columns = row_columns(view)
    same = [column.name for column in columns if view.feature(column.name) is None]
    keys = ", ".join(quote_name(name) for name in same)
    numbered = [
        f"(SELECT *, row_number() OVER (PARTITION BY {keys} ORDER BY file_row_number) AS __nth "  # noqa: S608
        f"FROM read_parquet({quote_text(str(part.path))}, file_row_number = true)) AS p{index}"
        for index, part in enumerate(parts)
    ]
    joined = numbered[0]
    for index, each in enumerate(numbered[1:], start=1):
        equal = " AND ".join(f"p0.{quote_name(name)} IS NOT DISTINCT FROM p{index}.{quote_name(name)}" for name in same)
        joined += f" FULL JOIN {each} ON {equal} AND p0.__nth = p{index}.__nth"
    owner = {feature.name: index for index, part in enumerate(parts) for feature in part.view.features}
    taken = [
        f"p{owner[column.name]}.{quote_name(column.name)}"
        if column.name in owner
        else f"coalesce({', '.join(f'p{index}.{quote_name(column.name)}' for index in range(len(parts)))})"
        for column in columns
    ]
    named = ", ".join(f"{sql} AS {quote_name(column.name)}" for sql, column in zip(taken, columns, strict=True))
    nth = f"coalesce({', '.join(f'p{index}.__nth' for index in range(len(parts)))})"
    order = ", ".join(f"{quote_name(name)} NULLS FIRST" for name in same)
    query = f"SELECT * EXCLUDE (__nth) FROM (SELECT {named}, {nth} AS __nth FROM {joined}) ORDER BY {order}, __nth"  # noqa: S608
    arrow = load_arrow()
    with open_duckdb(scratch) as connection, RowWriter(destination, columns, metadata={}) as writer:
        limit_threads(connection)
        for batch in fetch_batches(connection, query, ROW_GROUP):
            writer.write(arrow.Table.from_batches([batch]))
        writer.finish()
    return ViewRows(view=view, path=destination)


def fetch_view(
    replicas: ReplicaRows, parts: Sequence[SnapshotPartName], *, near: str | None = None, only: str | None = None
) -> ViewRows:
    """The rows of a view as one file, out of verified replicas of these parts of it.

    Raises:
        ReplicaUnavailable: if a replica cannot be read.
    """
    found = [ViewRows(view=part.view, path=replicas.fetch(part.artifact, near=near, only=only)) for part in parts]
    if len(found) == 1:
        return found[0]
    # What is merged is under every part's class, and so is its folder's name.
    digests = "".join(part.artifact.digest for part in parts)
    classes = "+".join(part.residency for part in parts)
    folder = replicas.folder / parts[0].artifact.workspace_id / classes
    destination = folder / f"{hashlib.sha256(digests.encode()).hexdigest()}.parquet"
    if not destination.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with Scratch(folder / "scratch").folder("merge-") as scratch:
            merge_rows(found, scratch / destination.name, scratch=scratch)
            (scratch / destination.name).replace(destination)
    return ViewRows(view=merged_view([part.view for part in parts]), path=destination)
