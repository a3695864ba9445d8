"""What engines of online stores keep of a service: for each projection one row of each entity, and how it is made.

Values are kept in one form everywhere, as text or numbers: times as microseconds since 1970 (UTC), truth values as 0
and 1, lists as JSON text in which times are numbers and bytes base64. Only bytes differ: an engine that keeps JSON
takes them as base64. DuckDB makes that form from snapshots, and `fairlead.featurestore.online_live` from pushed rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fairlead.featurestore.definitions import ViewDefinition
from fairlead.featurestore.duck import quote_name, quote_text
from fairlead.featurestore.joins import ViewRows, output_names, ttl_microseconds
from fairlead.featurestore.online_engines import StoreChanges, StoreContents
from fairlead.featurestore.services import Projection


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

    def accepted(self) -> str:
        """What of rows that are pushed for its view is kept, as JSON for `online_live.read_pushed`."""
        types, source = self.types, self.view.source
        return json.dumps(
            {
                "view": self.view.name,
                "event": source.timestamp_field,
                "created": source.created_timestamp_column,
                "features": {feature: types[feature] for feature in sorted(self.here)},
            }
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
