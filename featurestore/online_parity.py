"""Whether an online store holds what its snapshot says, of a sample of its entities.

An entity is in the sample if the hash of its keys and a seed is small enough. The same entities are therefore taken
from the snapshot and from the store, in every region, and by a second check with the same seed. Of `n` sampled entities
without a difference it can be said, at 95 %, that fewer than `3 / n` of all differ.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fairlead.core.canonical import canonical_json
from fairlead.core.errors import JsonValue
from fairlead.featurestore.duck import fetch_number, fetch_rows, open_duckdb, quote_text
from fairlead.featurestore.online_engines import OnlineStoreReader
from fairlead.featurestore.online_layout import KeptView
from fairlead.featurestore.online_reader import StoredView, ViewColumns

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

KINDS = ("form", "value", "type", "missing", "extra", "stale", "ahead")
"""What may be wrong with an entity: another value, an equal one of another type, no row, a row that the snapshot does
not have, one that is older than the snapshot's, or one that is newer although nothing is pushed to the view. `form` is
of a whole view: the store describes it otherwise (its keys, features, TTL, or whether it may be there), or not at all.
"""

EXAMPLES_MAX = 20
_HASH_DIGITS = 8
_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)
_READ_AT_ONCE = 500

Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """An entity that the store has otherwise than the snapshot. `feature` is the first that differs."""

    kind: str
    key: Key
    feature: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewParity:
    """What was found of one view. `newer` rows were pushed since the snapshot, and are no difference.

    `fingerprint` names the keys, times and values of the sample as they are served. `has_listed_keys`: whether rows
    that the snapshot does not have could be looked for.
    """

    view: str
    entities: int
    sampled: int
    newer: int
    has_listed_keys: bool
    fingerprint: str
    differences: tuple[Difference, ...]

    def to_json(self, *, is_restricted: bool) -> dict[str, JsonValue]:
        """The finding as the record keeps it: of restricted views counts alone."""
        counts = Counter(each.kind for each in self.differences)
        found: dict[str, JsonValue] = {
            "view": self.view,
            "entities": self.entities,
            "sampled": self.sampled,
            "newer": self.newer,
            "has_listed_keys": self.has_listed_keys,
            "differences": {kind: counts[kind] for kind in KINDS if counts[kind]},
            "fingerprint": None if is_restricted else self.fingerprint,
            "examples": [],
        }
        if not is_restricted:
            found["examples"] = [
                {"kind": each.kind, "key": list(each.key), "feature": each.feature}
                for each in self.differences[:EXAMPLES_MAX]
            ]
        return found


def compare_view(
    view: KeptView,
    stored: StoredView | None,
    reader: OnlineStoreReader,
    *,
    seed: str,
    sample: int,
    scratch: Path,
) -> ViewParity:
    """Compare one view of a store with the snapshot's rows of it, for about `sample` entities.

    Args:
        view: the view as the snapshot has it in the region, where it may be missing.
        stored: the view as the store describes it, if it does.
        reader: reads the store.
        seed: the same seed takes the same entities.
        sample: about how many entities are compared.
        scratch: a folder for what does not fit into memory.

    Raises:
        OnlineStoreError: if the store cannot be read.
    """
    if stored is None or not _is_described(stored, view):
        return _of_another_form(view)
    if view.is_missing:
        return _nothing(view)
    with open_duckdb(scratch) as connection:
        rows = f"({view.last_rows(is_binary=True)})"
        entities = fetch_number(connection, f"SELECT count(*) FROM {rows}")  # noqa: S608  (quoted by whoever made it)
        limit = _limit(entities, sample)
        expected = _expected(connection, rows, view, seed, limit)
    listed = reader.keys(stored.alias)
    keys = set(expected)
    if listed is not None:
        keys.update(key for key in listed if _hash(seed, key) <= limit)
    ordered = sorted(keys, key=repr)
    wanted = stored.columns([expected.get(key) for key in ordered], -(2**62))
    served = _serve(reader, stored, ordered)
    differences: list[Difference] = []
    newer = 0
    for index, key in enumerate(ordered):
        found = _judge(key, index, wanted, served, is_pushed_to=view.view.stream is not None)
        if found == "newer":
            newer += 1
        elif isinstance(found, Difference):
            differences.append(found)
    return ViewParity(
        view=stored.alias,
        entities=entities,
        sampled=len(ordered),
        newer=newer,
        has_listed_keys=listed is not None,
        fingerprint=_fingerprint(ordered, served),
        differences=tuple(differences),
    )


def _judge(
    key: Key, index: int, wanted: ViewColumns, served: ViewColumns, *, is_pushed_to: bool
) -> Difference | str | None:
    then, now = wanted.moments[index], served.moments[index]
    if now is None:
        return None if then is None else Difference(kind="missing", key=key)
    if then is not None and now < then:
        return Difference(kind="stale", key=key)
    if then is None or now > then:
        if is_pushed_to:
            return "newer"
        return Difference(kind="extra" if then is None else "ahead", key=key)
    for name, values in wanted.features.items():
        left, right = values[index], served.features[name][index]
        if not _is_same(left, right):
            return Difference(kind="type" if left == right else "value", key=key, feature=name)
    return None


def _is_same(left: Any, right: Any) -> bool:
    if type(left) is not type(right):
        return False
    if isinstance(left, list):
        items = cast("list[Any]", left)
        return len(items) == len(right) and all(map(_is_same, items, right))
    return left == right or (left != left and right != right)  # noqa: PLR0124  (not a number)


def _is_described(stored: StoredView, view: KeptView) -> bool:
    wanted = StoredView(view.described())
    return (stored.keys, stored.features, stored.ttl, stored.is_missing) == (
        wanted.keys,
        wanted.features,
        wanted.ttl,
        wanted.is_missing,
    )


def _nothing(view: KeptView) -> ViewParity:
    return ViewParity(
        view=view.projection.alias,
        entities=0,
        sampled=0,
        newer=0,
        has_listed_keys=True,
        fingerprint="",
        differences=(),
    )


def _of_another_form(view: KeptView) -> ViewParity:
    # Its values cannot be read as what they should be.
    return replace(_nothing(view), differences=(Difference(kind="form", key=()),))


def _limit(entities: int, sample: int) -> str:
    share = 1.0 if entities <= sample else sample / entities
    return f"{min(16**_HASH_DIGITS - 1, int(share * 16**_HASH_DIGITS)):0{_HASH_DIGITS}x}"


def _hash(seed: str, key: Key) -> str:
    return hashlib.sha256("\x1f".join([seed, *map(str, key)]).encode()).hexdigest()[:_HASH_DIGITS]


def _expected(
    connection: DuckDBPyConnection, rows: str, view: KeptView, seed: str, limit: str
) -> dict[Key, Sequence[Any]]:
    width = len(view.view.keys)
    keys = ", ".join(f"CAST(k{index} AS VARCHAR)" for index in range(width))
    values = "".join(f", f{index}" for index in range(len(view.features)))
    names = ", ".join(f"k{index}" for index in range(width))
    hashed = f"substr(sha256(concat_ws(chr(31), {quote_text(seed)}, {keys})), 1, {_HASH_DIGITS})"
    query = f"SELECT {names}, event{values} FROM {rows} WHERE {hashed} <= {quote_text(limit)}"  # noqa: S608
    return {tuple(row[:width]): row[width:] for row in fetch_rows(connection, query)}


def _serve(reader: OnlineStoreReader, stored: StoredView, keys: Sequence[Key]) -> ViewColumns:
    """What the store has of entities, however old it is."""
    statuses: list[str] = []
    moments: list[int | None] = []
    features: dict[str, list[Any]] = {name: [] for name, _, _ in stored.features}
    for part in _parts(keys):
        columns = {name: [key[index] for key in part] for index, (name, _, _) in enumerate(stored.keys)}
        _, (found,) = reader.read_columns(columns, now=_BEGINNING, views=[stored.alias])
        statuses += found.statuses
        moments += found.moments
        for name, values in found.features.items():
            features[name] += values
    return ViewColumns(view=stored.alias, statuses=statuses, moments=moments, features=features)


def _parts(keys: Sequence[Key]) -> Iterator[Sequence[Key]]:
    for start in range(0, len(keys), _READ_AT_ONCE):
        yield keys[start : start + _READ_AT_ONCE]


def _fingerprint(keys: Sequence[Key], served: ViewColumns) -> str:
    hasher = hashlib.sha256()
    for index, key in enumerate(keys):
        row = [*key, served.moments[index], *(values[index] for values in served.features.values())]
        hasher.update(canonical_json([repr(value) for value in row]))
    return hasher.hexdigest()
