"""Lineage: what a version was made from, and what was made of it, asked from either end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fairlead.sdk.records import JsonObject, Record

if TYPE_CHECKING:
    from fairlead.sdk.transport import Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageNode(Record):
    """A run, commit, feature service, snapshot, version, bundle, alias or deployment."""

    id: str
    kind: str
    name: str
    facts: JsonObject = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageEdge(Record):
    """That `target` was made of, holds or runs `source`."""

    source: str
    target: str
    relation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage(Record):
    """A graph around its roots. `is_whole` is False where there are more versions than one answer holds."""

    roots: tuple[str, ...]
    nodes: tuple[LineageNode, ...]
    edges: tuple[LineageEdge, ...]
    is_whole: bool = True

    def of(self, kind: str) -> tuple[LineageNode, ...]:
        """The nodes of one kind, such as `deployment`."""
        return tuple(node for node in self.nodes if node.kind == kind)


class Lineages:
    """Where things came from, and where they went."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def ask(
        self,
        reference: str | None = None,
        *,
        snapshot: str | None = None,
        bundle: str | None = None,
        run: str | None = None,
        commit: str | None = None,
    ) -> Lineage:
        """The graph around one of them: a version (`churn/3`, `churn@production`), snapshot, bundle, run or commit.

        Raises:
            InvalidInput: unless exactly one is given.
            NotFound: if there is no such thing.
        """
        answer = self._transport.get(
            "/api/v1/lineage", version=reference, snapshot=snapshot, bundle=bundle, run=run, commit=commit
        )
        return Lineage.from_json(answer)
