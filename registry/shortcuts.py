"""The answers that the quick reads give, as the routes of the same paths would give them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from fairlead.core.errors import FairleadError
from fairlead.core.ids import parse_model_reference
from fairlead.registry.mlflow.api import MLFLOW_PREFIX
from fairlead.registry.mlflow.records import read_collected, render_found
from fairlead.registry.schemas import ResolvedOut
from fairlead.registry.version_records import to_version

if TYPE_CHECKING:
    from fairlead.registry.quick_versions import QuickVersions

Shortcut = Callable[[str, Mapping[str, str]], Awaitable[bytes | None]]
"""From a token's secret and the query's parameters to the JSON of an answer; None where it declines."""


def shortcuts(versions: QuickVersions, *, api_prefix: str) -> dict[str, Shortcut]:
    """By method and path."""

    async def get_by_alias(secret: str, query: Mapping[str, str]) -> bytes | None:
        name, alias = query.get("name", ""), query.get("alias", "")
        # `latest` is no alias of ours.
        found = None if alias.lower() == "latest" else await versions.by_alias(secret, name, alias)
        if found is None:
            return None
        return json.dumps({"model_version": render_found(found)}, ensure_ascii=False).encode()

    async def resolve(secret: str, query: Mapping[str, str]) -> bytes | None:
        try:
            wanted = parse_model_reference(query.get("reference", ""))
        except FairleadError:
            return None
        found = None if wanted.alias is None else await versions.by_alias(secret, wanted.name, wanted.alias)
        if found is None:
            return None
        tags, aliases = read_collected(found)
        version = to_version(
            found.model_name,
            found,
            tags=tags,
            aliases=tuple(aliases),
            sent_bytes=found.sent_bytes,
            size_bytes=found.size_bytes,
        )
        answer = ResolvedOut.model_validate(version)
        answer.resolved_revision = found.revision
        return answer.model_dump_json().encode()

    return {
        f"GET {MLFLOW_PREFIX}/registered-models/alias": get_by_alias,
        f"GET {api_prefix}/resolve": resolve,
    }
