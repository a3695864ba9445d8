"""Deploy targets: where deployments may run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from fairlead.core.ids import parse_name
from fairlead.sdk.records import JsonObject, Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fairlead.core.errors import JsonValue
    from fairlead.sdk.transport import Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployTarget(Record):
    """A target as it was applied; `regions` None: any. `local` is always there, at revision 0."""

    name: str
    kind: str
    delivery: str
    regions: tuple[str, ...] | None = None
    settings: JsonObject
    delivery_settings: JsonObject
    revision: int
    updated_by: str | None = None
    updated_at: datetime | None = None


class DeployTargets:
    """Clusters, folders and branches where deployments may run."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Iterator[DeployTarget]:
        """All targets by name, `local` first."""
        yield self.get("local")
        yield from map(DeployTarget.from_json, self._transport.items("/api/v1/targets"))

    def get(self, name: str) -> DeployTarget:
        """One target.

        Raises:
            DeployTargetNotFound: if there is none of that name.
        """
        return DeployTarget.from_json(self._transport.get(_path(name)))

    def apply(self, name: str, document: Mapping[str, JsonValue], *, revision: int | None = None) -> DeployTarget:
        """Create or replace a target: `kind`, `delivery`, `regions`, `settings`, `delivery_settings`.

        Raises:
            InvalidInput: with the JSON pointer of the member in `attributes["pointer"]`.
            StaleRevision: if a revision is given and the target is not at it (0: not there yet).
        """
        answer = self._transport.request("PUT", _path(name), body=dict(document), if_match=revision)
        return DeployTarget.from_json(answer)

    def delete(self, name: str, *, revision: int | None = None) -> None:
        """Remove a target.

        Raises:
            Conflict: if deployments use it.
        """
        self._transport.request("DELETE", _path(name), if_match=revision)

    def render(self, name: str, deployment: str, *, region: str | None = None) -> tuple[JsonObject, ...]:
        """What the target is given, or would be, for a deployment: `region`, and `documents` with path and text."""
        path = f"/api/v1/deployments/{quote(parse_name(deployment, what='deployment'), safe='')}/documents"
        return tuple(self._transport.items(path, target=name, region=region))


def _path(name: str) -> str:
    return f"/api/v1/targets/{quote(parse_name(name, what='target'), safe='')}"
