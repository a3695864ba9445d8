"""What engines of online stores keep of a service: for each projection one row of each entity, and how it is made.

Values are kept in one form everywhere, as text or numbers: times as microseconds since 1970 (UTC), truth values as 0
and 1, lists as JSON text in which times are numbers and bytes base64. Only bytes differ: an engine that keeps JSON
takes them as base64. DuckDB makes that form from snapshots, and `kept_value` from rows that are pushed.
"""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fairlead.core.errors import InvalidInput
from fairlead.featurestore.definitions import ViewDefinition
from fairlead.featurestore.duck import quote_name, quote_text
from fairlead.featurestore.joins import ViewRows, output_names, ttl_microseconds
from fairlead.featurestore.online_engines import PushedRow, StoreChanges, StoreContents
from fairlead.featurestore.services import Projection

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptView:
    """One projection of a service, as an engine keeps it.

    `features` are (output name, feature); `parts` the parts of the view that may be in this region and have any of
    them; `changed`, for each part, the files that name the entities to rewrite.
    """

    position: int
    view: ViewDefinition
    projection: Projection
    features: tuple[tuple[str, str], ...]
    parts: tuple[ViewRows, ...]
    changed: tuple[tuple[Path, ...], ...] = ()

    @property
    def is_missing(self) -> bool:
        """Whether nothing of it may be in this region."""
        return not self.parts

    @property
    def types(self) -> dict[str, str]:
        """The type of each of its features."""
        wanted = {feature for _, feature in self.features}
        return {column.name: column.type for column in self.view.features if column.name in wanted}

    @property
    def here(self) -> frozenset[str]:
        """Those of its features that may be in this region."""
        return frozenset(column.name for part in self.parts for column in part.view.features) & self.types.keys()

    def described(self) -> tuple[str, str, str, str, int | None, int]:
        """What a reader needs to know: alias, store, keys, features, TTL in microseconds, whether it is missing."""
        types, key_map = self.types, self.projection.join_key_map
        return (
            self.projection.alias,
            f"view_{self.position}",
            json.dumps([[key_map.get(key.name, key.name), key.type, key.name] for key in self.view.keys]),
            json.dumps([[name, types[feature], feature] for name, feature in self.features]),
            ttl_microseconds(self.view),
            int(self.is_missing),
        )

    def last_rows(self, *, is_binary: bool) -> str:
        """SQL for the last row of each entity, in the order of the keys: `k0 ...`, `event`, `created`, `f0 ...`.

        Event and created timestamps are microseconds; of changed entities alone where those are named. `is_binary`:
        bytes stay bytes.
        """
        taken: dict[str, int] = {}
        for index, part in enumerate(self.parts):
            for column in part.view.features:
                taken.setdefault(column.name, index)
        queries = [self._last_rows_of(index, taken, is_binary=is_binary) for index in range(len(self.parts))]
        if len(queries) == 1:
            return queries[0]
        keys = ", ".join(f"k{index}" for index in range(len(self.view.keys)))
        values = "".join(
            f", p{taken[feature]}.f{position}" if feature in taken else f", NULL AS f{position}"
            for position, (_, feature) in enumerate(self.features)
        )
        # Parts of a view hold the same entities at the same times.
        joined = "".join(f" JOIN ({query}) p{index} USING ({keys})" for index, query in enumerate(queries) if index)
        return f"SELECT {keys}, p0.event, p0.created{values} FROM ({queries[0]}) p0{joined} ORDER BY {keys}"  # noqa: S608

    def changed_keys(self) -> str | None:
        """SQL for the keys of the entities to rewrite, as `k0 ...`; None where there is none."""
        files = [str(path) for each in self.changed for path in each]
        if not files:
            return None
        keys = ", ".join(f"{quote_name(key.name)} AS k{index}" for index, key in enumerate(self.view.keys))
        listed = ", ".join(quote_text(path) for path in files)
        return f"SELECT DISTINCT {keys} FROM read_parquet([{listed}])"  # noqa: S608  (every name and text is quoted)

    def _last_rows_of(self, index: int, taken: Mapping[str, int], *, is_binary: bool) -> str:
        rows, view = self.parts[index], self.view
        names = [quote_name(key.name) for key in view.keys]
        keys = ", ".join(f"{name} AS k{position}" for position, name in enumerate(names))
        created = view.source.created_timestamp_column
        event = f"epoch_us({quote_name(view.source.timestamp_field)}) AS event"
        created = "CAST(NULL AS BIGINT)" if created is None else f"epoch_us({quote_name(created)})"
        values = "".join(
            f", {_as_kept(feature, self.types[feature], is_binary=is_binary)} AS f{position}"
            if taken.get(feature) == index
            else f", NULL AS f{position}"
            for position, (_, feature) in enumerate(self.features)
            if len(self.parts) == 1 or taken.get(feature) == index
        )
        columns, file = f"{keys}, {event}, {created} AS created{values}", quote_text(str(rows.path))
        changed = self.changed_keys()
        if changed is None:
            # Rows of an entity lie together, so its last one is the one that another entity, or nothing, follows.
            is_last = " OR ".join(f"lead({name}) OVER () IS DISTINCT FROM {name}" for name in names)
            return f"SELECT {columns} FROM read_parquet({file}) QUALIFY {is_last}"  # noqa: S608
        matches = " AND ".join(f"r.{name} = c.k{position}" for position, name in enumerate(names))
        partition = ", ".join(f"r.{name}" for name in names)
        return (
            f"SELECT {columns} FROM read_parquet({file}, file_row_number = true) r "  # noqa: S608
            f"SEMI JOIN ({changed}) c ON {matches} "
            f"QUALIFY lead(1) OVER (PARTITION BY {partition} ORDER BY file_row_number) IS NULL ORDER BY {partition}"
        )


def kept_views(contents: StoreContents, changes: StoreChanges | None = None) -> list[KeptView]:
    """Every projection of a service as it is kept in a region."""
    outputs = output_names(contents.service)
    found: list[KeptView] = []
    for position, projection in enumerate(contents.service.projections):
        features = tuple((name, feature) for owner, feature, name in outputs if owner is projection)
        wanted = {feature for _, feature in features}
        parts = contents.rows.get(projection.view, ())
        taken = [index for index, part in enumerate(parts) if wanted & {column.name for column in part.view.features}]
        files = () if changes is None else changes.files.get(projection.view, ())
        found.append(
            KeptView(
                position=position,
                view=contents.views[projection.view],
                projection=projection,
                features=features,
                parts=tuple(parts[index] for index in taken),
                changed=tuple(tuple(files[index]) for index in taken) if files else (),
            )
        )
    return found


def kept_value(value: Any, kind: str) -> Any:
    """A pushed value as it is kept in JSON; what is not a number is missing.

    Raises:
        InvalidInput: if it is not of the type.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    try:
        if kind.endswith("_LIST"):
            return json.dumps([kept_value(item, kind.removesuffix("_LIST")) for item in value], ensure_ascii=False)
        return _KEPT[kind](value)
    except (TypeError, ValueError, AttributeError, OverflowError):
        raise InvalidInput(
            f"A pushed value of type {type(value).__name__} is no {kind}.", hint="Send what the view's schema says."
        ) from None


def pushed_times(view: ViewDefinition, row: PushedRow) -> tuple[int, int | None]:
    """The event and the created timestamp of a pushed row, in microseconds.

    Raises:
        InvalidInput: if it has no event timestamp.
    """
    event = kept_value(row.get(view.source.timestamp_field), "UNIX_TIMESTAMP")
    if event is None:
        raise InvalidInput(
            f"A row for view {view.name!r} has no {view.source.timestamp_field!r}.",
            hint="Say when what it tells was so.",
        )
    created = view.source.created_timestamp_column
    return event, None if created is None else kept_value(row.get(created), "UNIX_TIMESTAMP")


def _microseconds(value: datetime) -> int:
    return (value - _EPOCH) // timedelta(microseconds=1)


def _whole(value: Any) -> int:
    if isinstance(value, str) or int(value) != value:
        raise ValueError
    return int(value)


def _single(value: float) -> float:
    rounded: float = struct.unpack("f", struct.pack("f", value))[0]
    return rounded


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


_KEPT = {
    "INT32": _whole,
    "INT64": _whole,
    "FLOAT": _single,
    "DOUBLE": float,
    "STRING": _text,
    "BOOL": lambda value: int(bool(value)),
    "BYTES": lambda value: base64.b64encode(value).decode(),
    "UNIX_TIMESTAMP": _microseconds,
}


def _as_kept(feature: str, kind: str, *, is_binary: bool) -> str:
    name = quote_name(feature)
    if kind == "UNIX_TIMESTAMP":
        return f"epoch_us({name})"
    if kind == "BOOL":
        return f"CAST({name} AS INTEGER)"
    if kind == "BYTES" and not is_binary:
        return f"base64({name})"
    if kind == "UNIX_TIMESTAMP_LIST":
        return f"CAST(to_json(list_transform({name}, lambda each: epoch_us(each))) AS VARCHAR)"
    if kind == "BYTES_LIST":
        return f"CAST(to_json(list_transform({name}, lambda each: base64(each))) AS VARCHAR)"
    if kind == "FLOAT_LIST":
        # As doubles: the text of a 32-bit float reads back as another 64-bit one.
        return f"CAST(to_json(CAST({name} AS DOUBLE[])) AS VARCHAR)"
    return f"CAST(to_json({name}) AS VARCHAR)" if kind.endswith("_LIST") else name
