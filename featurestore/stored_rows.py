"""The artifact of a snapshot's part: a base, and deltas upon it, each of which is what one later snapshot changed.

An artifact stands by itself: it holds the base and every delta, in files that the artifact before it held too, so that
the content store sends and stores only the last one. It is *flattened* into one file of rows, which is the same, byte
for byte, whether it came in one base or in many deltas. Form 1 is a base alone (`rows.parquet`); form 2 says in
`rows.json` how many deltas there are and what the flat rows' digest is, and a reader holds it to that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairlead.core.canonical import canonical_json
from fairlead.core.errors import CorruptSnapshot
from fairlead.core.ids import Digest
from fairlead.featurestore.duck import ArrowTable, load_arrow
from fairlead.featurestore.row_deltas import apply_delta, iter_added, pick_removed, write_delta
from fairlead.featurestore.row_files import RowWriter, WrittenRows, columns_of, iter_groups
from fairlead.featurestore.rows import ROWS_FILE

INDEX_FILE, BASE_FILE = "rows.json", "base.parquet"
FORMAT, FORMAT_VERSION = "fairlead/rows", 2

MOST_DELTAS = 32
MOST_DELTA_SHARE = 0.5
"""When deltas are folded into a new base: more of them, or an artifact that is longer than its rows as one base by more
than this. Whoever brings an artifact to another region, or flattens it, pays for all that it has; a new base is sent
whole. At one half, a change of 2 % a day has one new base in three weeks."""

_MOST_INDEX_BYTES = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRows:
    """An artifact's files below a folder. `rows` and `digest` are those of the flat rows; None in form 1."""

    folder: Path
    deltas: int = 0
    written: WrittenRows | None = None

    @property
    def base(self) -> Path:
        """The base."""
        return self.folder / (BASE_FILE if self.deltas else ROWS_FILE)

    def delta(self, number: int) -> tuple[Path, Path]:
        """The files of a delta, from 1: rows put in, rows taken out."""
        added, removed = delta_names(number)
        return self.folder / added, self.folder / removed

    @property
    def files(self) -> dict[str, Path]:
        """Every file but the index, by the name it has in form 2."""
        found = {BASE_FILE: self.base}
        for number in range(1, self.deltas + 1):
            found |= dict(zip(delta_names(number), self.delta(number), strict=True))
        return found

    def iter_rows(self) -> Iterator[ArrowTable]:
        """The flat rows, in canonical order, in tables of any size."""
        rows = iter_groups(self.base)
        for number in range(1, self.deltas + 1):
            added, removed = self.delta(number)
            rows = apply_delta(rows, added=added, removed=removed)
        return rows


def delta_names(number: int) -> tuple[str, str]:
    """The names of a delta's files: rows put in, rows taken out."""
    return f"delta-{number:04d}.added.parquet", f"delta-{number:04d}.removed.parquet"


def read_stored(folder: Path) -> StoredRows:
    """The artifact whose files lie in a folder.

    Raises:
        CorruptSnapshot: if it is of no form that is known here.
    """
    if (folder / ROWS_FILE).is_file():
        return StoredRows(folder=folder)
    problem: Exception | None = None
    try:
        text = (folder / INDEX_FILE).read_bytes()
        index: dict[str, Any] = json.loads(text) if len(text) <= _MOST_INDEX_BYTES else {}
        if (index.get("format"), index.get("version")) == (FORMAT, FORMAT_VERSION):
            written = WrittenRows(rows=int(index["rows"]), digest=Digest(index["rows_digest"]))
            stored = StoredRows(folder=folder, deltas=int(index["deltas"]), written=written)
            if stored.deltas >= 1 and all(path.is_file() for path in stored.files.values()):
                return stored
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        problem = error
    raise CorruptSnapshot(
        "The artifact does not hold rows of a snapshot in a form that is known here.",
        hint="A newer release of Fairlead may have written it: upgrade this one.",
    ) from problem


def flatten(stored: StoredRows, destination: Path) -> WrittenRows:
    """Write the flat rows as one file.

    Raises:
        CorruptSnapshot: if they are not those that the artifact says it holds.
    """
    try:
        with RowWriter(destination, columns_of(load_arrow().parquet.read_schema(stored.base))) as writer:
            for table in stored.iter_rows():
                writer.write(table)
            written = writer.finish()
    except (ValueError, KeyError, IndexError) as error:
        # Also what Arrow raises for what is no Parquet.
        raise _corrupt() from error
    if stored.written not in {None, written}:
        raise _corrupt()
    return written


def _corrupt() -> CorruptSnapshot:
    return CorruptSnapshot(
        "The deltas of a snapshot's artifact do not give the rows that it says it holds.",
        hint="Take the snapshot again: fairlead features snapshot SERVICE --as-of TIME",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Successor:
    """The files of the next artifact: a new base alone, or what was there before with one more delta."""

    files: Mapping[str, Path]
    deltas: int


def write_base(flat: Path) -> Successor:
    """An artifact of a base alone."""
    return Successor(files={ROWS_FILE: flat}, deltas=0)


def write_successor(
    before: StoredRows, flat_before: Path, flat: Path, written: WrittenRows, folder: Path, *, by: list[str]
) -> Successor:
    """Make the artifact of the rows in `flat` out of one of other rows of the same sub-view.

    Args:
        before: the files of that one.
        flat_before: its flat rows.
        flat: the new rows.
        written: their number and digest.
        folder: where the new files go.
        by: the keys and the event timestamp.

    Compaction changes no row: past the limits, the artifact is `flat` as a new base.
    """
    number = before.deltas + 1
    if number > MOST_DELTAS:
        return write_base(flat)
    added, removed = (folder / name for name in delta_names(number))
    write_delta(flat_before, flat, added=added, removed=removed, by=by)
    fresh = dict(zip(delta_names(number), (added, removed), strict=True))
    files = {**before.files, **fresh}
    if sum(path.stat().st_size for path in files.values()) > (1 + MOST_DELTA_SHARE) * flat.stat().st_size:
        for path in fresh.values():
            path.unlink()
        return write_base(flat)
    index = folder / INDEX_FILE
    index.write_bytes(
        canonical_json(
            {
                "format": FORMAT,
                "version": FORMAT_VERSION,
                "rows": written.rows,
                "rows_digest": written.digest,
                "deltas": number,
            }
        )
    )
    return Successor(files={INDEX_FILE: index, **files}, deltas=number)


def follows(before: StoredRows, after: StoredRows) -> bool:
    """Whether an artifact is another one with one more delta."""
    if after.deltas != before.deltas + 1:
        return False
    return all(_sha256(path) == _sha256(after.files[name]) for name, path in before.files.items())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_row_delta(
    flat: Path, stored: StoredRows | None, flat_after: Path, *, added: Path, removed: Path
) -> tuple[int, int]:
    """Write the whole rows that another artifact has more, and those it has less, than `flat`; how many each are.

    Args:
        flat: the flat rows of the one.
        stored: the other, if it is the one with one more delta, which then says it all.
        flat_after: the flat rows of the other.
        added: where the rows go that it has more.
        removed: where those go that it has less.
    """
    columns = columns_of(load_arrow().parquet.read_schema(flat_after))
    put, gone = (
        stored.delta(stored.deltas)
        if stored is not None
        else (added.with_name(f"{added.name}.delta"), removed.with_name(f"{removed.name}.delta"))
    )
    if stored is None:
        write_delta(flat, flat_after, added=put, removed=gone)
    counts: list[int] = []
    for path, rows in ((added, iter_added(put)), (removed, pick_removed(iter_groups(flat), gone))):
        with RowWriter(path, columns) as writer:
            for table in rows:
                writer.write(table)
            counts.append(writer.finish().rows)
    if stored is None:
        put.unlink()
        gone.unlink()
    return counts[0], counts[1]
